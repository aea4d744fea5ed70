"""Reading from two stores: the near one, the other while that is away, never an older fleet, and nobody waits twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from registry.errors import ObjectNotFound, StoreUnavailable
from registry.fleet.at_rest import read_root
from registry.fleet.state import FleetReader
from registry.layout import ACCESS_KEYS, FLEET_ROOT, MANIFEST, WEIGHTS, catalogue_key, model_key
from registry.regions.copying import copy_region
from registry.store.failover import FailoverStore, Role
from tests.registry.memory_store import MemoryStore
from tests.registry.region_world import Watched, a_store, delete, made, rename, serve

WAIT = 30.0


class Away:
    """A store that can go away, and counts who asked it.

    Attributes:
        asked: how many requests came.
        probed: set by each request of one that is away.
    """

    def __init__(self, store: MemoryStore) -> None:
        self.kept = store
        self.down = False
        self.asked = 0
        self.probed = threading.Event()
        self.seen = Watched(store, asked=self._ask)

    def _ask(self) -> None:
        self.asked += 1
        if self.down:
            self.probed.set()
            raise StoreUnavailable("nobody there")


@pytest.fixture
def home() -> Away:
    store = a_store("home")
    serve(store, "acme", 1)
    return Away(store)


@pytest.fixture
def there(home: Away) -> Away:
    made = Away(a_store("there"))
    bring(home, made)
    return made


def bring(home: Away, there: Away) -> None:
    copy_region(home.kept, there.kept, threads=1)


@contextmanager
def reading(home: Away, there: Away, near: Role, *, probe_seconds: float = 3600) -> Iterator[FailoverStore]:
    store = FailoverStore(home.seen, there.seen, near=near, probe_seconds=probe_seconds)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture(params=["home", "copy"])
def near(request: pytest.FixtureRequest) -> Role:
    role: Role = request.param
    return role


def pair(near: Role, home: Away, there: Away) -> tuple[Away, Away]:
    """The near one and the other one."""
    return (home, there) if near == "home" else (there, home)


def test_reads_come_from_the_near_store(home: Away, there: Away, near: Role) -> None:
    first, second = pair(near, home, there)
    with reading(home, there, near) as store:
        assert store.get(catalogue_key("acme")).data == home.kept.get(catalogue_key("acme")).data
        assert store.head(FLEET_ROOT).size == len(store.open(FLEET_ROOT).read())
        assert [info.key for info in store.list("fleet/root")] == [FLEET_ROOT]
        assert store.serving() == near
        assert (first.asked, second.asked) == (4, 0)
        assert (store.answered[near], sum(store.failed.values())) == (4, 0)


def test_a_dead_store_is_asked_once_and_the_other_answers(home: Away, there: Away, near: Role) -> None:
    first, second = pair(near, home, there)
    first.down = True
    with reading(home, there, near) as store:
        reader = FleetReader(store)
        for _ in range(5):
            assert set(reader.refresh().entries) == {"acme"}
            store.get(catalogue_key("acme"))
        assert first.asked == 1
        assert second.asked > 9
        assert store.is_away(near)
        assert store.serving() not in (None, near)


def test_both_away_fails_at_once_and_keeps_the_fleet(home: Away, there: Away, near: Role) -> None:
    with reading(home, there, near) as store:
        reader = FleetReader(store)
        reader.refresh()
        home.down = there.down = True
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                reader.refresh()
        assert home.asked + there.asked < 8
        assert store.serving() is None


def test_a_store_that_comes_back_is_used_again(home: Away, there: Away, near: Role) -> None:
    first, second = pair(near, home, there)
    first.down = True
    with reading(home, there, near, probe_seconds=0.001) as store:
        store.get(FLEET_ROOT)
        first.probed.clear()
        assert first.probed.wait(WAIT)  # it is asked in the background, again and again
        assert store.serving() != near
        first.down = False
        for probe in store._probes:
            probe.join(WAIT)
        assert store.serving() == near
        before = second.asked
        store.get(FLEET_ROOT)
        assert second.asked == before


def test_the_fleet_does_not_go_back_while_the_copy_is_behind(home: Away, there: Away) -> None:
    with reading(home, there, "home", probe_seconds=0.001) as store:
        serve(home.kept, "acme", 2)
        reader = FleetReader(store)
        assert reader.refresh().generation == 2
        home.down = True
        assert reader.refresh().generation == 2  # the copy has 1
        home.down = False
        serve(home.kept, "acme", 3)
        bring(home, there)
        home.down = True
        assert reader.refresh().generation == 3
        assert reader.refresh().entries["acme"].version == made("acme", 3)[1].version


def test_a_fleet_that_was_restored_in_its_own_store_counts(home: Away, there: Away) -> None:
    with reading(home, there, "home") as store:
        reader = FleetReader(store)
        old = home.kept.get(FLEET_ROOT).data
        serve(home.kept, "acme", 2)
        assert reader.refresh().generation == 2
        home.kept.put(FLEET_ROOT, old)
        assert reader.refresh().generation == 1


def test_a_server_that_starts_in_an_outage_takes_what_there_is(home: Away, there: Away) -> None:
    serve(home.kept, "acme", 2)
    home.down = True
    with reading(home, there, "home") as store:
        assert FleetReader(store).refresh().generation == 1


def test_what_the_near_copy_does_not_have_yet_comes_from_home(home: Away, there: Away) -> None:
    serve(home.kept, "acme", 2)
    version = made("acme", 2)[1].version
    with reading(home, there, "copy") as store:
        assert store.get(model_key("acme", version, MANIFEST)).data == made("acme", 2)[1].to_bytes()
        assert store.open(model_key("acme", version, WEIGHTS)).read()
        with pytest.raises(ObjectNotFound):
            store.get(model_key("acme", "0" * 16, MANIFEST))
        # What changes in its place was not there when it was copied, and that is that.
        rename(home.kept, "beta", 1)
        before = home.asked
        with pytest.raises(ObjectNotFound):
            store.get(catalogue_key("beta"))
        assert home.asked == before


@pytest.mark.parametrize("key", [FLEET_ROOT, ACCESS_KEYS, model_key("acme", "0" * 16, MANIFEST)])
def test_that_a_copy_lacks_something_proves_nothing_while_home_is_away(home: Away, key: str) -> None:
    empty = Away(a_store("empty"))
    home.down = True
    with reading(home, empty, "copy") as store:
        with pytest.raises(StoreUnavailable, match="does not have it"):
            store.get(key)
        with pytest.raises(StoreUnavailable):
            store.get(key)
        with pytest.raises(ObjectNotFound):
            store.get(catalogue_key("acme"))


def test_an_empty_copy_is_no_fleet_without_tenants(home: Away) -> None:
    empty = Away(a_store("empty"))
    with reading(home, empty, "copy") as store:
        assert set(FleetReader(store).refresh().entries) == {"acme"}


def test_an_entity_tag_is_one_of_a_store(home: Away, there: Away, near: Role) -> None:
    first, _ = pair(near, home, there)
    with reading(home, there, near) as store:
        found = store.get(catalogue_key("acme"))
        assert store.get_if_changed(catalogue_key("acme"), found.etag) is None
        first.down = True
        again = store.get_if_changed(catalogue_key("acme"), found.etag)
        assert again is not None
        assert again.data == found.data
        assert store.get_if_changed(catalogue_key("acme"), again.etag) is None


def test_writes_go_home_whichever_is_near(home: Away, there: Away, near: Role) -> None:
    with reading(home, there, near) as store:
        before = there.asked
        store.put("lake/tenants/acme/feedback/x", b"1", if_absent=True)
        store.purge(store.states("lake/tenants/acme/feedback/x"))
        store.put("lake/tenants/acme/feedback/y", b"1")
        store.delete("lake/tenants/acme/feedback/y")
        assert there.asked == before
        home.down = True
        with pytest.raises(StoreUnavailable):
            store.put("lake/tenants/acme/feedback/x", b"1")
        assert store.url == home.kept.url


def test_a_deleted_tenant_does_not_come_back_from_a_copy(home: Away, there: Away) -> None:
    with reading(home, there, "home") as store:
        reader = FleetReader(store)
        reader.refresh()
        delete(home.kept, "acme")
        assert set(reader.refresh().entries) == set()
        home.down = True
        assert set(reader.refresh().entries) == set()
        assert read_root(there.kept).generation == 1


def test_closing_ends_the_asking(home: Away, there: Away) -> None:
    home.down = True
    with reading(home, there, "home", probe_seconds=0.001) as store:
        store.get(FLEET_ROOT)
        probes: list[threading.Thread] = list(store._probes)
    assert probes
    assert not any(probe.is_alive() for probe in probes)
