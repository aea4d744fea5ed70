"""A fleet cut into shards that other processes take: given out, watched, given out again where one is lost.

The parent's side of `flows.shard_book`. What runs the shards (Prefect's workers, a Ray cluster) is behind the port
`ShardRunner`, which is asked only what it knows for certain: that a shard still waits, or that it has ended. That one
is alive, the shard says itself, in the store, and it is judged by this process's clock alone: its record has changed,
or it has not changed for too long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from flows.outcome import Outcome
from flows.runs import Parts, ShardRecord, Told, parse_shard
from registry.errors import MacrofleetError, PreconditionFailed, StoreUnavailable
from registry.layout import run_shard_key
from registry.store import ObjectStore

# "waiting": nobody has taken it, for all that is known. "starting", "running": somebody has. "ended": nobody will go on
# with it. "unknown": cannot be asked just now.
ShardState = Literal["waiting", "starting", "running", "ended", "unknown"]


_CALLS_OFF = 4


class ShardRunner(Protocol):
    """What gives shards to other processes."""

    def submit(self, run: str, shard: int, attempt: int) -> str:
        """Have a process work on a shard; giving out the same attempt again is giving it out once.

        Returns:
            A handle for `state` and `drop`.
        """
        ...

    def state(self, handle: str) -> ShardState:
        """How it stands, as far as the runner knows."""
        ...

    def drop(self, handle: str, reason: str) -> None:
        """Say that it is given up, so that lists show no run that is none. Whoever still works on it finds out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what.

    Attributes:
        poll_seconds: between two looks.
        lost_seconds: a shard that is begun and silent for so long is lost; a few of its beats.
        start_seconds: the same for one that was taken and not begun: a process has to start.
        idle_seconds: with no shard begun and none taken for so long, nobody is there to take any.
        fruitless: so often a shard may be lost without getting further; then the tenants it was at are at fault.
    """

    poll_seconds: float = 2.0
    lost_seconds: float = 60.0
    start_seconds: float = 300.0
    idle_seconds: float = 3600.0
    fruitless: int = 3


@dataclass(slots=True, kw_only=True)
class _Shard:
    """A shard as the parent sees it."""

    number: int
    tenants: Sequence[str]
    etag: str
    record: ShardRecord
    changed: float
    handle: str = ""
    state: ShardState = "waiting"
    fruitless: int = 0
    before: int = 0
    told: set[str] = field(default_factory=set)

    @property
    def missing(self) -> list[str]:
        """Its tenants without an outcome."""
        found = {outcome["tenant"] for outcome in self.record.outcomes}
        return [tenant for tenant in self.tenants if tenant not in found]


class ShardFan:
    """Has shards worked on elsewhere until each of their tenants has an outcome.

    Args:
        told: of every tenant's outcome, once, as it comes in.
        say: a sentence for the run's log.
        clock, wait: of this process.
    """

    def __init__(
        self,
        store: ObjectStore,
        run: str,
        runner: ShardRunner,
        *,
        patience: Patience,
        told: Told,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._run = run
        self._runner = runner
        self._patience = patience
        self._told = told
        self._say = say
        self._clock = clock
        self._wait = wait
        self._stirred = clock()

    def train(self, parts: Parts) -> list[Mapping[str, Any]]:
        """Give the shards out and wait for them. A run that was begun before goes on where it stands.

        However this ends, nobody works on the shards any more, but where this process is killed.

        Returns:
            An outcome for every tenant.

        Raises:
            MacrofleetError: the store or the runner failed before everything was given out.
        """
        shards = [self._open(number, tenants) for number, tenants in parts.items()]
        try:
            self._watch(shards)
        except BaseException:
            # Whoever ends a run wants its shards ended; each finds out at its next write.
            for shard in shards:
                self._call_off(shard)
            raise
        return [outcome for shard in shards for outcome in shard.record.outcomes]

    def _watch(self, shards: Sequence[_Shard]) -> None:
        for shard in shards:
            self._see(shard)
            if not shard.record.done:
                shard.handle = self._runner.submit(self._run, shard.number, shard.record.attempt)
        self._stirred = self._clock()
        while left := [shard for shard in shards if not shard.record.done]:
            for shard in left:
                self._look(shard)
            if self._clock() - self._stirred > self._patience.idle_seconds:
                for shard in left:
                    self._fail(shard, shard.missing, "no worker took its shard; start one, and run it again")
            if not all(shard.record.done for shard in left):
                self._wait(self._patience.poll_seconds)

    def _open(self, number: int, tenants: Sequence[str]) -> _Shard:
        """A shard's first record, or what an earlier process of this run left of it."""
        key = run_shard_key(self._run, number)
        record = ShardRecord(written_at=datetime.now(UTC))
        try:
            etag = self._store.put(key, record.to_bytes(), if_absent=True)
        except PreconditionFailed:
            found = self._store.get(key)
            etag, record = found.etag, parse_shard(found.data)
        begun = len(record.outcomes)
        return _Shard(number=number, tenants=tenants, etag=etag, record=record, changed=self._clock(), before=begun)

    def _look(self, shard: _Shard) -> None:
        try:
            if self._read(shard):
                return
            if shard.handle:
                self._judge(shard, self._runner.state(shard.handle))
            else:
                self._give_out(shard)
        except StoreUnavailable:
            # A shard cannot write either, so its silence says nothing.
            shard.changed = self._stirred = self._clock()

    def _judge(self, shard: _Shard, state: ShardState) -> None:
        """Whether a shard whose record has not changed is lost."""
        now, patience = self._clock(), self._patience
        if state != "ended":
            # Whether it is begun, its record says; a runner may take a process for begun that still has to start.
            state = "running" if shard.record.owner else "starting" if state == "running" else state
        if state != "waiting":
            self._stirred = now
        if state != shard.state:
            shard.state, shard.changed = state, now
        silent = now - shard.changed
        if state == "ended":
            # It may have written its last between the two looks.
            if not self._read(shard):
                self._take_back(shard, "its run ended before its tenants did")
        elif state == "starting" and silent > patience.start_seconds:
            self._take_back(shard, f"it was taken, and has not begun in {silent:.0f} s")
        elif state == "running" and silent > patience.lost_seconds:
            self._take_back(shard, f"it was silent for {silent:.0f} s")

    def _take_back(self, shard: _Shard, why: str) -> None:
        """Take a shard from whoever had it, and give it out again; what it did not get past may be at fault."""
        got_on = len(shard.record.outcomes) > shard.before
        fruitless = 0 if got_on else shard.fruitless + 1
        failed: list[str] = []
        reason = f"its process was lost {fruitless} times: {why}"
        if fruitless >= self._patience.fruitless:
            missing = set(shard.missing)
            failed = [tenant for tenant in shard.record.working if tenant in missing] or shard.missing
            fruitless = 0
        if not self._replace(shard, failed, reason):
            return
        self._runner.drop(shard.handle, why)
        shard.handle, shard.state, shard.fruitless, shard.before = "", "waiting", fruitless, len(shard.record.outcomes)
        if not shard.record.done:
            self._say(
                f"shard {shard.number}: {why}; its {len(shard.missing)} tenants that are left are given out again"
            )
            self._give_out(shard)

    def _give_out(self, shard: _Shard) -> None:
        shard.changed = self._clock()
        try:
            shard.handle = self._runner.submit(self._run, shard.number, shard.record.attempt)
        except MacrofleetError as problem:
            self._say(f"shard {shard.number} is not given out yet: {problem}")

    def _fail(self, shard: _Shard, tenants: Sequence[str], reason: str) -> None:
        if self._replace(shard, tenants, reason):
            self._runner.drop(shard.handle, reason)

    def _call_off(self, shard: _Shard) -> None:
        with suppress(MacrofleetError):
            for _ in range(_CALLS_OFF):  # it may write at the same time
                if shard.record.done or self._replace(shard, (), ""):
                    break
            if shard.handle:
                self._runner.drop(shard.handle, "its run was ended")

    def _replace(self, shard: _Shard, failed: Sequence[str], reason: str) -> bool:
        """Write the record of a next attempt, with these tenants failed; not where the shard has written meanwhile."""
        given_up = tuple(Outcome(tenant=tenant, state="failed", reason=reason).as_dict() for tenant in failed)
        record = ShardRecord(
            attempt=shard.record.attempt + 1,
            written_at=datetime.now(UTC),
            left_behind=tuple(sorted({*shard.record.left_behind, *shard.record.working})),
            outcomes=(*shard.record.outcomes, *given_up),
            done=bool(failed) and len(failed) == len(shard.missing),
        )
        try:
            etag = self._store.put(run_shard_key(self._run, shard.number), record.to_bytes(), if_match=shard.etag)
        except PreconditionFailed:
            self._read(shard)  # it may hold this record: one's own success, found again after its answer was lost
            return shard.record == record
        shard.etag, shard.record = etag, record
        self._see(shard)
        return True

    def _read(self, shard: _Shard) -> bool:
        """Read a shard's record if it has changed. Raises StoreUnavailable."""
        found = self._store.get_if_changed(run_shard_key(self._run, shard.number), shard.etag)
        if found is None:
            return False
        shard.etag, shard.record = found.etag, parse_shard(found.data)
        shard.changed = self._stirred = self._clock()
        self._see(shard)
        return True

    def _see(self, shard: _Shard) -> None:
        for outcome in shard.record.outcomes:
            if outcome["tenant"] not in shard.told:
                shard.told.add(outcome["tenant"])
                self._told(outcome)
