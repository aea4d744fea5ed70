"""Packing feedback's small objects: nothing lost, nothing doubled, whoever dies, ships late or packs at the same time."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import StoreError, StoreUnavailable
from registry.feedback.packing import Packing, pack_feedback
from registry.feedback.records import encode_object, lines_of, read_feedback
from registry.layout import feedback_key, feedback_prefix
from tests.registry.memory_store import MemoryStore

TODAY = date(2026, 11, 20)
OLD, LATER = "2026-11-10", "2026-11-11"


def record(name: str, at: float = 1.0) -> dict[str, Any]:
    return {"kind": "feedback", "tenant": "acme", "at": at, "id": name, "suggestion_id": "s", "applied": None}


def ship(store: MemoryStore, names: str, *, writer: str = "a" * 16, number: int = 1, day: str = OLD) -> str:
    key = feedback_key("acme", day, writer, number)
    store.put(key, encode_object([json.dumps(record(name)).encode() for name in names]))
    return key


def names_in(store: MemoryStore) -> str:
    return "".join(sorted(found.key.removeprefix("feedback ") for found in read_feedback(store, "acme")))


def keys_in(store: MemoryStore) -> list[str]:
    return [info.key.removeprefix(feedback_prefix("acme")) for info in store.list(feedback_prefix("acme"))]


def test_what_another_zlib_packed_is_gone_on_with() -> None:
    """The packer before died, on a machine whose zlib makes other bytes of the same lines."""
    store = MemoryStore(versioned=False)
    first, second = ship(store, "abc", number=1), ship(store, "cd", number=2)
    before = {key: store.get(key).data for key in (first, second)}
    pack_feedback(store, "acme", today=TODAY)
    (packed,) = (info.key for info in store.list(feedback_prefix("acme")))
    store.put(packed, gzip.compress(gzip.decompress(store.get(packed).data), compresslevel=0))
    for key, data in before.items():
        store.put(key, data)
    assert pack_feedback(store, "acme", today=TODAY).made == 1
    assert [info.key for info in store.list(feedback_prefix("acme"))] == [packed]
    assert names_in(store) == "abcd"


@pytest.mark.parametrize("versioned", [False, True])
def test_a_days_objects_become_one(versioned: bool) -> None:
    store = MemoryStore(versioned=versioned)
    for number, names in enumerate(("abc", "cd", "e"), start=1):
        ship(store, names, number=number)
    ship(store, "f", day=LATER)
    ship(store, "g", day="2026-11-19")
    ship(store, "h", day="2026-11-19", number=2)
    assert pack_feedback(store, "acme", today=TODAY, write=False) == Packing(packed=3, made=1)
    assert len(keys_in(store)) == 6
    assert pack_feedback(store, "acme", today=TODAY) == Packing(packed=3, made=1)
    packed, *others = keys_in(store)
    assert packed.startswith(f"{OLD}/packed-")
    assert len(others) == 3, "one object is one already, and yesterday's may not be all"
    assert names_in(store) == "abcdefgh"
    assert {state.kind for state in store.states(feedback_prefix("acme"))} == {"current"}
    assert pack_feedback(store, "acme", today=TODAY) == Packing()


def test_what_is_shipped_late_or_again_is_packed_with_the_rest() -> None:
    store = MemoryStore(versioned=False)
    first = ship(store, "ab")
    ship(store, "c", number=2)
    pack_feedback(store, "acme", today=TODAY)
    assert ship(store, "ab") == first
    ship(store, "d", writer="f" * 16)
    assert names_in(store) == "abcd"
    assert pack_feedback(store, "acme", today=TODAY).made == 1
    assert (len(keys_in(store)), names_in(store)) == (1, "abcd")


def test_the_earliest_of_two_tellings_stays_and_what_is_not_understood() -> None:
    store = MemoryStore(versioned=False)
    unknown = b'{"kind":"later","tenant":"acme","what":1}'
    for number, lines in enumerate(
        ([json.dumps(record("a", 2.0)).encode(), unknown], [json.dumps(record("a")).encode(), unknown])
    ):
        store.put(feedback_key("acme", OLD, "a" * 16, number), encode_object(lines))
    pack_feedback(store, "acme", today=TODAY)
    (key,) = keys_in(store)
    kept = list(lines_of(store, feedback_prefix("acme") + key))
    assert kept == [unknown, json.dumps(record("a")).encode()]


def test_objects_stay_below_their_bound_and_large_ones_are_left_alone() -> None:
    store = MemoryStore(versioned=False)
    size = len(json.dumps(record("a")))
    for number in range(1, 6):
        ship(store, "abcde"[number - 1], number=number)
    ship(store, "fghij", number=6)
    done = pack_feedback(store, "acme", today=TODAY, most_bytes=3 * size)
    assert done == Packing(packed=5, made=2)
    assert names_in(store) == "abcdefghij"


@pytest.mark.parametrize("data", [b"no gzip", encode_object([b"no json"]), encode_object([b"{}"])[:-9]])
def test_a_day_with_something_else_stays_as_it_is(data: bytes) -> None:
    store = MemoryStore(versioned=False)
    ship(store, "a")
    key = feedback_key("acme", OLD, "a" * 16, 2)
    store.put(key, data)
    with pytest.raises(StoreError, match=key):
        pack_feedback(store, "acme", today=TODAY)
    assert len(keys_in(store)) == 2


class Interrupted(MemoryStore):
    """A store where something happens before its n-th request of a packer.

    Attributes:
        before: what, by the number of the request.
    """

    def __init__(self) -> None:
        super().__init__(versioned=False)
        self.before: dict[int, Callable[[], object]] = {}
        self._requests = 0

    def _turn(self) -> None:
        self._requests += 1
        happens = self.before.pop(self._requests, None)
        if happens is not None:
            happens()

    def list(self, prefix: str = "") -> Any:
        self._turn()
        return super().list(prefix)

    def open(self, key: str) -> Any:
        self._turn()
        return super().open(key)

    def put(self, key: str, data: bytes, **conditions: Any) -> str:
        self._turn()
        return super().put(key, data, **conditions)

    def purge(self, states: Any) -> None:
        self._turn()
        super().purge(states)


def dies() -> None:
    raise StoreUnavailable("it is away")


SEGMENTS = st.lists(st.text("abcdefghij", min_size=1, max_size=4), min_size=1, max_size=5)
# What happens before which request: a death, a segment that comes late, another packer, a reader.
EVENTS = st.lists(
    st.tuples(st.integers(1, 14), st.sampled_from(["dies", "ships", "packs", "reads"]), st.text("klm", min_size=1)),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(segments=SEGMENTS, events=EVENTS, most=st.sampled_from([150, 400, 10_000]))
def test_whatever_happens_each_record_is_read_once(segments: list[str], events: Any, most: int) -> None:
    store = Interrupted()
    told: set[str] = set()
    numbers = iter(range(1, 100))

    def ships(names: str) -> None:
        ship(store, names, number=next(numbers), writer="0f"[len(told) % 2] * 16)
        told.update(names)

    def reads() -> None:
        assert names_in(store) == "".join(sorted(told))

    def packs() -> None:
        pack_feedback(store, "acme", today=TODAY, most_bytes=most)

    for names in segments:
        ships(names)
    store._requests = 0
    for place, kind, names in events:
        does: dict[str, Callable[[], object]] = {"dies": dies, "ships": partial(ships, names), "packs": packs}
        store.before[place] = does.get(kind, reads)
    for _ in range(len(events) + 1):
        try:
            packs()
        except StoreUnavailable:
            reads_after = dict(store.before)
            store.before.clear()
            reads()
            store.before |= reads_after
    store.before.clear()
    reads()
    packs()
    reads()
