"""A flow's run from beginning to end: its record in the store, its log, its pages in Prefect, and word of its end."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, cast

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.runtime import flow_run

from flows.outcome import Outcome
from flows.prefect_traces import page_key
from flows.run_report import markdown, sentence, tenant_line
from flows.run_traces import forget_in_runs
from flows.runs import RunRecord, counted, left_over, prune_runs, run_name, write_record
from flows.webhook import WebhookSettings, notify
from registry.deletion.tombstones import buried_among
from registry.errors import MacrofleetError
from registry.names import mentions
from registry.settings import read_settings
from registry.store import ObjectStore

Made = TypeVar("Made")
_WARNINGS = 100


class RunBook:
    """Writes down what a flow's run does. Made by `run_book`, inside the flow.

    Attributes:
        run: its name in the store.
    """

    def __init__(self, store: ObjectStore, settings: WebhookSettings) -> None:
        now = datetime.now(UTC)
        self.run = run_name((flow_run.scheduled_start_time or now).astimezone(UTC), flow_run.id)
        self._store = store
        self._settings = settings
        self._log = get_run_logger()
        self._begun = False
        self._record = RunRecord(
            run=self.run, flow=flow_run.flow_name, flow_run_id=flow_run.id, state="running", started_at=now
        )
        self._lock = threading.Lock()
        self._ended = 0
        self._percent = 0
        self._progress: uuid.UUID | None = None
        self._deleted: frozenset[str] = frozenset()

    def begin(self, tenants: int = 0) -> None:
        """Say that the run does something from now on.

        Args:
            tenants: how many it is about; with any, Prefect shows how far it is.

        Raises:
            StoreUnavailable: it cannot be written down, and nothing else could be.
        """
        self._begun = True
        self._update(tenants=tenants)
        write_record(self._store, self._record)
        if tenants:
            key, description = f"{self._page_key}-progress", f"run {self.run}: {tenants} tenants"
            self._progress = self._page(lambda: cast(uuid.UUID, create_progress_artifact(0.0, key, description)))

    def told(self, outcome: Mapping[str, Any]) -> None:
        """What became of a tenant: a line in the log, and progress, both counted over the whole run. From any thread."""
        with self._lock:
            self._ended += 1
            ended, tenants = self._ended, self._record.tenants
            percent = 100 * ended // max(1, tenants)
            further = percent > self._percent
            self._percent = percent
        self._log.info("%s (%d of %d)", tenant_line(self.run, outcome), ended, tenants)
        progress = self._progress
        if progress is not None and further:
            self._page(lambda: update_progress_artifact(progress, float(percent)))

    def say(self, text: str) -> None:
        """A warning in the log."""
        self._log.warning("run %s: %s", self.run, text)

    def finish(self, outcomes: Sequence[Outcome], *, generation: int, warnings: Sequence[str]) -> None:
        """What a training run came to. Of tenants that were deleted meanwhile nothing is told but how many there were."""
        self._deleted = buried_among(self._store, [outcome.tenant for outcome in outcomes])
        told = [outcome for outcome in outcomes if outcome.tenant not in self._deleted]
        warnings = [one for one in warnings if not any(mentions(tenant, one) for tenant in self._deleted)]
        counts = counted(outcome.as_dict() for outcome in outcomes)
        left = left_over(outcome.as_dict() for outcome in told)
        self._update(counts=counts, left=left, warnings=tuple(warnings), generation=generation)
        page = markdown(told, warnings)
        self._page(
            lambda: create_markdown_artifact(page, self._page_key, f"run {self.run}: what became of each tenant")
        )

    def report(self, page: str, description: str, *, warnings: Sequence[str]) -> None:
        """What a run found.

        Args:
            page: Markdown, for Prefect.
            description: of the page.
            warnings: what is left for somebody to see to, a sentence each; the first hundred are kept.
        """
        more = [f"and {len(warnings) - _WARNINGS} more"] if len(warnings) > _WARNINGS else []
        self._update(warnings=(*warnings[:_WARNINGS], *more))
        self._page(lambda: create_markdown_artifact(page, self._page_key, f"run {self.run}: {description}"))

    def tidy(self) -> None:
        """Forget old runs. One that cannot be forgotten yet is a warning in the log."""
        try:
            prune_runs(self._store)
        except MacrofleetError as problem:
            self.say(f"old runs are not forgotten: {problem}")

    def close(self, state: Literal["completed", "failed"], reason: str = "") -> None:
        """The run is over. What cannot be told of it is a warning in the log."""
        self._update(state=state, reason=reason, ended_at=datetime.now(UTC))
        if self._begun:
            try:
                write_record(self._store, self._record)
                for tenant in self._deleted:
                    # Its deletion could not take it out of what was being written.
                    forget_in_runs(self._store, tenant)
            except MacrofleetError as problem:
                self.say(f"its end is not written down: {problem}")
        if self._begun or state == "failed":
            try:
                notify(self._settings, summary_of(self._record))
            except MacrofleetError as problem:
                self.say(f"nobody was told: {problem}")

    @property
    def _page_key(self) -> str:
        return page_key(self._record.flow)

    def _update(self, **fields: Any) -> None:
        self._record = self._record.model_copy(update=fields)

    def _page(self, make: Callable[[], Made]) -> Made | None:
        """Show something in Prefect, which may be away: what a run does is in the store."""
        try:
            return make()
        except Exception as problem:  # noqa: BLE001  # whatever its client raises
            self.say(f"a page in Prefect is missing ({type(problem).__name__})")
            return None


@contextmanager
def run_book(store: ObjectStore) -> Iterator[RunBook]:
    """The book of the flow's run that goes on in this context, closed however it ends.

    Raises:
        InvalidInput: a setting of the webhook's is wrong.
    """
    book = RunBook(store, read_settings(WebhookSettings))
    try:
        yield book
    except BaseException as problem:
        # A library's message may quote a ticket.
        reason = str(problem) if isinstance(problem, MacrofleetError) else type(problem).__name__
        with suppress(Exception):
            book.close("failed", reason)
        raise
    book.close("completed")


def summary_of(record: RunRecord) -> dict[str, Any]:
    """A run that is over, as a webhook is told of it: `text` is what chats show, the rest is for programs."""
    row = record.model_dump(mode="json")
    seconds = ((record.ended_at or record.started_at) - record.started_at).total_seconds()
    text = sentence(record.flow, record.state, record.counts, seconds)
    if record.left or record.warnings:
        text += f"; left: {len(record.left)} tenants, {len(record.warnings)} warnings"
    if record.reason:
        text += f"; {record.reason}"
    return {"text": f"macrofleet {text}", "seconds": round(seconds, 1), **row}
