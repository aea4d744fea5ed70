"""What a run leaves in the store while it goes on and when it is over: `runs/<run>/…`. No Prefect in here.

A run's record says what became of it; its plan, what it was asked for; a record a shard, what became of its tenants, and
that somebody is still at work on them. `macrofleet flows status` reads these, and a parent gets its shards' outcomes from
them, so that neither depends on a database of Prefect's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import ConfigDict, Field

from registry.documents import Document
from registry.errors import InvalidInput, ObjectNotFound, PreconditionFailed, PublishConflict
from registry.fleet.state import in_threads
from registry.layout import RUNS_PREFIX, fleet_shard, run_key, run_tracking_key
from registry.names import mentions
from registry.store import ObjectStore

MAX_SHARDS = 256
# So many tenants in a shard at most: its record is written again for every few of them.
SHARD_TENANTS = 500
KEPT_RUNS = 100
# No run lasts so long: one that goes on keeps its record, whatever has come since.
KEPT_FOR = timedelta(days=7)
_TIME = "%Y%m%dT%H%M%S"
_RECORD, _PLAN = "run.json", "plan.json"
_BYTES = 64 * 1024 * 1024
# What a rerun has to do again; everything else is as it shall be, or is for a person to decide.
UNDONE = ("failed", "busy")
_LEFT = 100
_FORGET_ATTEMPTS = 8
# Told of a tenant's outcome, as `flows.outcome.Outcome.as_dict` gives it.
Told = Callable[[Mapping[str, Any]], None]
# Shards that have tenants, by number.
Parts = Mapping[int, Sequence[str]]


class _RunDocument(Document):
    # Written and read by processes of two releases while one replaces the other: what is not known is passed over.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class RunPlan(_RunDocument):
    """What a run was asked for; never changes.

    Attributes:
        shards: how many parts its tenants are cut into, by `shard_of`.
        options: what every tenant is trained with.
    """

    tenants: tuple[str, ...]
    shards: int
    options: dict[str, Any]

    def cut(self) -> Parts:
        """The tenants of each shard that has any, in the plan's order."""
        parts: dict[int, list[str]] = {}
        for tenant in self.tenants:
            parts.setdefault(shard_of(tenant, self.shards), []).append(tenant)
        return {shard: tuple(parts[shard]) for shard in sorted(parts)}


class ShardRecord(_RunDocument):
    """What became of a shard's tenants so far. Whoever writes it last is who works on the shard.

    Attributes:
        attempt: counts how often the shard was given out.
        owner: a random word of the process that works on it; empty until one does.
        beat: counts the writes of that process.
        written_at: by its clock; for people to read. Nothing is decided by it.
        working: tenants begun and not finished.
        left_behind: those that attempts before this one had begun.
        outcomes: as `flows.outcome.Outcome.as_dict` gives them.
    """

    attempt: int = 1
    owner: str = ""
    beat: int = 0
    written_at: datetime
    working: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    outcomes: tuple[dict[str, Any], ...] = ()
    done: bool = False


