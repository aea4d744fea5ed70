"""What the tests of leases share: a store in memory that can fail and be interrupted, and a clock that they move."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from registry.errors import LeaseLost, ObjectNotFound, PreconditionFailed, StoreUnavailable
from registry.layout import lease_key
from registry.leases import Lease, Leases, LeaseState
from registry.store import ObjectInfo, StoredObject
from registry.store.local import LocalStore

TENANT = "acme"
SECONDS = 10.0


class MemoryStore(LocalStore):
    """As much of a store as leases and the fleet use, in a dict.

    Attributes:
        faults: what befalls the next writes, the first one first: "refused answer" (it is written, and the client's own
            retry is refused), "lost answer" (it is written, and the store is said to be down), "down" (it is not written).
        before_put: called before the next write, once.
        requests: how many there were.
    """

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.objects: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.before_put: Callable[[], object] | None = None
        self.requests = 0

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        self.requests += 1
        if key not in self.objects:
            raise ObjectNotFound(f"no object {key}")
        return StoredObject(data=self.objects[key], etag=_etag(self.objects[key]))

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        stored = self.get(key)
        return None if stored.etag == etag else stored

    def head(self, key: str) -> ObjectInfo:
        stored = self.get(key)
        return ObjectInfo(key=key, size=len(stored.data), etag=stored.etag)

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        self.requests += 1
        if self.before_put is not None:
            hook, self.before_put = self.before_put, None
            hook()
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "down":
            raise StoreUnavailable("the store is down")
        now = _etag(self.objects[key]) if key in self.objects else None
        if (if_absent and now is not None) or (if_match is not None and if_match != now):
            raise PreconditionFailed("another writer was quicker")
        self.objects[key] = data
        if fault == "refused answer":
            raise PreconditionFailed("a retry found what it was to write")
        if fault == "lost answer":
            raise StoreUnavailable("the store does not answer")
        return _etag(data)

    def lease(self, tenant: str = TENANT) -> LeaseState:
        """The lease at rest."""
        return LeaseState.model_validate_json(self.objects[lease_key(tenant)])


class Clock:
    """Seconds that pass when they are told to.

    Attributes:
        meanwhile: called whenever somebody sleeps, after the time has passed.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        self.meanwhile()


class JumpingClock:
    """The real time, ahead by whatever was slept: nobody waits, and what takes time takes it."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def sleep(self, seconds: float) -> None:
        """Be ahead by so much more."""
        self._ahead += seconds


class World:
    """A store and a clock, and runs that share them."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = Clock()

    def run(self, name: str, *, seconds: float = SECONDS, longest: float = 3600, every: float | None = None) -> Leases:
        """A run's way to leases."""
        return Leases(
            self.store,
            holder=name,
            seconds=seconds,
            longest=longest,
            every=every,
            clock=self.clock,
            sleep=self.clock.sleep,
        )


def holds(lease: Lease) -> bool:
    """Whether its check passes."""
    try:
        lease.check()
    except LeaseLost:
        return False
    return True


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
