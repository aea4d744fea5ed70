"""A tenant is deleted: nothing of it is left in the fleet, its past and the store, and all of the others is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.catalogue import Macro, make_catalogue, write_catalogue
from registry.deletion import Deletion, Place, delete_tenant
from registry.errors import InvalidTenant, StoreUnavailable
from registry.fleet import FleetEntry, read_fleet, update_fleet
from registry.fleet_history import FleetHistory
from registry.layout import examples_key, fleet_shard
from registry.publishing import record_provenance
from registry.retention import DAY
from registry.store.local import LocalStore
from registry.tenant_places import DiskPlace, FleetPlace, StorePlace
from tests.registry.garbage_world import TENANT, publish, serve, version
from tests.registry.memory_store import Actor, MemoryStore, SteeredStore

# It lies in the same shard as the tenant.
NEIGHBOUR = next(name for name in (f"t{n}" for n in range(9999)) if fleet_shard(name) == fleet_shard(TENANT))


@pytest.fixture(params=[False, True], ids=["bucket", "versioned bucket"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    return world(versioned=request.param)


def world(*, versioned: bool) -> MemoryStore:
    """A tenant with all that it may have, and a neighbour."""
    store = MemoryStore(versioned=versioned)
    catalogue = make_catalogue([Macro(id="m", title="M")])
    for number in range(3):
        publish(store, number)
        record_provenance(store, tenant=TENANT, version=version(number), provenance={})
        serve(store, number)
        update_fleet(store, {NEIGHBOUR: lambda _, mark=f"{number}" * 16: FleetEntry(version=mark, manifest=mark * 4)})  # type: ignore[misc]
        for tenant in (TENANT, NEIGHBOUR):
            store.put(examples_key(tenant), f"tickets {number}".encode())
    for tenant in (TENANT, NEIGHBOUR):
        write_catalogue(store, tenant, catalogue, etag=None)
        store.put(f"lake/tenants/{tenant}/feedback/1.parquet", b"1")
        store.put(f"tenants/{tenant}/lease.json", b"{}")
    store.put(f"lake/tenants/{TENANT}-2/examples.parquet", b"1")
    store.delete(f"tenants/{TENANT}/macros.json")
    return store


def places(store: MemoryStore | SteeredStore) -> list[Place]:
    return [FleetPlace(store), StorePlace(store)]


def traces(store: MemoryStore) -> list[str]:
    """What names the tenant, in keys or in anything that the store holds of them, seen by readers or not."""
    name = TENANT.encode()
    found = []
    for key, kept in store._kept.items():
        for one in kept:
            data = (one.data or b"").replace(f"{TENANT}-2".encode(), b"")
            if f"/{TENANT}/" in key or name in data:
                found.append(key)
    return found


def test_nothing_is_left_of_the_tenant_and_everything_of_the_others(store: MemoryStore) -> None:
    assert traces(store)
    others = {state for state in store.states() if not state.key.startswith(("fleet/", f"tenants/{TENANT}/"))}
    others = {state for state in others if not state.key.startswith(f"lake/tenants/{TENANT}/")}
    before = FleetHistory(store, seconds=7 * DAY).read(store.now).named[NEIGHBOUR]
    done = delete_tenant(TENANT, places(store))
    assert done.complete
    assert done.left == {"fleet": [], "store": []}
    assert done.removed["fleet"] > 1
    assert done.removed["store"] > 12
    assert traces(store) == []
    assert others <= set(store.states())
    history = FleetHistory(store, seconds=7 * DAY).read(store.now)
    assert history.named[NEIGHBOUR] == before, "what the neighbour had of late is known as before"
    assert TENANT not in history.named
    assert read_fleet(store).entries.keys() == {NEIGHBOUR}


def test_deleting_twice_is_deleting_once(store: MemoryStore) -> None:
    delete_tenant(TENANT, places(store))
    before, generation = set(store.states()), read_fleet(store).generation
    again = delete_tenant(TENANT, places(store))
    assert (again.complete, again.removed) == (True, {"fleet": 0, "store": 0})
    assert set(store.states()) == before
    assert read_fleet(store).generation == generation


def test_a_tenant_that_nobody_knows_is_gone_already(store: MemoryStore) -> None:
    done = delete_tenant("nobody", places(store))
    assert (done.complete, sum(done.removed.values())) == (True, 0)
    assert traces(store)


def test_a_tenant_may_come_back(store: MemoryStore) -> None:
    delete_tenant(TENANT, places(store))
    publish(store, 0)
    serve(store, 0)
    assert read_fleet(store).entries[TENANT].version == version(0)
    assert read_fleet(store).entries[TENANT].previous is None


@pytest.mark.parametrize("versioned", [False, True], ids=["bucket", "versioned bucket"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_deletion_that_is_killed_at_any_request_is_finished_by_another(versioned: bool, after: bool) -> None:
    at = 0
    while True:
        store = world(versioned=versioned)
        deletion = Actor(store, lambda steered: delete_tenant(TENANT, places(steered)))
        for _ in range(at):
            deletion.step()
        if deletion.waits_for is None:
            break
        deletion.kill(after=after)
        assert delete_tenant(TENANT, places(store)).complete
        assert traces(store) == [], at
        assert read_fleet(store).entries.keys() == {NEIGHBOUR}
        at += 1
    assert at > 15


@pytest.mark.parametrize("versioned", [False, True], ids=["bucket", "versioned bucket"])
def test_a_writer_of_the_same_shard_at_the_same_time_is_no_loss_to_either(versioned: bool) -> None:
    at = 0
    pinned = FleetEntry(version="9" * 16, manifest="9" * 64, keep_loaded=True)
    while True:
        store = world(versioned=versioned)
        pinning = Actor(store, lambda steered: update_fleet(steered, {NEIGHBOUR: lambda _: pinned}))
        for _ in range(at):
            pinning.step()
        over = pinning.waits_for is None
        first = delete_tenant(TENANT, places(store))
        pinning.finish()
        assert pinning.problem is None
        assert first.complete
        delete_tenant(TENANT, places(store))
        assert traces(store) == []
        assert read_fleet(store).entries == {NEIGHBOUR: pinned}
        if over:
            break
        at += 1
    assert at > 3


def test_what_lies_under_its_name_elsewhere_is_found_and_left(store: MemoryStore) -> None:
    for key in (
        f"runs/{TENANT}.json",
        f"exports/2026/{TENANT}/model.tar.gz",
        f"runs/{TENANT}-2.json",
        "programs/x/acme",
    ):
        store.put(key, b"1")
    done = delete_tenant(TENANT, places(store))
    assert not done.complete
    assert sorted(done.left["store"]) == [
        f"exports/2026/{TENANT}/model.tar.gz (current)",
        f"runs/{TENANT}.json (current)",
    ]
    assert done.as_dict()["remedies"] == {"store": StorePlace(store).remedy}


class Recorder:
    """A place that says what it was asked."""

    remedy = "Do something."

    def __init__(self, name: str, said: list[str], *, left: list[str] | None = None, fails: bool = False) -> None:
        self.name = name
        self._said = said
        self._left = left or []
        self._fails = fails

    def remove(self, tenant: str) -> int:
        self._said.append(f"remove {tenant} {self.name}")
        if self._fails:
            raise StoreUnavailable("down")
        return 1

    def find(self, tenant: str) -> list[str]:
        self._said.append(f"find {tenant} {self.name}")
        return self._left


def test_places_lose_it_in_order_and_are_searched_when_it_is_gone_everywhere() -> None:
    said: list[str] = []

    @contextmanager
    def held(tenant: str) -> Iterator[None]:
        said.append(f"hold {tenant}")
        yield
        said.append("release")

    told: list[tuple[str, float]] = []
    done = delete_tenant(
        "acme",
        [Recorder("one", said), Recorder("two", said, left=["a trace"])],
        held=held,
        step=lambda text, share: told.append((text, share)),
    )
    assert said == [
        "hold acme", "remove acme one", "remove acme two", "release", "find acme one", "find acme two",
    ]  # fmt: skip
    assert [share for _, share in told] == [0.0, 0.25, 0.5, 0.75]
    assert done == Deletion(
        tenant="acme",
        removed={"one": 1, "two": 1},
        left={"one": [], "two": ["a trace"]},
        remedies={"one": "Do something.", "two": "Do something."},
    )
    assert done.as_dict() == {
        "tenant": "acme",
        "complete": False,
        "removed": {"one": 1, "two": 1},
        "left": {"one": [], "two": ["a trace"]},
        "remedies": {"two": "Do something."},
    }


def test_a_place_that_cannot_be_reached_ends_it_before_anything_is_said_to_be_gone() -> None:
    said: list[str] = []
    with pytest.raises(StoreUnavailable):
        delete_tenant("acme", [Recorder("one", said), Recorder("two", said, fails=True), Recorder("three", said)])
    assert said == ["remove acme one", "remove acme two"]


@pytest.mark.parametrize("name", ["", "..", "ACME", "a/b", "*"])
def test_a_name_that_is_no_tenants_deletes_nothing(store: MemoryStore, name: str) -> None:
    before = set(store.states())
    with pytest.raises(InvalidTenant):
        delete_tenant(name, places(store))
    assert set(store.states()) == before


def test_what_this_machine_has_goes_from_every_tier(tmp_path: Path) -> None:
    tiers = [tmp_path / "disk", tmp_path / "disk" / "champions", tmp_path / "none"]
    for tier in tiers[:2]:
        for tenant in (TENANT, NEIGHBOUR):
            (tier / "models" / tenant / version(0)).mkdir(parents=True)
            (tier / "models" / tenant / version(0) / "weights.safetensors").write_bytes(b"1")
    place = DiskPlace(tiers, LocalStore(tmp_path / "store"))
    assert len(place.find(TENANT)) == 2
    assert place.remove(TENANT) == 2
    assert place.find(TENANT) == []
    assert [path.name for path in tmp_path.rglob("models/*")] == [NEIGHBOUR] * 2
