"""A tenant is deleted: nothing of it is left in the fleet, its past and the store, and all of the others is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry import layout
from registry.catalogue import Macro, make_catalogue, write_catalogue
from registry.deletion.deleting import Deletion, Place, delete_tenant
from registry.deletion.places import DiskPlace, FleetPlace, HiddenPlace, LeasePlace, StorePlace, forget_own
from registry.deletion.tombstones import is_buried, lift, unless_deleted
from registry.errors import InvalidTenant, LeaseLost, StoreUnavailable, TenantDeleted, TenantNotFound
from registry.fleet.history import FleetHistory
from registry.fleet.state import FleetEntry, edit_fleet, read_fleet, update_fleet
from registry.garbage.retention import DAY
from registry.layout import examples_key, fleet_shard, lease_key
from registry.leases import Lease, Leases
from registry.publishing import publish_bundle, record_provenance
from registry.store.local import LocalStore
from tests.registry.garbage_world import TENANT, made, publish, serve, serving, version
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
        Leases(store, holder="a training").take(tenant).release()
    store.put(f"lake/tenants/{TENANT}-2/examples.parquet", b"1")
    store.delete(f"tenants/{TENANT}/macros.json")
    return store


def places(store: MemoryStore | SteeredStore) -> list[Place]:
    return [FleetPlace(store), HiddenPlace(store), StorePlace(store), LeasePlace(store)]


def leases(store: MemoryStore | SteeredStore, *, sleep: Callable[[float], None] = lambda _: None) -> Leases:
    # Nobody renews: threads of their own would make requests at any time.
    return Leases(store, holder="the deletion", every=3600, sleep=sleep)


def delete(store: MemoryStore | SteeredStore, tenant: str = TENANT, *, dry_run: bool = False) -> Deletion:
    return delete_tenant(store, tenant, places(store), leases=leases(store), dry_run=dry_run)


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
    done = delete(store)
    assert done.complete
    assert done.left == {"fleet": [], "earlier versions": [], "store": [], "lease": []}
    assert done.removed["fleet"] > 1
    assert done.removed["store"] > 12
    assert done.removed["lease"] > 0
    assert traces(store) == []
    assert others <= set(store.states())
    history = FleetHistory(store, seconds=7 * DAY).read(store.now)
    assert history.named[NEIGHBOUR] == before, "what the neighbour had of late is known as before"
    assert TENANT not in history.named
    assert read_fleet(store).entries.keys() == {NEIGHBOUR}


def test_deleting_twice_is_deleting_once(store: MemoryStore) -> None:
    delete(store)
    entries = read_fleet(store).entries
    again = delete(store)
    assert (again.complete, again.removed["fleet"], again.removed["store"]) == (True, 0, 0)
    assert traces(store) == []
    assert read_fleet(store).entries == entries


def test_a_tenant_that_nobody_knows_is_an_error_and_writes_nothing(store: MemoryStore) -> None:
    before = set(store.states())
    for dry_run in (False, True):
        with pytest.raises(
            TenantNotFound, match="there is no tenant nobody in memory://store, nor anything that one left"
        ):
            delete(store, "nobody", dry_run=dry_run)
    assert set(store.states()) == before


@pytest.mark.parametrize(
    "key", [examples_key(TENANT), f"tenants/{TENANT}/models/{'a' * 16}/weights.safetensors", lease_key(TENANT)]
)
def test_what_half_a_deletion_left_can_be_deleted(key: str) -> None:
    store = MemoryStore(versioned=True)
    store.put(key, b"not even what it should be")
    assert delete(store).complete
    assert traces(store) == []


def test_a_dry_run_lists_and_writes_nothing(store: MemoryStore) -> None:
    before = set(store.states())
    there = delete(store, dry_run=True)
    assert set(store.states()) == before
    assert there.dry_run
    assert not there.complete
    assert set(there.removed.values()) == {0}
    assert examples_key(TENANT) in there.left["store"]
    assert lease_key(TENANT) in there.left["lease"]
    assert any(key.startswith("fleet/shards/") for key in there.left["fleet"])


def test_every_key_of_a_tenants_own_is_found_and_removed(store: MemoryStore) -> None:
    """Whoever gives tenants a key outside of the prefixes of the table forgets a place, and fails here."""
    samples: dict[str, object] = {"tenant": TENANT, "version": "f" * 16, "name": "some.json", "source": "zendesk"}
    samples |= {"day": "2026-11-03", "writer": "w", "segment": 1, "digest": "d" * 32}
    made_keys = set()
    for name, function in inspect.getmembers(layout, inspect.isfunction):
        parameters = inspect.signature(function).parameters
        if "tenant" in parameters and function.__module__ == layout.__name__ and name != "fleet_shard":
            key = str(function(**{each: samples[each] for each in parameters}))
            made_keys.add(f"{key}in-it.json" if key.endswith("/") else key)
    named = {key for key in made_keys if TENANT in key}
    assert len(named) >= 10
    assert made_keys - named == {layout.tombstone_key(TENANT)}, "whose key has no name in it"
    for key in named:
        store.put(key, b"{}")
    there = delete(store, dry_run=True)
    assert named <= {key for found in there.left.values() for key in found}
    assert delete(store).complete
    assert traces(store) == []
    assert not named & {state.key for state in store.states()}


def test_a_tenant_may_come_back_above_the_tokens_of_before(store: MemoryStore) -> None:
    before = Leases(store, holder="a training").take(TENANT).token
    delete(store)
    lift(store, TENANT)
    assert not is_buried(store, TENANT)
    assert Leases(store, holder="another one").take(TENANT).token > before + 1, "the deletion had one, too"
    publish(store, 0)
    serve(store, 0)
    assert read_fleet(store).entries[TENANT].version == version(0)
    assert read_fleet(store).entries[TENANT].previous is None


def test_a_holder_of_the_lease_loses_it_and_is_waited_for(store: MemoryStore) -> None:
    held = Leases(store, holder="a training", seconds=60).take(TENANT)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        assert is_buried(store, TENANT)
        assert TENANT not in read_fleet(store).entries, "servers do not wait"
        assert store.get(examples_key(TENANT)), "which the holder may be reading"
        with pytest.raises(LeaseLost, match="taken over by the deletion"):
            held.renew()

    assert delete_tenant(store, TENANT, places(store), leases=leases(store, sleep=wait)).complete
    assert waited == [pytest.approx(60.6)]


@pytest.mark.parametrize("versioned", [False, True], ids=["bucket", "versioned bucket"])
@pytest.mark.parametrize("known", [False, True], ids=["new in the fleet", "in the fleet"])
def test_a_writer_of_the_fleet_that_was_stopped_anywhere_brings_nobody_back(versioned: bool, known: bool) -> None:
    def write(store: SteeredStore) -> None:
        def edit(found: Mapping[str, FleetEntry | None]) -> dict[str, FleetEntry | None]:
            entry = found[TENANT]
            return {TENANT: None if entry is None and is_buried(store, TENANT) else serving(1)(entry)}

        edit_fleet(store, [TENANT], edit)

    at = 0
    while True:
        store = world(versioned=versioned)
        if not known:
            update_fleet(store, {TENANT: lambda _: None})
        writer = Actor(store, write)
        for _ in range(at):
            writer.step()
        over = writer.waits_for is None
        delete(store)
        writer.finish()
        assert writer.problem is None
        assert read_fleet(store).entries.keys() == {NEIGHBOUR}, at
        if over:
            break
        at += 1
    assert at > 3


@pytest.mark.parametrize("versioned", [False, True], ids=["bucket", "versioned bucket"])
def test_a_publisher_that_was_stopped_anywhere_leaves_nothing(versioned: bool) -> None:
    def work(store: SteeredStore) -> None:
        with unless_deleted(store, TENANT, lambda: forget_own(store, TENANT)):
            publish_bundle(store, made(3)[0], tenant=TENANT, sleep=store.sleep)
            record_provenance(store, tenant=TENANT, version=version(3), provenance={"by": TENANT})

    at = 0
    while True:
        store = world(versioned=versioned)
        publisher = Actor(store, work)
        for _ in range(at):
            publisher.step()
        over = publisher.waits_for is None
        assert delete(store).complete, "the writer's own look may still be to come"
        publisher.finish()
        assert traces(store) == [], at
        if over:
            assert publisher.problem is None
            break
        assert isinstance(publisher.problem, TenantDeleted)
        at += 1
    assert at > 6


@pytest.mark.parametrize("versioned", [False, True], ids=["bucket", "versioned bucket"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_deletion_that_is_killed_at_any_request_is_finished_by_another(versioned: bool, after: bool) -> None:
    at = 0
    while True:
        store = world(versioned=versioned)
        deletion = Actor(store, delete)
        for _ in range(at):
            deletion.step()
        if deletion.waits_for is None:
            break
        deletion.kill(after=after)
        assert delete(store).complete
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
        first = delete(store)
        pinning.finish()
        assert pinning.problem is None
        assert first.complete
        delete(store)
        assert traces(store) == []
        assert read_fleet(store).entries == {NEIGHBOUR: pinned}
        if over:
            break
        at += 1
    assert at > 3


def test_what_lies_under_its_name_elsewhere_is_found_and_left(store: MemoryStore) -> None:
    for key in (
        f"attic/{TENANT}.json",
        f"exports/2026/{TENANT}/model.tar.gz",
        f"attic/{TENANT}-2.json",
        "programs/x/acme",
    ):
        store.put(key, b"1")
    store.put("access/keys.json", b'{"keys": [{"tenant": "acme"}]}')
    store.put("access/others.json", b'{"keys": [{"tenant": "acme-2"}]}')
    done = delete(store)
    assert not done.complete
    assert sorted(done.left["store"]) == [
        "access/keys.json (names it)",
        f"attic/{TENANT}.json",
        f"exports/2026/{TENANT}/model.tar.gz",
    ]
    assert done.as_dict()["remedies"] == {"store": StorePlace(store).remedy}


@pytest.mark.parametrize("dry_run", [False, True])
def test_nothing_of_the_other_tenants_is_listed(store: MemoryStore, dry_run: bool) -> None:
    """In a store of tens of thousands of tenants that would take hours, and one deletion lists several times."""
    for key in ("notes.json", "ten/x.json", f"attic/{TENANT}.json", "lake/other/x.json", f"garbage/{TENANT}.json"):
        store.put(key, b'{"tenant": "acme"}' if key == "notes.json" else b"{}")
    listed: list[str] = []
    for how in ("list", "states", "names"):
        real = getattr(store, how)

        def listing(prefix: str = "", *, how: str = how, real: Callable[[str], object] = real) -> object:
            seen = len(listed)
            answer = real(prefix)
            del listed[seen:]  # by this store's own `names`, which no other one needs a listing for
            listed.append(f"{how} {prefix}")
            return answer

        setattr(store, how, listing)
    done = delete(store, dry_run=dry_run)
    assert {"notes.json (names it)", f"attic/{TENANT}.json", f"garbage/{TENANT}.json"} <= set(done.left["store"])
    wide = {
        f"{how} {prefix}"
        for how in ("list", "states")
        for prefix in ("", "tenants/", "lake/", "lake/tenants/", "programs/")
    }
    assert not wide & set(listed)
    assert not [one for one in listed if NEIGHBOUR in one or one in ("names tenants/", "names lake/tenants/")]
    assert {"states ten/", "states attic/", "states lake/other/"} <= set(listed)


def test_where_somebody_has_folders_that_are_no_keys_all_is_listed(store: MemoryStore) -> None:
    store.put(f"my attic/{TENANT}.json", b"{}")
    assert f"my attic/{TENANT}.json" in delete(store).left["store"]


class Recorder:
    """A place that says what it was asked."""

    remedy = "Do something."
    certain = True

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


class Watched(Leases):
    """Leases that say when they are had."""

    def __init__(self, store: MemoryStore, said: list[str]) -> None:
        super().__init__(store, holder="the deletion", every=3600)
        self._said = said

    @contextmanager
    def hold(self, tenant: str, *, seize: bool = False) -> Iterator[Lease]:
        with super().hold(tenant, seize=seize) as lease:
            self._said.append(f"hold {tenant}")
            yield lease
        self._said.append("release")


def test_places_lose_it_in_order_and_are_searched_when_it_is_gone_everywhere() -> None:
    said: list[str] = []
    store = MemoryStore(versioned=False)
    told: list[tuple[str, float]] = []
    three = [Recorder("one", said), Recorder("two", said, left=["a trace"]), Recorder("three", said)]
    done = delete_tenant(
        store, "acme", three, leases=Watched(store, said), step=lambda text, share: told.append((text, share))
    )
    assert said == [
        "find acme one", "find acme two",
        "remove acme one", "hold acme", "remove acme two", "release", "remove acme three",
        "find acme one", "find acme two", "find acme three",
    ]  # fmt: skip
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert done == Deletion(
        tenant="acme",
        removed={"one": 1, "two": 1, "three": 1},
        left={"one": [], "two": ["a trace"], "three": []},
        remedies=dict.fromkeys(("one", "two", "three"), "Do something."),
    )
    assert done.as_dict() == {
        "tenant": "acme",
        "dry_run": False,
        "complete": False,
        "removed": {"one": 1, "two": 1, "three": 1},
        "left": {"one": [], "two": ["a trace"], "three": []},
        "remedies": {"two": "Do something."},
    }


def test_a_place_that_cannot_be_reached_ends_it_before_anything_is_said_to_be_gone() -> None:
    said: list[str] = []
    three = [Recorder("one", said, left=["a trace"]), Recorder("two", said, fails=True), Recorder("three", said)]
    store = MemoryStore(versioned=False)
    with pytest.raises(StoreUnavailable):
        delete_tenant(store, "acme", three, leases=leases(store))
    assert said == ["find acme one", "remove acme one", "remove acme two"]


@pytest.mark.parametrize("name", ["", "..", "ACME", "a/b", "*"])
def test_a_name_that_is_no_tenants_deletes_nothing(store: MemoryStore, name: str) -> None:
    before = set(store.states())
    with pytest.raises(InvalidTenant):
        delete(store, name)
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