class RunRecord(_RunDocument):
    """A run as its own process tells it.

    Attributes:
        flow_run_id: Prefect's.
        state: "running" also stands where a process ended without a word; its shards' records say when it last wrote.
        reason: why it failed.
        tenants: how many it is about.
        counts: how many tenants ended in which state.
        left: what a rerun has to do: tenant, state, reason; the first hundred.
    """

    run: str
    flow: str
    flow_run_id: str
    state: Literal["running", "completed", "failed"]
    started_at: datetime
    ended_at: datetime | None = None
    reason: str = ""
    tenants: int = 0
    counts: dict[str, int] = Field(default_factory=dict)
    left: tuple[dict[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    generation: int | None = None


def run_name(planned: datetime, flow_run_id: str) -> str:
    """The name of a run in the store: in the order of time, and the same when Prefect starts the same flow run again.

    Args:
        planned: when the flow run was to start, in UTC.
    """
    return f"{planned:{_TIME}}-{flow_run_id.replace('-', '')[:12]}"


def shard_of(tenant: str, shards: int) -> int:
    """Which of `shards` parts a tenant belongs to, by the hash that the fleet's own shards go by."""
    return int(fleet_shard(tenant), 16) * shards // MAX_SHARDS


def shards_for(tenants: int, wanted: int) -> int:
    """How many shards a run is cut into: what is wanted, and more where they would grow too large."""
    return min(MAX_SHARDS, max(wanted, -(-tenants // SHARD_TENANTS), 1))


def counted(outcomes: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many tenants are in which state."""
    return dict(Counter(str(outcome["state"]) for outcome in outcomes).most_common())


def counts_text(counts: Mapping[str, int]) -> str:
    """Counts in words, the most frequent first: `480 unchanged, 17 trained, 3 failed`."""
    return ", ".join(f"{number} {state}" for state, number in Counter(counts).most_common())


def left_over(outcomes: Iterable[Mapping[str, Any]]) -> tuple[dict[str, str], ...]:
    """What a rerun has to do: the first hundred tenants, with their states and reasons."""
    rows = [
        {name: str(one[name]) for name in ("tenant", "state", "reason")} for one in outcomes if one["state"] in UNDONE
    ]
    return tuple(rows[:_LEFT])


def keep_plan(store: ObjectStore, run: str, plan: RunPlan) -> RunPlan:
    """Write a run's plan; one that is there already is what holds, since its shards may have been given out."""
    try:
        store.put(run_key(run, _PLAN), plan.to_bytes(), if_absent=True)
    except PreconditionFailed:
        return read_plan(store, run)
    return plan


def read_plan(store: ObjectStore, run: str) -> RunPlan:
    """A run's plan.

    Raises:
        InvalidInput: there is none, or it cannot be read.
    """
    try:
        data = store.get(run_key(run, _PLAN), max_bytes=_BYTES).data
    except ObjectNotFound:
        raise InvalidInput(
            f"{store.url} has no plan of the run {run}",
            remedy="Runs that share work need one store: check MACROFLEET_STORE_URL on every machine.",
        ) from None
    return RunPlan.parse(data, what=f"the plan of the run {run}", error=InvalidInput)


def write_record(store: ObjectStore, record: RunRecord) -> None:
    """Write what a run tells of itself."""
    store.put(run_key(record.run, _RECORD), record.to_bytes())


def read_record(store: ObjectStore, run: str) -> RunRecord:
    """What a run told of itself. Raises InvalidInput where there is no such run."""
    try:
        data = store.get(run_key(run, _RECORD), max_bytes=_BYTES).data
    except ObjectNotFound:
        raise InvalidInput(
            f"{store.url} has no run {run}", remedy="`macrofleet flows status` lists the runs there are."
        ) from None
    return RunRecord.parse(data, what=f"the record of the run {run}", error=InvalidInput)


def parse_shard(data: bytes) -> ShardRecord:
    """A shard's record. Raises InvalidInput."""
    return ShardRecord.parse(data, what="a shard's record", error=InvalidInput)


def read_shards(store: ObjectStore, run: str) -> list[ShardRecord]:
    """What became of each shard of a run so far."""
    keys = [info.key for info in store.list(run_key(run, "shards/"))]
    return [parse_shard(found.data) for found in in_threads(lambda key: store.get(key, max_bytes=_BYTES), keys)]


def list_runs(store: ObjectStore, *, last: int | None = None) -> list[str]:
    """Names of runs, the latest first."""
    names = sorted(store.names(RUNS_PREFIX), reverse=True)
    return names if last is None else names[:last]


def prune_runs(store: ObjectStore, *, keep: int = KEPT_RUNS, now: datetime | None = None) -> int:
    """Remove runs older than a week, record and all, but for the latest. Returns how many are gone."""
    oldest = f"{(now or datetime.now(UTC)) - KEPT_FOR:{_TIME}}"
    gone = [run for run in list_runs(store)[keep:] if run < oldest]
    keys = in_threads(lambda run: [info.key for info in store.list(f"{RUNS_PREFIX}{run}/")], gone)
    in_threads(store.delete, [key for of_run in keys for key in of_run])
    return sum(1 for of_run in keys if of_run)


def forget_tenant(store: ObjectStore, tenant: str) -> list[str]:
    """Take a tenant out of what runs left behind. A run that goes on meanwhile may write its name again.

    Returns:
        The keys of what was changed.

    Raises:
        PublishConflict: a run kept writing.
    """
    keys = [info.key for info in store.list(RUNS_PREFIX)]
    changed = in_threads(lambda key: _forget(store, key, tenant), keys)
    return [key for key, did in zip(keys, changed, strict=True) if did]


def runs_naming(store: ObjectStore, tenant: str) -> list[str]:
    """The keys of what runs left behind that `forget_tenant` would change."""

    def names(key: str) -> bool:
        try:
            data = store.get(key, max_bytes=_BYTES).data
        except ObjectNotFound:
            return False
        return _without(key, data, tenant) != data

    keys = [info.key for info in store.list(RUNS_PREFIX)]
    found = in_threads(names, keys)
    return [key for key, does in zip(keys, found, strict=True) if does]


def _forget(store: ObjectStore, key: str, tenant: str) -> bool:
    for _ in range(_FORGET_ATTEMPTS):
        try:
            found = store.get(key, max_bytes=_BYTES)
            data = _without(key, found.data, tenant)
            if data == found.data:
                return False
            if data:
                store.put(key, data, if_match=found.etag)
            else:
                store.delete(key)
            return True
        except ObjectNotFound:
            return False
        except PreconditionFailed:
            continue
    raise PublishConflict(f"{key} keeps changing", remedy="Run it again when the run is over.")


def _without(key: str, data: bytes, tenant: str) -> bytes:
    """A document without a tenant; the same bytes where it does not name it, none where it cannot be read, and may."""
    if not mentions(tenant, data.decode(errors="replace")):
        return data
    document: _RunDocument
    try:
        if key.endswith(f"/{_PLAN}"):
            plan = RunPlan.parse(data, what=key, error=InvalidInput)
            document = plan.model_copy(update={"tenants": _but(plan.tenants, tenant)})
            same = document == plan
        elif key.endswith(f"/{_RECORD}"):
            record = RunRecord.parse(data, what=key, error=InvalidInput)
            # One word of many a sentence may be a tenant's name: then the sentence goes with the name.
            warnings = tuple(one for one in record.warnings if not mentions(tenant, one))
            reason = "" if mentions(tenant, record.reason) else record.reason
            update = {"left": _others(record.left, tenant), "warnings": warnings, "reason": reason}
            document = record.model_copy(update=update)
            same = document == record
        elif key == run_tracking_key(key.split("/")[1]):
            return data  # names nobody
        else:
            shard = parse_shard(data)
            names = {field: _but(getattr(shard, field), tenant) for field in ("working", "left_behind")}
            document = shard.model_copy(update={**names, "outcomes": _others(shard.outcomes, tenant)})
            same = document == shard
    except InvalidInput:
        return b""
    return data if same else document.to_bytes()


def _but(names: Sequence[str], tenant: str) -> tuple[str, ...]:
    return tuple(name for name in names if name != tenant)


def _others(rows: Sequence[Mapping[str, Any]], tenant: str) -> tuple[dict[str, Any], ...]:
    return tuple(dict(row) for row in rows if row.get("tenant") != tenant)
