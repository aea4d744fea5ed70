"""One of two stores that hold the same fleet: reads come from the near one, and from the other while that is away.

Each has a breaker. A store that cannot be reached is left alone from then on, and asked again in the background until it
answers, so that requests wait for a dead store once and not one after the other; while both are away, reads fail at once.

What is written goes to the home store alone, whichever is near: a copy is written by who copies (`registry.regions.copying`).

The copy may be behind, so three things are seen to:

- The fleet never goes back. A root of an earlier generation than the one that was read last, from the other store, counts as
  "not changed" until the store that answers has caught up. (From the same store it is a fleet that was restored, and counts.)
- What never changes and is not in the near store, a model of a generation that it does not have yet, is looked for in the
  other one; so are the fleet's root and the keys.
- That something is not in the one store while the other cannot be asked proves nothing of what never changes, nor of the
  fleet's root and the keys: there it is `StoreUnavailable`. A tenant's catalogue or settings that the copy does not have were
  not there when it was last copied, which is all that reading a copy can ever tell.

An entity tag is one of a store: what was read from one is read again from the other in full.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Final, Literal, TypeVar

from registry.errors import ObjectNotFound, StoreUnavailable
from registry.layout import ACCESS_KEYS, FLEET_ROOT, never_changes
from registry.store.port import ObjectInfo, ObjectState, ObjectStore, StoredObject

Role = Literal["home", "copy"]
ROLES: Final[tuple[Role, ...]] = ("home", "copy")
PROBE_SECONDS: Final = 5.0
_OTHER: Final[Mapping[Role, Role]] = {"home": "copy", "copy": "home"}
# That one of the two does not have these is no answer.
_ROOTS: Final = frozenset({FLEET_ROOT, ACCESS_KEYS})
_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")


class FailoverStore:
    """A store to read from, made of two. May be used by several threads; `close` ends what it began.

    Args:
        home: where is written.
        copy: of the home store.
        near: which of them is asked first.
        probe_seconds: how often one that was away is asked again.
    """

    def __init__(
        self, home: ObjectStore, copy: ObjectStore, *, near: Role, probe_seconds: float = PROBE_SECONDS
    ) -> None:
        self.home = home
        self._stores: dict[Role, ObjectStore] = {"home": home, "copy": copy}
        self._near = near
        self._probe_seconds = probe_seconds
        self._lock = threading.Lock()
        self._away: set[Role] = set()
        self._closed = threading.Event()
        self._probes: list[threading.Thread] = []
        self._generation: tuple[int, Role] = (0, near)
        self.answered: dict[Role, int] = dict.fromkeys(ROLES, 0)
        self.failed: dict[Role, int] = dict.fromkeys(ROLES, 0)

    @property
    def url(self) -> str:
        """That of the home store, which is what the fleet is known by."""
        return self.home.url

    def is_away(self, role: Role) -> bool:
        """Whether one of the stores did not answer last, and is not asked for anybody."""
        return role in self._away

    def serving(self) -> Role | None:
        """Which of them is asked now; None while both are away."""
        return next((role for role in (self._near, _OTHER[self._near]) if role not in self._away), None)

    def close(self) -> None:
        """Ask nobody any more."""
        self._closed.set()
        for probe in self._probes:
            probe.join()

    # Reading

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        """See `ObjectStore.get`."""
        role, found = self._read(key, lambda store, _: store.get(key, max_bytes=max_bytes))
        self._note(key, role, found)
        return replace(found, etag=_signed(role, found.etag))

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        """See `ObjectStore.get_if_changed`."""

        def read(store: ObjectStore, role: Role) -> StoredObject | None:
            whose, _, known = (etag or "").partition(":")
            return store.get_if_changed(key, known if whose == role else None, max_bytes=max_bytes)

        role, found = self._read(key, read)
        if found is None or (etag is not None and self._goes_back(key, role, found)):
            return None
        self._note(key, role, found)
        return replace(found, etag=_signed(role, found.etag))

    def open(self, key: str) -> IO[bytes]:
        """See `ObjectStore.open`. A stream that breaks off is not gone on with from the other store."""
        return self._read(key, lambda store, _: store.open(key))[1]

    def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""
        role, found = self._read(key, lambda store, _: store.head(key))
        return replace(found, etag=_signed(role, found.etag))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`: of the store that answers."""
        role, found = self._read("", lambda store, _: [*store.list(prefix)])
        return iter([replace(info, etag=_signed(role, info.etag)) for info in found])

    def names(self, prefix: str = "") -> Sequence[str]:
        """See `ObjectStore.names`: of the store that answers."""
        return self._read("", lambda store, _: store.names(prefix))[1]

    # What only the home store is asked

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        """See `ObjectStore.put`. A condition takes the home store's own entity tags, not those that were read here."""
        return self.home.put(key, data, if_match=if_match, if_absent=if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> str:
        """See `ObjectStore.put_file`."""
        return self.home.put_file(key, path, if_absent=if_absent)

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        self.home.delete(key)

    def states(self, prefix: str = "") -> Iterator[ObjectState]:
        """See `ObjectStore.states`."""
        return self.home.states(prefix)

    def purge(self, states: Iterable[ObjectState]) -> None:
        """See `ObjectStore.purge`."""
        self.home.purge(states)

    # Inside

    def _read(self, key: str, read: Callable[[ObjectStore, Role], Result]) -> tuple[Role, Result]:
        """What the first store says that answers, and which that was."""
        missing: ObjectNotFound | None = None
        asked = 0
        certain = never_changes(key) or key in _ROOTS
        for role in (self._near, _OTHER[self._near]):
            if role in self._away:
                continue
            try:
                found = read(self._stores[role], role)
            except StoreUnavailable as problem:
                self._lose(role, problem)
                continue
            except ObjectNotFound as problem:
                self._count(role)
                asked += 1
                missing = missing or problem
                if not certain:
                    break
                continue
            self._count(role)
            return role, found
        if missing is not None and (asked == len(ROLES) or not certain):
            raise missing
        raise StoreUnavailable(
            f"{key or 'a listing'} cannot be read: "
            + " and ".join(
                f"{self._stores[role].url} ({role}) {'does not answer' if role in self._away else 'does not have it'}"
                for role in ROLES
            ),
            remedy="What is away is asked again every few seconds; check its health, the network and the credentials.",
        )

    def _count(self, role: Role) -> None:
        with self._lock:
            self.answered[role] += 1

    def _lose(self, role: Role, problem: StoreUnavailable) -> None:
        """Ask a store for nobody any more, until it answers in the background."""
        with self._lock:
            self.failed[role] += 1
            if role in self._away or self._closed.is_set():
                return
            self._away.add(role)
            _LOG.warning("a store is away", extra={"store": role}, exc_info=problem)
            self._probes = [probe for probe in self._probes if probe.is_alive()]
            probe = threading.Thread(target=self._probe, args=(role,), name=f"store-{role}", daemon=True)
            self._probes.append(probe)
            probe.start()

    def _probe(self, role: Role) -> None:
        while not self._closed.wait(self._probe_seconds):
            try:
                self._stores[role].head(FLEET_ROOT)
            except ObjectNotFound:
                pass  # which is an answer
            except Exception as problem:  # noqa: BLE001  # whatever it is, it is not back
                _LOG.debug("a store is still away", extra={"store": role}, exc_info=problem)
                continue
            with self._lock:
                self._away.discard(role)
            _LOG.info("a store is back", extra={"store": role})
            return

    def _note(self, key: str, role: Role, found: StoredObject) -> None:
        if key == FLEET_ROOT and (generation := _generation(found.data)) is not None:
            self._generation = generation, role

    def _goes_back(self, key: str, role: Role, found: StoredObject) -> bool:
        if key != FLEET_ROOT:
            return False
        generation, whose = self._generation
        now = _generation(found.data)
        return now is not None and now < generation and role != whose


def _signed(role: Role, etag: str) -> str:
    return f"{role}:{etag}"


def _generation(data: bytes) -> int | None:
    """Of a root; None where that cannot be told, which whoever reads it will say."""
    try:
        found = json.loads(data).get("generation")
    except (ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, int) else None
