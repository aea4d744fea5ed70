"""What is left of a tenant that was deleted goes with garbage collection, and its tombstone when nobody needs it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest

from registry.deletion.deleting import Place, delete_tenant
from registry.deletion.places import FleetPlace, LeasePlace, StorePlace
from registry.deletion.remains import TOMBSTONE_SECONDS, find_remains
from registry.deletion.tombstones import bury, is_buried, lift
from registry.garbage.retention import DAY
from registry.garbage.store_garbage import Collected, collect_garbage
from registry.layout import COLLECTION, examples_key, tombstone_key
from registry.leases import Leases
from registry.store import ObjectState
from tests.registry.garbage_world import HOUR, TENANT, publish, serve
from tests.registry.memory_store import MemoryStore


def collect(store: MemoryStore, *, dry_run: bool = False) -> Collected:
    return collect_garbage(store, clock=lambda: store.now, dry_run=dry_run)


def bury_tenant(store: MemoryStore) -> None:
    places: list[Place] = [FleetPlace(store), StorePlace(store), LeasePlace(store)]
    delete_tenant(store, TENANT, places, leases=Leases(store, holder="the deletion", every=3600))


@pytest.fixture(params=[False, True], ids=["bucket", "versioned bucket"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    """The tenant was deleted, and somebody who was killed then has left a model and tickets of it."""
    store = MemoryStore(versioned=request.param)
    publish(store, 0)
    serve(store, 0)
    store.put(examples_key("globex"), b"tickets")
    bury_tenant(store)
    publish(store, 1)
    store.put(examples_key(TENANT), b"tickets")
    return store


def keys(store: MemoryStore) -> list[str]:
    return [state.key for state in store.states() if f"/{TENANT}/" in state.key]


def test_remains_go_a_day_after_they_were_written(store: MemoryStore) -> None:
    store.now += DAY - HOUR
    assert collect(store).remains == ()
    assert len(keys(store)) > 3
    store.now += 2 * HOUR
    listed = collect(store, dry_run=True)
    assert (listed.remains, listed.remains_objects) == ((TENANT,), len(keys(store)))
    assert len(keys(store)) > 3
    done = collect(store)
    assert (done.remains, done.remains_objects) == (listed.remains, listed.remains_objects)
    assert done.objects >= done.remains_objects
    assert done.as_dict()["remains"] == [TENANT]
    assert keys(store) == []
    assert store.get(examples_key("globex"))
    assert collect(store).remains == ()


def test_a_tenant_that_came_back_is_left_alone(store: MemoryStore) -> None:
    lift(store, TENANT)
    before = keys(store)
    store.now += 2 * DAY
    assert collect(store).remains == ()
    assert keys(store) == before


def test_one_that_comes_back_after_the_first_look_is_left_alone(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.now += 2 * DAY
    before = keys(store)
    store.on_put = lambda _: None
    purge = store.purge

    def comes_back(states: list[object]) -> None:
        monkeypatch.setattr(store, "purge", purge)
        lift(store, TENANT)
        purge(states)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "purge", comes_back)
    assert collect(store).remains == ()
    assert keys(store) == before


def test_a_tombstone_outlives_whoever_began_before_it(store: MemoryStore) -> None:
    store.now += TOMBSTONE_SECONDS - DAY
    collect(store)
    assert is_buried(store, TENANT)
    store.now += 2 * DAY
    collect(store)
    assert [state for state in store.states() if state.key == tombstone_key(TENANT)] == []
    assert keys(store) == []


def test_a_tombstone_that_stands_again_meanwhile_stays() -> None:
    """It was old when everything was listed, which takes hours for a large fleet; in a bucket its key is all that it has."""
    store = MemoryStore(versioned=False)
    bury(store, TENANT, token=1)
    lift(store, TENANT)
    store.now += TOMBSTONE_SECONDS + DAY

    def deleted_again(key: str) -> None:
        if key == COLLECTION:
            states = store.states

            def list_first(prefix: str = "") -> Iterator[ObjectState]:
                found = list(states(prefix))
                if prefix == "":
                    store.on_put = lambda _: None
                    bury(store, TENANT, token=2)
                return iter(found)

            store.states = list_first  # type: ignore[method-assign]

    store.on_put = deleted_again
    collect(store)
    assert is_buried(store, TENANT)


def test_of_a_listing_no_more_is_held_than_is_asked_for() -> None:
    """Tickets and feedback of a large fleet are millions of objects."""
    store = MemoryStore(versioned=False)
    bury(store, TENANT, token=1)
    held = 0

    class Counted(ObjectState):
        def __init__(self, key: str) -> None:
            nonlocal held
            held += 1
            super().__init__(key=key, kind="current", size=1, modified=0.0, id="1")

        def __del__(self) -> None:
            nonlocal held
            held -= 1

    def listing() -> Iterator[ObjectState]:
        for number in range(100):
            yield Counted(examples_key(f"other-{number}"))
            assert held < 5

    kept = Counted(examples_key(TENANT))
    found = find_remains(store, chain(listing(), [kept]), other=lambda state: "/models/" in state.key)
    assert (found.of_tenants, found.others) == ({TENANT: [kept]}, [])
