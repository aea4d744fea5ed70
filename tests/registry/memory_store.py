"""An object store in memory, with a clock of the test's own and somebody who decides whose request comes next."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from registry.errors import ObjectNotFound, PreconditionFailed
from registry.store import ObjectInfo, ObjectState, StoredObject


@dataclass(frozen=True, slots=True)
class _Kept:
    id: str
    data: bytes | None
    modified: float


class MemoryStore:
    """A bucket, with versions or without. A request takes effect at once and whole.

    Attributes:
        now: the time by its clock.
        on_put: told the key of every write that took effect.
    """

    url = "memory://store"

    def __init__(self, *, versioned: bool, now: float = 1e9) -> None:
        self.now = now
        self.on_put: Callable[[str], None] = lambda _: None
        self._versioned = versioned
        self._kept: dict[str, list[_Kept]] = {}
        self._ids = 0

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        data = self._current(key)
        return StoredObject(data=data, etag=_etag(data), modified=self._kept[key][-1].modified)

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        found = self.get(key)
        return None if found.etag == etag else found

    def open(self, key: str) -> IO[bytes]:
        return io.BytesIO(self._current(key))

    def head(self, key: str) -> ObjectInfo:
        data = self._current(key)
        return ObjectInfo(key=key, size=len(data), etag=_etag(data))

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        there = self._find(key)
        if (if_absent and there is not None) or (if_match is not None and (there is None or _etag(there) != if_match)):
            raise PreconditionFailed(f"{key} is not as its writer expected")
        self._add(key, data)
        self.on_put(key)
        return _etag(data)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> str:
        return self.put(key, path.read_bytes(), if_absent=if_absent)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        keys = sorted(key for key in self._kept if key.startswith(prefix) and self._find(key) is not None)
        return iter([self.head(key) for key in keys])

    def names(self, prefix: str = "") -> Sequence[str]:
        return sorted({info.key.removeprefix(prefix).split("/")[0] for info in self.list(prefix)})

    def delete(self, key: str) -> None:
        if not self._versioned:
            self._kept.pop(key, None)
        elif key in self._kept:
            self._add(key, None)

    def states(self, prefix: str = "") -> Iterator[ObjectState]:
        found = [
            ObjectState(
                key=key,
                kind=_kind(one, is_last=one is kept[-1]),
                size=len(one.data or b""),
                modified=one.modified,
                id=one.id,
            )
            for key, kept in self._kept.items()
            if key.startswith(prefix)
            for one in kept
        ]
        return iter(found)

    def purge(self, states: Iterable[ObjectState]) -> None:
        for state in states:
            kept = self._kept.get(state.key, [])
            # Without versions there is but one, whichever was meant.
            left = [one for one in kept if self._versioned and one.id != state.id]
            if left:
                self._kept[state.key] = left
            else:
                self._kept.pop(state.key, None)

    def _add(self, key: str, data: bytes | None) -> None:
        self._ids += 1
        before = self._kept.get(key, []) if self._versioned else []
        self._kept[key] = [*before, _Kept(str(self._ids), data, self.now)]

    def _find(self, key: str) -> bytes | None:
        kept = self._kept.get(key)
        return kept[-1].data if kept else None

    def _current(self, key: str) -> bytes:
        data = self._find(key)
        if data is None:
            raise ObjectNotFound(f"no object {key}")
        return data


def _kind(one: _Kept, *, is_last: bool) -> Literal["current", "noncurrent", "marker"]:
    if one.data is None:
        return "marker"
    return "current" if is_last else "noncurrent"


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


class Killed(BaseException):
    """The process is gone."""


class Actor:
    """A process of its own, as far as the store can tell: it stops before every request until it is its turn.

    Args:
        work: what it does, with a store of its own.

    Attributes:
        waits_for: the request that it will send next; None once it has ended.
        problem: what its work raised.
        began, since: when it began, and when it began to wait.
    """

    def __init__(self, store: MemoryStore, work: Callable[[SteeredStore], object]) -> None:
        self.waits_for: str | None = None
        self.problem: BaseException | None = None
        self.began = self.since = store.now
        self._store = store
        self._dead = False
        self._dies_after = False
        self._turn = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()
        self._back.acquire()

    def step(self) -> None:
        """Let its next request through, and wait until it is about to send another one or has ended."""
        if self.waits_for is not None:
            self._turn.release()
            self._back.acquire()

    def finish(self) -> None:
        while self.waits_for is not None:
            self.step()

    def kill(self, *, after: bool = False) -> None:
        """End it before its next request, or after that has taken effect."""
        self._dies_after, self._dead = after, not after
        self.step()
        if self.waits_for is not None:  # a read, which has no effect
            self._dead = True
            self.step()
        self._thread.join(10)
        assert self.waits_for is None

    # What its own thread calls

    def pause(self, request: str) -> None:
        if self._dead:
            raise Killed
        self.waits_for, self.since = request, self._store.now
        self._back.release()
        self._turn.acquire()
        if self._dead:
            raise Killed

    def took_effect(self) -> None:
        if self._dies_after:
            self._dead = True
            raise Killed

    def _run(self, work: Callable[[SteeredStore], object]) -> None:
        try:
            work(SteeredStore(self._store, self))
        except BaseException as problem:  # noqa: BLE001  # whoever watches looks at it
            self.problem = problem
        self.waits_for = None
        self._back.release()


class SteeredStore:
    """The store as one actor sees it.

    Attributes:
        repeats: every deletion arrives once more, after the actor has been made to wait again: a client that got no answer.
    """

    url = MemoryStore.url

    def __init__(self, store: MemoryStore, actor: Actor) -> None:
        self.repeats = False
        self.actor = actor
        self._store = store

    def sleep(self, _seconds: float) -> None:
        self.actor.pause("sleep")

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        self.actor.pause(f"get {key}")
        return self._store.get(key)

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        self.actor.pause(f"get {key}")
        return self._store.get_if_changed(key, etag)

    def open(self, key: str) -> IO[bytes]:
        self.actor.pause(f"open {key}")
        return self._store.open(key)

    def head(self, key: str) -> ObjectInfo:
        self.actor.pause(f"head {key}")
        return self._store.head(key)

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        self.actor.pause(f"put {key}")
        etag = self._store.put(key, data, if_match=if_match, if_absent=if_absent)
        self.actor.took_effect()
        return etag

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> str:
        return self.put(key, path.read_bytes(), if_absent=if_absent)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.actor.pause(f"list {prefix}")
        return self._store.list(prefix)

    def names(self, prefix: str = "") -> Sequence[str]:
        self.actor.pause(f"names {prefix}")
        return self._store.names(prefix)

    def delete(self, key: str) -> None:
        self.actor.pause(f"delete {key}")
        self._store.delete(key)
        self.actor.took_effect()

    def states(self, prefix: str = "") -> Iterator[ObjectState]:
        self.actor.pause(f"states {prefix}")
        return self._store.states(prefix)

    def purge(self, states: Iterable[ObjectState]) -> None:
        meant = list(states)
        self.actor.pause(f"purge {' '.join(state.key for state in meant)}")
        self._store.purge(meant)
        self.actor.took_effect()
        if self.repeats:
            self.actor.pause(f"purge again {' '.join(state.key for state in meant)}")
            self._store.purge(meant)
