"""All tenants' rows in memory: read once, then only what changed, by a thread of its own.

A page of a fleet of thousands must be searched and sorted without asking the store for each of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from flows.console.rows import TenantRow
from registry.errors import InvalidInput, MacrofleetError, ObjectNotFound
from registry.fleet.state import Fleet, FleetEntry, FleetReader, in_threads
from registry.layout import training_record_key
from registry.store import ObjectStore
from training.lake import Lake
from training.record import TrainingRecord

FLEET_SECONDS = 5.0
RECORDS_SECONDS = 300.0
# A listing of all that the lake has, feedback too: for tenants that have tickets and that no run has looked at yet.
TICKETS_SECONDS = 3600.0
# What did not go is tried again sooner.
_AGAIN_SECONDS = 30.0
_MOST_BYTES = 256 * 1024
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
        """Read what the fleet says, as far as it changed, and how the trainings of whoever changed in it went."""
        with self._working:
            before = self._fleet
            try:
                self._fleet = self._reader.refresh()
                if before is not None and self._fleet is not before and self._records_read:
                    old, new = before.entries, self._fleet.entries
                    self._read_records([name for name, entry in new.items() if old.get(name) != entry])
                self._problems.pop("fleet", None)
            except MacrofleetError as problem:
                self._fail("fleet", problem)
            else:
                if self._fleet is before and not self._now.problem:
                    return
            self._rebuild()

    def refresh_records(self) -> bool:
        """Read the records of trainings that changed: a conditional request for each tenant. Returns whether that went."""
        with self._working:
            try:
                self._read_records(sorted(self._names()))
                self._records_read = True
                self._problems.pop("records", None)
            except MacrofleetError as problem:
                self._fail("records", problem)
            self._rebuild()
            return "records" not in self._problems

    def refresh_tickets(self) -> bool:
        """Read which tenants have tickets. Returns whether that went."""
        with self._working:
            try:
                self._with_tickets = frozenset(Lake(self._store).tenants(known=self._with_tickets))
                self._problems.pop("lake", None)
            except MacrofleetError as problem:
                self._fail("lake", problem)
            self._rebuild()
            return "lake" not in self._problems

    def _names(self) -> set[str]:
        return {*(self._fleet.entries if self._fleet else ()), *self._with_tickets, *self._records}

    def _fail(self, part: str, problem: MacrofleetError) -> None:
        if part not in self._problems:
            _LOG.warning("the console cannot read the %s: %s", part, problem)
        self._problems[part] = problem.what

    def _read_records(self, names: Sequence[str]) -> None:
        found = in_threads(self._record, names)
        read = set(names)
        kept = {name: one for name, one in self._records.items() if name not in read}
        self._records = kept | {name: one for name, one in zip(names, found, strict=True) if one is not None}

    def _record(self, tenant: str) -> tuple[str, TrainingRecord | None] | None:
        """A record and its entity tag; None where there is none."""
        key, known = training_record_key(tenant), self._records.get(tenant)
        try:
            found = self._store.get_if_changed(key, known[0] if known else None, max_bytes=_MOST_BYTES)
        except ObjectNotFound:
            return None
        if found is None:
            return known
        record = None
        with suppress(InvalidInput):
            record = TrainingRecord.parse(found.data, what=key, error=InvalidInput)
        return found.etag, record

    def _rebuild(self) -> None:
        entries: Mapping[str, FleetEntry] = self._fleet.entries if self._fleet else {}
        names = sorted(self._names())
        rows = tuple(make_row(name, entries.get(name), self._records.get(name, ("", None))[1]) for name in names)
        self._now = FleetRows(
            rows=rows,
            generation=self._fleet.generation if self._fleet else None,
            records_read=self._records_read,
            problem="; ".join(self._problems.values()),
        )

    def _run(self) -> None:
        next_records = next_tickets = 0.0
        while not self._stop.is_set():
            try:
                if time.monotonic() >= next_records:
                    went = self.refresh_records()
                    next_records = time.monotonic() + (RECORDS_SECONDS if went else _AGAIN_SECONDS)
                if time.monotonic() >= next_tickets:
                    went = self.refresh_tickets()
                    next_tickets = time.monotonic() + (TICKETS_SECONDS if went else _AGAIN_SECONDS)
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
