"""The whole road on one machine: tickets, S3, training, MLflow, a server, suggestions over HTTP."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from flows.local_server import LocalServer, store_environment
from registry.errors import InvalidInput, PublishConflict
from registry.seaweedfs import LocalS3
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store
from registry.text.ticket import asked_text
from training.datasets import read_tenants
from training.examples import Example, split_examples
from training.importers import Imported
from training.synthetic import DEFAULT_END, make_fleet
from training.tenants import import_examples

_SUGGESTIONS = 5
_MOST_CHARACTERS = 4000
Step = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRequest:
    """What to demonstrate.

    Attributes:
        data: CSV files; none for made-up tenants.
        where: conditions on their columns.
        out_of_scope: labels that are no macros.
        tenants: how many to make up.
        seed: of what is made up.
        store: a folder instead of an S3 server.
        folder: where everything goes; None makes one.
        keep: leave the servers running.
    """

    data: tuple[Path, ...]
    where: Mapping[str, str]
    out_of_scope: frozenset[str]
    tenants: int
    seed: int
    store: Path | None
    folder: Path | None
    keep: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """What came of it.

    Attributes:
        url: the server's address where it was left running.
        pids: the processes that were left running.
        keys: API keys by tenant, and an operator's as "operator", for who wants to ask the server that was left running.
    """

    tenants: list[dict[str, Any]]
    suggestions: list[dict[str, Any]]
    failed: list[dict[str, str]]
    seconds: float
    folder: Path
    url: str | None
    pids: tuple[int, ...]
    keys: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The report as `macrofleet demo --json` prints it."""
        left = {"url": self.url, "pids": list(self.pids), "keys": dict(self.keys)} if self.url else {}
        return {
            "tenants": self.tenants,
            "suggestions": self.suggestions,
            "failed": self.failed,
            "seconds": round(self.seconds, 1),
            "folder": str(self.folder),
            **left,
        }


def run_demo(request: DemoRequest, step: Step) -> DemoReport:
    """Import, train, register, publish, serve and ask.

    Raises:
        MacrofleetError: bad input, before anything is started; or a part that does not come up, naming its log.
    """
    began = time.perf_counter()
    step("reading tickets", 0.0)
    tenants = _tenants(request)
    folder = _folder(request.folder)
    try:
        return _run(request, tenants, folder, step, began)
    except BaseException:
        print(f"macrofleet: what was made so far is in {folder}", file=sys.stderr)  # noqa: T201  # nobody else knows
        raise


def _run(request: DemoRequest, tenants: dict[str, Imported], folder: Path, step: Step, began: float) -> DemoReport:
    with contextlib.ExitStack() as stack:
        pids = []
        if request.store is None:
            step("starting the S3 server", 0.02)
            bucket = stack.enter_context(LocalS3(folder / "s3", detach=request.keep))
            settings = bucket.settings
            pids.append(bucket.pid)
        else:
            settings = StoreSettings(url=str(request.store.absolute()))
        _settle(folder, settings)
        store = open_store(settings)
        step("making API keys", 0.04)
        keys = _make_keys(folder, store, list(tenants))
        for place, (tenant, imported) in enumerate(tenants.items()):
            step(f"importing {tenant}", 0.05 + 0.05 * place / len(tenants))
            import_examples(store, tenant, imported.examples, titles=imported.titles, add_macros=True)

        from flows.command import run_retrain_fleet

        summary = run_retrain_fleet(list(tenants), lambda text, share: step(text, 0.1 + 0.7 * share))
        trained = summary.of("trained")
        url = None
        suggestions: list[dict[str, Any]] = []
        if trained:
            step("starting the server", 0.8)
            server = stack.enter_context(LocalServer(folder, {}, detach=request.keep))
            url = server.url
            pids.insert(0, server.pid)
            step("asking for suggestions", 0.95)
            asked = [(outcome.tenant, tenants[outcome.tenant].examples) for outcome in trained]
            suggestions = _ask(url, asked, keys)
    columns = ("tenant", "examples", "macros", "top1", "top3", "fit_seconds", "model_bytes", "version")
    return DemoReport(
        tenants=[{name: getattr(outcome, name) for name in columns} for outcome in trained],
        suggestions=suggestions,
        failed=[{"tenant": o.tenant, "reason": o.reason} for o in summary.outcomes if o.state != "trained"],
        seconds=time.perf_counter() - began,
        folder=folder,
        url=url if request.keep else None,
        pids=tuple(pids) if request.keep else (),
        keys=keys if request.keep else {},
    )


