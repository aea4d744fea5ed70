"""All tenants' rows in memory: read once, then only what changed, by a thread of its own.

A page of a fleet of thousands must be searched and sorted without asking the store for each of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flows.console.rows import TenantRow
from registry.errors import MacrofleetError
from registry.fleet import Fleet, FleetEntry, FleetReader, in_threads
from registry.layout import LAKE_PREFIX
from registry.names import is_tenant
from registry.store import ObjectStore
from training.record import TrainingRecord, read_record

FLEET_SECONDS = 5.0
LAKE_SECONDS = 60.0
_RECORD, _EXAMPLES = "/training.json", "/examples.parquet"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRows:
    """What is known now.

    Attributes:
        rows: by tenant's name.
        generation: the fleet's; None before it was read.
        records_read: whether the records of trainings were read once; until then rows do not have them.
        problem: why what is shown may be old; empty where it is not.
    """

    rows: tuple[TenantRow, ...] = ()
    generation: int | None = None
    records_read: bool = False
    problem: str = ""


class FleetIndex:
    """Keeps `FleetRows`. `start` begins reading, `close` ends it; `rows` may be asked from any thread."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._reader = FleetReader(store)
        self._working = threading.Lock()
        self._fleet: Fleet | None = None
        self._records: dict[str, tuple[str, TrainingRecord | None]] = {}
        self._with_tickets: frozenset[str] = frozenset()
        self._records_read = False
        self._now = FleetRows()
        self._problems: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the fleet now, and the rest in the background."""
        self.refresh_fleet()
        self._thread = threading.Thread(target=self._run, name="console-index", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; what it was reading is waited for."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    @property
    def rows(self) -> FleetRows:
        """What is known now; never waits for the store."""
        return self._now

    def refresh_fleet(self) -> None:
        """Read what the fleet says, as far as it changed."""
        with self._working:
            before = self._fleet
            try:
                self._fleet = self._reader.refresh()
                self._problems.pop("fleet", None)
            except MacrofleetError as problem:
                self._fail("fleet", problem)
            else:
                if self._fleet is before and not self._now.problem:
                    return
            self._rebuild()

    def refresh_lake(self) -> None:
        """Read which tenants have tickets, and the records of trainings that changed: one listing, and what it says is new."""
        with self._working:
            try:
                self._read_lake()
                self._problems.pop("lake", None)
            except MacrofleetError as problem:
                self._fail("lake", problem)
            self._rebuild()

    def _fail(self, part: str, problem: MacrofleetError) -> None:
        if part not in self._problems:
            _LOG.warning("the console cannot read the %s: %s", part, problem)
        self._problems[part] = problem.what

    def _read_lake(self) -> None:
        etags: dict[str, str] = {}
        with_tickets = set()
        for info in self._store.list(LAKE_PREFIX):
            tenant, slash, name = info.key.removeprefix(LAKE_PREFIX).partition("/")
            if f"{slash}{name}" == _EXAMPLES:
                with_tickets.add(tenant)
            elif f"{slash}{name}" == _RECORD and is_tenant(tenant):
                etags[tenant] = info.etag
        changed = [tenant for tenant, etag in etags.items() if self._records.get(tenant, ("", None))[0] != etag]
        found = in_threads(lambda tenant: read_record(self._store, tenant).record, changed)
        kept = {tenant: one for tenant, one in self._records.items() if tenant in etags}
        self._records = kept | {tenant: (etags[tenant], record) for tenant, record in zip(changed, found, strict=True)}
        self._with_tickets = frozenset(with_tickets)
        self._records_read = True

    def _rebuild(self) -> None:
        entries: Mapping[str, FleetEntry] = self._fleet.entries if self._fleet else {}
        names = sorted({*entries, *self._with_tickets, *self._records})
        rows = tuple(make_row(name, entries.get(name), self._records.get(name, ("", None))[1]) for name in names)
        self._now = FleetRows(
            rows=rows,
            generation=self._fleet.generation if self._fleet else None,
            records_read=self._records_read,
            problem="; ".join(self._problems.values()),
        )

    def _run(self) -> None:
        next_lake = 0.0
        while not self._stop.is_set():
            try:
                if time.monotonic() >= next_lake:
                    self.refresh_lake()
                    next_lake = time.monotonic() + LAKE_SECONDS
                self._stop.wait(FLEET_SECONDS)
                if not self._stop.is_set():
                    self.refresh_fleet()
            except Exception:  # noqa: BLE001  # the thread must outlive what nobody thought of
                _LOG.exception("the console's index")
                self._stop.wait(FLEET_SECONDS)


def make_row(tenant: str, entry: FleetEntry | None, record: TrainingRecord | None) -> TenantRow:
    """What fleet and record say of a tenant."""
    found = entry or FleetEntry()
    row = TenantRow(
        tenant=tenant,
        version=found.version,
        reason=found.reason or "",
        pinned=found.keep_loaded,
        held=found.hold_version,
        stage=found.rollout.stage if found.rollout else "",
        candidate=found.candidate,
        shadow=found.shadow,
    )
    if record is None:
        return row
    return replace(
        row,
        trained=record.state,
        trained_at=record.finished_at,
        trained_reason=record.reason,
        top1=record.top1,
        top3=record.top3,
        examples=record.examples or None,
        macros=record.macros or None,
    )
