"""A shard's record, from the side of who works on it: outcomes as they come, and a beat that says it is alive.

A worker that is killed tells nobody, and its flow runs stay "Running" in Prefect, whose own heartbeats are events for
automations, every thirty seconds at best. So a shard says by itself that it lives, in the place where its outcomes go
anyway. Every write is conditional on the one before: whoever was given the shard later wins, and the other one finds out
at its next write and stops.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from flows.runs import ShardRecord, parse_shard
from registry.errors import MacrofleetError, ObjectNotFound, PreconditionFailed, ShardTaken, StoreUnavailable
from registry.layout import run_shard_key
from registry.retrying import patiently
from registry.store import ObjectStore

BEAT_SECONDS = 5.0
_PATIENCE_SECONDS = 120.0
_ATTEMPTS = 20
_CLASHES = 4


class ShardBook:
    """One shard's record while it is worked on. A context manager; entering claims the shard, leaving closes it.

    What has come in is written at once, by a thread of its own, several outcomes together where writing is slower than
    working; and every few seconds in any case. A store that fails for a while costs nothing but the parent's patience.

    Args:
        attempt: which time of giving it out this process was started for; None takes the shard over, whoever has it.
        beat_seconds: the longest time between two writes.
        now: a clock for people to read.

    Raises:
        ShardTaken: on entering, and whenever an outcome is handed in: somebody else has the shard.

    Example:
        >>> with ShardBook(store, run, 3, attempt=1) as book:
        ...     book.begin("acme")
        ...     book.end({"tenant": "acme", "state": "trained"})
    """

    def __init__(
        self,
        store: ObjectStore,
        run: str,
        shard: int,
        *,
        attempt: int | None = None,
        beat_seconds: float = BEAT_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._key = run_shard_key(run, shard)
        self._attempt = attempt
        self._beat_seconds = beat_seconds
        self._now = now
        self._owner = secrets.token_hex(8)
        self._etag = ""
        self._number = 0
        self._begun: dict[str, None] = {}
        self._left_behind: frozenset[str] = frozenset()
        self._outcomes: dict[str, dict[str, Any]] = {}
        self._state = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._taken = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="shard beat", daemon=True)

    @property
    def outcomes(self) -> Mapping[str, Mapping[str, Any]]:
        """What became of the shard's tenants, by this process and by those before it."""
        return self._outcomes

    @property
    def left_behind(self) -> frozenset[str]:
        """Tenants that a process before this one had begun: it may have died of one, or be alive and at work on it."""
        return self._left_behind

    def __enter__(self) -> Self:
        self.claim()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._wake.set()
        self._thread.join()
        if kind is not None:
            # Whoever goes on starts from here.
            self._try_beat()
            return
        patiently(
            lambda: self.beat(done=True), on=StoreUnavailable, attempts=_ATTEMPTS, longest_seconds=_PATIENCE_SECONDS
        )
        self._check()

    def claim(self) -> None:
        """Write down that this process has the shard; what entering begins with. Raises ShardTaken."""
        record, etag = self._found()
        if self._attempt is None:
            self._attempt = record.attempt + 1 if record else 1
        elif record is None or record.attempt != self._attempt or record.owner or record.done:
            raise _taken(self._key)
        with self._state:
            self._outcomes = {one["tenant"]: dict(one) for one in record.outcomes} if record else {}
            self._left_behind = frozenset(record.left_behind if record else ()) - self._outcomes.keys()
        data = self._record(False).to_bytes()
        try:
            self._etag = self._store.put(self._key, data, if_match=etag, if_absent=etag is None)
        except PreconditionFailed:
            if not self._settle(data):
                raise _taken(self._key) from None

    def begin(self, tenant: str) -> None:
        """A tenant's turn. Raises ShardTaken."""
        self._check()
        with self._state:
            self._begun[tenant] = None
        self._wake.set()

    def end(self, outcome: Mapping[str, Any]) -> None:
        """What became of a tenant. Raises ShardTaken."""
        with self._state:
            self._begun.pop(outcome["tenant"], None)
            self._outcomes[outcome["tenant"]] = dict(outcome)
        self._wake.set()
        self._check()

    def beat(self, *, done: bool = False) -> None:
        """Write the record as it is now; what the thread does.

        Raises:
            StoreUnavailable: it is not written.
        """
        with self._writing:
            # More than once: an earlier write that was given up for lost may come late, and change the entity tag.
            for _ in range(_CLASHES):
                if self._taken.is_set():
                    return
                data = self._record(done).to_bytes()
                try:
                    self._etag = self._store.put(self._key, data, if_match=self._etag)
                    return
                except PreconditionFailed:
                    if self._settle(data):
                        return
            raise StoreUnavailable(f"{self._key} keeps changing under its only writer", remedy="Check the store.")

    def _found(self) -> tuple[ShardRecord | None, str | None]:
        try:
            found = self._store.get(self._key)
        except ObjectNotFound:
            return None, None
        return parse_shard(found.data), found.etag

    def _settle(self, data: bytes) -> bool:
        """After a refused write: whether it is there all the same. Notes where somebody else has the shard."""
        try:
            found = self._store.get(self._key)
        except ObjectNotFound:
            self._taken.set()  # the run is over and forgotten
            return False
        if parse_shard(found.data).owner != self._owner:
            self._taken.set()
            return False
        self._etag = found.etag
        return found.data == data

    def _record(self, done: bool) -> ShardRecord:
        self._number += 1
        with self._state:
            return ShardRecord(
                attempt=self._attempt or 1,
                owner=self._owner,
                beat=self._number,
                written_at=self._now(),
                working=tuple(self._begun),
                left_behind=tuple(sorted(self._left_behind)),
                outcomes=tuple(self._outcomes.values()),
                done=done,
            )

    def _check(self) -> None:
        if self._taken.is_set():
            raise _taken(self._key)

    def _beat_on(self) -> None:
        while not self._closing.is_set() and not self._taken.is_set():
            self._wake.wait(self._beat_seconds)
            self._wake.clear()
            if not self._closing.is_set():
                self._try_beat()

    def _try_beat(self) -> None:
        try:
            self.beat()
        except MacrofleetError:
            # The next one writes what this one would have; the parent waits longer than a few of them.
            return


def _taken(key: str) -> ShardTaken:
    return ShardTaken(f"{key} was given to another process", remedy="Nothing is to be done: that one goes on with it.")