def _tenants(request: DemoRequest) -> dict[str, Imported]:
    if not request.data:
        now = datetime.now(UTC)
        return {
            made.tenant: Imported(  # as if the last of it were of today: older tickets would make nobody eligible
                examples=[
                    Example(
                        ticket_id=ticket.ticket_id,
                        subject=ticket.subject,
                        body=ticket.body,
                        channel=ticket.channel,
                        locale=ticket.locale,
                        applied_at=ticket.applied_at + (now - DEFAULT_END),
                        macro_id=ticket.macro_id,
                    )
                    for ticket in made.tickets
                ],
                titles={macro.id: macro.title for macro in made.macros},
            )
            for made in make_fleet(request.tenants, seed=request.seed)
        }
    tenants: dict[str, Imported] = {}
    for path in request.data:
        for tenant, imported in read_tenants(path, where=request.where, out_of_scope=request.out_of_scope).items():
            if tenant in tenants:
                raise InvalidInput(f"{path} holds the tenant {tenant!r} again", remedy="Give each file once.")
            tenants[tenant] = imported
    return tenants


def _folder(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="macrofleet-demo-"))
    if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
        raise InvalidInput(f"{wanted} is not an empty folder", remedy="Name a new one with --folder.")
    wanted.mkdir(parents=True, exist_ok=True)
    return wanted.absolute()


def _settle(folder: Path, store: StoreSettings) -> None:
    """Point every part, this process's and its children's, at the demo's own folder and store."""
    os.environ.update(
        {
            **store_environment(store),
            "MACROFLEET_DISK_FOLDER": str(folder / "disk"),
            "MACROFLEET_DATABASE_URL": f"sqlite:///{folder / 'macrofleet.db'}",
            "MACROFLEET_ACCESS": "keys",
            "MACROFLEET_HOLDBACK_SHARE": "0",  # it is there to show suggestions
            "MACROFLEET_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "PREFECT_HOME": str(folder / "prefect"),
            # Libraries that write into the home folder when they are imported.
            "KERAS_HOME": str(folder / "keras"),
            "MPLCONFIGDIR": str(folder / "matplotlib"),
        }
    )


def _make_keys(folder: Path, store: ObjectStore, tenants: list[str]) -> dict[str, str]:
    """A key for each tenant and one for the operator, which the store's servers know."""
    from registry.database import DatabaseSettings, opened_database
    from registry.keys.book import KeyBook
    from registry.keys.publishing import publish_keys

    address = SecretStr(f"sqlite:///{folder / 'macrofleet.db'}")
    with opened_database(DatabaseSettings(url=address)) as database:
        book = KeyBook(database)
        made = {tenant: book.create(tenant, ["suggest", "feedback"], note="demo")[0] for tenant in tenants}
        made["operator"] = book.create(None, ["operator"], note="demo")[0]
        try:
            publish_keys(book, store)
        except PublishConflict:
            raise InvalidInput(
                f"{store.url} has API keys already, which the demo would make invalid",
                remedy="Name a new folder with --store.",
            ) from None
    return made


def _ask(url: str, tenants: list[tuple[str, list[Example]]], keys: Mapping[str, str]) -> list[dict[str, Any]]:
    """Suggestions for the first test ticket of a few tenants, spread over the fleet."""
    import httpx

    chosen = tenants[:: max(1, len(tenants) // _SUGGESTIONS)][:_SUGGESTIONS]
    answers = []
    with httpx.Client(base_url=url, timeout=10) as client:
        for tenant, examples in chosen:
            # Data without test rows are asked about what they were trained on.
            rows = [*split_examples(examples).test, *examples]
            example = next(row for row in rows if row.macro_id is not None)
            body = example.body[:_MOST_CHARACTERS]
            ticket = {
                "id": example.ticket_id,
                "subject": example.subject[:_MOST_CHARACTERS],
                "comments": [{"author": "customer", "public": True, "body": body}],
            }
            asked = {"tenant": tenant, "text": asked_text(example.subject[:_MOST_CHARACTERS], [body])}
            try:
                answer = client.post(
                    f"/v1/tenants/{tenant}/suggestions",
                    json={"ticket": ticket},
                    headers={"Authorization": f"Bearer {keys[tenant]}"},
                ).raise_for_status()
                answers.append({**asked, "macros": answer.json()["macros"]})
            except httpx.HTTPError as problem:
                answers.append({**asked, "macros": [], "error": str(problem)})
    return answers
