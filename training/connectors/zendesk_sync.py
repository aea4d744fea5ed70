"""A tenant's macros and labelled tickets out of Zendesk: what has been read is kept, whenever and however it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from registry.catalogue import Macro, make_catalogue
from registry.errors import HelpDeskRefused, InvalidInput
from registry.names import check_tenant
from registry.store import ObjectStore
from training.connectors.client import HelpDesk
from training.connectors.pace import Pace
from training.connectors.sync_state import SyncState, SyncStore
from training.connectors.zendesk import (
    CursorExpired,
    Ticket,
    export_macro_uses,
    export_tickets,
    read_audits,
    read_macros,
)
from training.connectors.zendesk_labels import Labelled, label
from training.lake import Lake, frame_of
from training.tenants import replace_catalogue

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]
# What the first synchronisation reads, where nobody says since when.
SYNCED_DAYS = 365
# Of the account's own limit: other programs work with the same account.
SHARE_OF_LIMIT = 0.5
# Where the API does not say what the account may: half of what the smallest plan has.
USUAL_RATE = 100.0
_CHUNK = 500
_LOOK_UP_SECONDS = 0.5
# Of chunks whose examples wait to be brought to the lake, which is rewritten whole.
_MOST_PARTS = 40
# Pages of ticket events that are looked at for a macro before it is clear that they name none.
_PROBED_EVENTS = 3_000
# An export begins again a little before where it ended: clocks and indexes of the help desk differ by as much.
_OVERLAP_SECONDS = 3600
# A start less than a minute ago is refused.
_LEAST_AGE_SECONDS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions:
    """What a synchronisation shall do.

    Attributes:
        since: seconds since the epoch; tickets that changed since. Counts only for the first run.
        audits: read those of so many tickets at most, the newest; None for all. The next run goes on.
        mask: replace personal data.
        rate: audits a minute; None takes half of what the account may, 0 sets no limit.
        threads: how many requests are under way at once.
    """

    since: int
    audits: int | None = None
    mask: bool = True
    rate: float | None = None
    threads: int = 4


@dataclass(slots=True, kw_only=True)
class SyncReport:
    """What a synchronisation came to.

    Attributes:
        macros: in the catalogue; `catalogue_changed` says whether it was another before.
        tickets: that the export gave in this run, each as often as it gave it.
        pages: of the export.
        events: whether ticket events told which tickets macros were applied to; None where nothing was to be read.
        audited: tickets whose audits were read; of them `labelled` had a macro applied, and `gone` were not there any more.
        references: `deleted` to macros gone from the account, `unresolved` that name none, `wordless` before any word.
        added, changed, unchanged, removed: examples in the lake.
        waiting: tickets whose audits are still to be read.
        requests, throttled, retried: see `Traffic`.
    """

    tenant: str
    macros: int = 0
    catalogue_changed: bool = False
    tickets: int = 0
    pages: int = 0
    events: bool | None = None
    audited: int = 0
    labelled: int = 0
    gone: int = 0
    references: dict[str, int] = field(default_factory=lambda: {"deleted": 0, "unresolved": 0, "wordless": 0})
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    waiting: int = 0
    requests: int = 0
    throttled: int = 0
    retried: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class ZendeskSync:
    """One run.

    Args:
        exports: the pace of the incremental exports; other requests keep to the options' rate.
        step: told what is going on.
    """

    def __init__(
        self,
        store: ObjectStore,
        tenant: str,
        desk: HelpDesk,
        *,
        account: str,
        options: SyncOptions,
        exports: Pace,
        step: Step,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tenant = check_tenant(tenant)
        self._store = store
        self._desk = desk
        self._options = options
        self._exports = exports
        self._step = step
        self._now = clock
        self._others = Pace(USUAL_RATE if options.rate is None else options.rate or None)
        self._sync = SyncStore(store, tenant, "zendesk")
        self._lake = Lake(store)
        self.report = SyncReport(tenant=tenant)
        first = SyncState(account=account, exported_to=options.since, events_from=options.since)
        self._state = self._sync.load() or first
        if self._state.account != account:
            raise InvalidInput(
                f"tenant {tenant} is synchronised with the account {self._state.account!r}",
                remedy="Give its subdomain, or begin again with --restart.",
            )

    def run(self) -> SyncReport:
        """All of it, or as far as it comes; `report` says how far. What was read stays read.

        Raises:
            HelpDeskRefused, HelpDeskUnavailable: the API does not let it go on.
            PublishConflict: another run of the same tenant is under way.
        """
        start = time.monotonic()
        try:
            self._step("reading macros", 0.0)
            macros = self._macros()
            self._export()
            self._look_at_events()
            self._read_audits(_ids_by_title(macros))
            self._merge()
            self._finish()
        finally:
            self._exports.stop()
            self._others.stop()
            traffic = self._desk.traffic
            self.report.requests, self.report.throttled = traffic.requests, traffic.throttled
            self.report.retried = traffic.retried
            self.report.seconds = round(time.monotonic() - start, 2)
        return self.report

    def _macros(self) -> list[Macro]:
        macros = read_macros(self._desk, self._others)
        self.report.macros = len(macros)
        self.report.catalogue_changed = replace_catalogue(self._store, self._tenant, make_catalogue(macros))
        limit = self._desk.traffic.rate_limit
        if self._options.rate is None and limit:
            self._others.change(max(1.0, SHARE_OF_LIMIT * limit))
        return macros

    def _save(self, **changes: Any) -> None:
        self._state = self._sync.save(self._state.model_copy(update=changes))

    def _export(self) -> None:
        """Keep every page before the next is asked for."""
        try:
            self._export_from(self._state.cursor)
        except CursorExpired:
            self._step("the export's cursor has expired; beginning where it was by time", 0.0)
            self._save(cursor=None)
            try:
                self._export_from(None)
            except CursorExpired:
                raise HelpDeskRefused(
                    "the help desk does not take the cursors that it gives",
                    remedy="Run it again later. What it gave is kept.",
                ) from None

    def _export_from(self, cursor: str | None) -> None:
        since = max(0, min(self._state.exported_to, int(self._now()) - _LEAST_AGE_SECONDS))
        for page in export_tickets(self._desk, self._exports, cursor=cursor, since=since):
            self.report.pages += 1
            self.report.tickets += len(page.tickets)
            tickets = [self._masked(ticket) for ticket in page.tickets]
            waiting = (*self._state.waiting, self._sync.put_waiting(tickets)) if tickets else self._state.waiting
            # By the help desk's clock, and never back.
            newest = max((int(ticket.updated) for ticket in tickets), default=0) - _OVERLAP_SECONDS
            self._save(cursor=page.cursor or None, waiting=waiting, exported_to=max(self._state.exported_to, newest))
            self._step(f"exported {self.report.tickets} tickets", 0.0)

    def _masked(self, ticket: Ticket) -> Ticket:
        """Without its subject where nobody may keep it: its audits have it, too."""
        return replace(ticket, subject="") if self._options.mask else ticket

    def _look_at_events(self) -> None:
        """Have ticket events say which tickets macros were applied to, where the account's do."""
        if self._state.events is False or not self._state.waiting:
            return
        seen = 0
        since = max(0, min(self._state.events_from, int(self._now()) - _LEAST_AGE_SECONDS))
        for page in export_macro_uses(self._desk, self._exports, since=since):
            seen += page.events
            if page.with_macro:
                self._save(
                    events=True, events_from=page.end, used=(*self._state.used, self._sync.put_used(page.with_macro))
                )
            elif self._state.events:
                self._save(events_from=page.end)
            elif seen >= _PROBED_EVENTS or page.last:
                # Nothing at all to go by is no answer yet; but then there is nothing to be read either.
                self._save(events=False if seen else None)
                break
            self._step(f"looked at {seen} ticket events", 0.0)

    def _read_audits(self, ids: Mapping[str, str | None]) -> None:
        waiting = self._waiting()
        self.report.events = self._state.events if self._state.waiting else None
        wanted = waiting if self._options.audits is None else waiting.head(self._options.audits)
        self.report.waiting = waiting.height
        if not wanted.height:
            return
        rate = self._others.per_minute
        if rate:
            text = (
                f"{wanted.height} tickets to read, at {rate:g} a minute: about {_duration(60 * wanted.height / rate)}"
            )
        else:
            text = f"{wanted.height} tickets to read"
        self._step(text, 0.0)
        with ThreadPoolExecutor(self._options.threads, thread_name_prefix="audits") as threads:
            for chunk in _chunks(wanted):
                self._read_chunk(threads, chunk, ids)
                share = self.report.audited / wanted.height
                self._step(f"read {self.report.audited} tickets of {wanted.height}", share)
                if len(self._state.labelled) >= _MOST_PARTS:
                    self._merge()

    def _waiting(self) -> pl.DataFrame:
        """What is to be read, the newest first."""
        known = self._sync.tickets(self._state)
        waiting = known.filter(~pl.col("done") & ~pl.col("deleted"))
        if self._state.events:
            waiting = waiting.join(self._sync.used(self._state), on="id", how="semi")
        return waiting.sort(["updated", "id"], descending=True)

    def _read_chunk(self, threads: ThreadPoolExecutor, chunk: Sequence[Ticket], ids: Mapping[str, str | None]) -> None:
        def read(ticket: Ticket) -> Labelled | None:
            audits = read_audits(self._desk, self._others, ticket.id)
            return None if audits is None else label(ticket, audits, ids=ids, mask=self._options.mask)

        asked = {threads.submit(read, ticket): ticket for ticket in chunk}
        waiting = set(asked)
        try:
            while waiting:
                # Not for ever: a signal that comes as the main thread goes to sleep is noticed when it wakes.
                done, waiting = wait(waiting, timeout=_LOOK_UP_SECONDS, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
        except BaseException:
            # Ctrl-C, or an API that fails: what has come is kept all the same.
            self._others.stop()
            threads.shutdown(wait=True, cancel_futures=True)
            self._keep({f: t for f, t in asked.items() if not f.cancelled() and f.exception() is None})
            raise
        self._keep(asked)

    def _keep(self, done: Mapping[Future[Labelled | None], Ticket]) -> None:
        if not done:
            return
        found = [labelled for future in done if (labelled := future.result()) is not None]
        self.report.audited += len(done)
        self.report.gone += len(done) - len(found)
        self.report.labelled += sum(bool(one.examples) for one in found)
        for kind in self.report.references:
            self.report.references[kind] += sum(getattr(one, kind) for one in found)
        examples = frame_of(example for one in found for example in one.examples)
        read, made = self._sync.put_labelled(done.values(), examples)
        self._save(read=(*self._state.read, read), labelled=(*self._state.labelled, made))
        self.report.waiting -= len(done)

    def _merge(self) -> None:
        """Bring what was read to the lake."""
        if self._state.labelled:
            self._step("writing examples", 1.0)
            examples, tickets = self._sync.labelled(self._state.labelled)
            self._count(examples, tickets)
            self._save(labelled=())

    def _count(self, examples: pl.DataFrame, tickets: Sequence[int]) -> None:
        merge = self._lake.replace(self._tenant, examples, tickets=tickets)
        self.report.added += merge.added
        self.report.changed += merge.changed
        self.report.unchanged += merge.unchanged
        self.report.removed += merge.removed

    def _finish(self) -> None:
        """Take deleted tickets out of the lake, and leave nothing behind where nothing waits."""
        known = self._sync.tickets(self._state)
        deleted = known.filter(pl.col("deleted"))["id"].to_list()
        if deleted and self._lake.has(self._tenant):
            self._count(frame_of(()), deleted)
        if not self._waiting().height and (self._state.waiting or self._state.read or self._state.used):
            # What an event tells of may be exported before the event is.
            young = pl.col("updated") > self._state.events_from - _OVERLAP_SECONDS
            kept = known.filter(~pl.col("done") & ~pl.col("deleted") & young) if self._state.events else known.clear()
            parts = [self._sync.put_waiting(chunk) for chunk in _chunks(kept)]
            self._save(waiting=tuple(parts), read=(), used=())
        self._sync.sweep(self._state)


def _chunks(tickets: pl.DataFrame) -> Iterator[list[Ticket]]:
    names = tuple(Ticket.__dataclass_fields__)
    for part in tickets.select(names).iter_slices(_CHUNK):
        yield [Ticket(**row) for row in part.iter_rows(named=True)]


def _ids_by_title(macros: Sequence[Macro]) -> dict[str, str | None]:
    """Macro ids by title; None where several have it."""
    ids: dict[str, str | None] = {}
    for macro in macros:
        ids[macro.title] = None if macro.title in ids else macro.id
    return ids


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
