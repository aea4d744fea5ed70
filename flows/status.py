"""What the last runs came to, from what they left in the store; no Prefect in here.

The store is what every machine can see, and it is written by who did the work. What only Prefect knows (a run that never
began, one that it has given up) is added by `flows.prefect_runs` where its server is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from flows.runs import RunRecord, ShardRecord, counted, list_runs, read_record, read_shards
from registry.errors import InvalidInput
from registry.fleet.state import in_threads
from registry.store import ObjectStore

# A few beats of a shard; said of a run that goes on, and judged by nobody.
SILENT_SECONDS = 60.0
# Of deployments whose runs are shown; a shard is a part of one.
TAG = "macrofleet"
_OVER = {"completed", "failed", "crashed", "cancelled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """A run as people are told of it.

    Attributes:
        run: its name in the store; empty for one that only Prefect knows.
        state: "running", "completed", "failed", "silent" (it says that it runs, and has not written for a minute, by the
            clock of who asks), or Prefect's word for it.
        done: tenants that have an outcome.
        working: tenants begun and not finished.
        left: what a rerun has to do.
    """

    run: str
    flow: str
    flow_run_id: str
    state: str
    started_at: datetime | None
    seconds: float | None = None
    tenants: int = 0
    done: int = 0
    counts: Mapping[str, int]
    working: Sequence[str] = ()
    left: Sequence[Mapping[str, str]] = ()
    warnings: Sequence[str] = ()
    generation: int | None = None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "started_at": self.started_at.isoformat() if self.started_at else None}


def recent_runs(store: ObjectStore, *, last: int, now: datetime | None = None) -> list[RunStatus]:
    """The latest runs that left a record, the latest first."""
    at = now or datetime.now(UTC)
    found = in_threads(lambda run: _status(store, run, at), list_runs(store, last=last))
    return [status for status in found if status is not None]


def describe_run(
    store: ObjectStore, run: str, *, now: datetime | None = None
) -> tuple[RunStatus, list[dict[str, Any]]]:
    """A run, and the outcomes of its tenants so far, in the order of their names. Raises InvalidInput: there is none."""
    record, shards = read_record(store, run), read_shards(store, run)
    outcomes = [outcome for shard in shards for outcome in shard.outcomes]
    status = _of(record, shards, now or datetime.now(UTC))
    return status, sorted(outcomes, key=lambda outcome: str(outcome["tenant"]))


def with_prefect(stored: Sequence[RunStatus], known: Sequence[RunStatus]) -> list[RunStatus]:
    """Add what only Prefect knows: runs without a record, and that one which says it runs does not any more."""
    theirs = {status.flow_run_id: status for status in known}
    merged = []
    for status in stored:
        other = theirs.pop(status.flow_run_id, None)
        given_up = other is not None and other.state in _OVER and status.state not in _OVER
        merged.append(replace(status, state=other.state) if other and given_up else status)
    return sorted([*merged, *theirs.values()], key=_started, reverse=True)


def _started(status: RunStatus) -> datetime:
    return status.started_at or datetime.max.replace(tzinfo=UTC)


def _status(store: ObjectStore, run: str, now: datetime) -> RunStatus | None:
    try:
        record = read_record(store, run)
    except InvalidInput:
        return None  # it has only begun, or another release wrote it
    return _of(record, read_shards(store, run) if record.state == "running" else [], now)


def _of(record: RunRecord, shards: Sequence[ShardRecord], now: datetime) -> RunStatus:
    ended = record.ended_at or now
    status = RunStatus(
        run=record.run,
        flow=record.flow,
        flow_run_id=record.flow_run_id,
        state=record.state,
        started_at=record.started_at,
        seconds=round((ended - record.started_at).total_seconds(), 1),
        tenants=record.tenants,
        done=sum(record.counts.values()),
        counts=record.counts,
        left=record.left,
        warnings=record.warnings,
        generation=record.generation,
        reason=record.reason,
    )
    if record.state != "running":
        return status
    outcomes = [outcome for shard in shards for outcome in shard.outcomes]
    last = max([record.started_at, *(shard.written_at for shard in shards)])
    return replace(
        status,
        state="silent" if (now - last).total_seconds() > SILENT_SECONDS else "running",
        done=len(outcomes),
        counts=counted(outcomes),
        working=[tenant for shard in shards for tenant in shard.working],
    )
