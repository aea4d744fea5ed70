"""What the fleets of the last days named: which versions somebody may still serve, or go back to.

The root of the fleet is written over, so whoever replaces a generation first writes down which shard states made it up, and
when its root was written (`fleet/generations/…`). So every generation before the present one has a record, and a
generation was replaced when the root of the next was written: what was replaced before the window began is in no fleet
of the window. All these times are the store's own.

When a shard state was superseded cannot be told from the shards alone: the state with the next number may be that of a
writer that crashed before its root, days before the state was in fact replaced.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from registry.errors import StoreError
from registry.fleet.at_rest import PastGeneration, ShardNumbers, present_generation, read_shard
from registry.fleet.state import FleetEntry, in_threads
from registry.layout import FLEET_PREFIX
from registry.store import ObjectState, ObjectStore

_RECORD = re.compile(r"fleet/generations/([1-9][0-9]{0,17})-[0-9a-f]{16}\.json")
FLEET_SHARD = re.compile(r"fleet/shards/([0-9a-f]{2})/([1-9][0-9]{0,17})\.json")
_VERSION = re.compile(r"[0-9a-f]{16}|[0-9a-f]{64}")
_MAX_BYTES = 1024 * 1024
_NO_FLEET = PastGeneration.model_construct(generation=0, written=None, shards={})
PAST = "in a recent fleet"
_REASONS = {"version": "serves", "previous": "served before"}


class ShardState(NamedTuple):
    """One state of a shard of the fleet."""

    shard: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the fleets of a window name.

    Attributes:
        generation: of the present one; 0 where there is none.
        named: by tenant, the versions that one of them names, and why.
        expired: the states of shards, and the records, that none of them needs.
    """

    generation: int
    named: Mapping[str, Mapping[str, str]]
    expired: Sequence[ObjectState]


class FleetHistory:
    """Reads the fleets of the last days, again and again, fetching what is new. Threads may share it.

    Args:
        seconds: how long the window is.
        threads: so many reads at once.
    """

    def __init__(self, store: ObjectStore, *, seconds: float, threads: int = 16) -> None:
        self._store = store
        self._seconds = seconds
        self._threads = threads
        self._lock = threading.Lock()
        self._last: tuple[PastGeneration, History] | None = None
        self._records: dict[str, PastGeneration] = {}
        # What each names and why, which takes a fifth of what the entries would; a week of a large fleet has a million.
        self._shards: dict[ShardState, Mapping[str, Mapping[str, str]]] = {}

    def read(self, now: float) -> History:
        """What those fleets name that were the present one at some time of the window, and were written before this call.

        Where records are missing, since an older release wrote the fleet, every state of a shard that there is counts.

        Args:
            now: by the store's clock.

        Raises:
            StoreError: the fleet or its history is damaged, so that nobody can say what it names.
        """
        with self._lock:
            # First the root, then the records: whatever came before this root has been recorded.
            present = present_generation(self._store) or _NO_FLEET
            if self._last is None or self._last[0] != present:
                self._last = (present, self._read(present, since=now - self._seconds))
            return self._last[1]

    def _read(self, present: PastGeneration, *, since: float) -> History:
        listing = list(self._store.states(FLEET_PREFIX))
        shards = {ShardState(found[1], int(found[2])): state for found, state in _matching(FLEET_SHARD, listing)}
        records = [state for _, state in _matching(_RECORD, listing)]
        past = self._read_records(records)
        last_before = _last_before(present, past, since)
        recent = [one for one in past if one.generation >= last_before]
        wanted = _parts(present)
        if {one.generation for one in recent} >= set(range(max(last_before, 1), present.generation)):
            wanted = wanted.union(*map(_parts, recent))
        else:
            wanted = wanted.union(shards)
        expired = [state for state, one in zip(records, past, strict=True) if one.generation < last_before]
        # A state with a greater number than the present one may be on its way into the fleet.
        expired += [
            state
            for key, state in shards.items()
            if key not in wanted and key.number < present.shards.get(key.shard, 0)
        ]
        return History(generation=present.generation, named=self._named(present.shards, wanted), expired=expired)

    def _named(self, present: ShardNumbers, wanted: Iterable[ShardState]) -> dict[str, dict[str, str]]:
        missing = sorted(set(wanted) - self._shards.keys())
        found = in_threads(self._read_shard, missing, threads=self._threads)
        self._shards |= dict(zip(missing, found, strict=True))
        named: dict[str, dict[str, str]] = {}
        for state in sorted(wanted, key=lambda state: present.get(state.shard) != state.number):
            is_present = present.get(state.shard) == state.number
            for tenant, versions in self._shards[state].items():
                for version, why in versions.items():
                    named.setdefault(tenant, {}).setdefault(version, why if is_present else PAST)
        return named

    def _read_shard(self, state: ShardState) -> dict[str, dict[str, str]]:
        return {tenant: named_versions(entry) for tenant, entry in read_shard(self._store, *state).items()}

    def _read_records(self, states: Iterable[ObjectState]) -> list[PastGeneration]:
        keys = [state.key for state in states]
        missing = [key for key in keys if key not in self._records]
        found = in_threads(self._read_record, missing, threads=self._threads)
        self._records |= dict(zip(missing, found, strict=True))
        return [self._records[key] for key in keys]

    def _read_record(self, key: str) -> PastGeneration:
        data = self._store.get(key, max_bytes=_MAX_BYTES).data
        return PastGeneration.parse(data, what=f"{self._store.url}/{key}", error=StoreError)


def named_versions(entry: FleetEntry) -> dict[str, str]:
    """Every version that an entry names, and why, also in fields of later releases: better one too many.

    Example:
        >>> named_versions(FleetEntry.model_validate({"version": "a" * 16, "shadow": {"manifest": "b" * 64}}))
        {'aaaaaaaaaaaaaaaa': 'serves', 'bbbbbbbbbbbbbbbb': 'shadow'}
    """
    named: dict[str, str] = {}
    for field, value in entry.model_dump(mode="json").items():
        for text in _texts(value):
            if _VERSION.fullmatch(text):
                named.setdefault(text[:16], _REASONS.get(field, field))
    return named


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _last_before(present: PastGeneration, past: Iterable[PastGeneration], since: float) -> int:
    """The last generation that was there before the window began, so that those before it are none of ours; or 0."""
    begun: dict[int, float] = {}
    for one in (present, *past):
        # One with a greater number is of a fleet that somebody has replaced by an older one.
        if one.generation <= present.generation:
            when = math.inf if one.written is None else one.written
            begun[one.generation] = max(begun.get(one.generation, 0.0), when)
    return max((number for number, when in begun.items() if when < since), default=0)


def _parts(generation: PastGeneration) -> set[ShardState]:
    return {ShardState(shard, number) for shard, number in generation.shards.items()}


def _matching(pattern: re.Pattern[str], states: Iterable[ObjectState]) -> Iterator[tuple[re.Match[str], ObjectState]]:
    for state in states:
        found = pattern.fullmatch(state.key)
        if found is not None and state.kind == "current":
            yield found, state
