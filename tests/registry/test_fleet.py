import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import PreconditionFailed, StoreError
from registry.fleet import Change, Fleet, FleetEntry, FleetReader, read_fleet, update_fleet
from registry.layout import FLEET_ROOT, fleet_shard, fleet_shard_key
from registry.settings import StoreSettings
from registry.store import ObjectStore, StoredObject, open_store
from registry.store.local import LocalStore


def entry(mark: str) -> FleetEntry:
    return FleetEntry(version=mark * 16, manifest=mark * 64)


def to(wanted: FleetEntry | None) -> Change:
    return lambda _: wanted


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return LocalStore(tmp_path / "store")


def test_a_store_without_a_fleet_has_an_empty_one(store: ObjectStore) -> None:
    fleet = read_fleet(store)
    assert (fleet.generation, dict(fleet.entries)) == (0, {})


def test_what_was_written_is_read(store: ObjectStore) -> None:
    assert update_fleet(store, {"acme": to(entry("a")), "globex": to(entry("b"))}) == 1
    assert update_fleet(store, {"acme": to(entry("c"))}) == 2
    assert read_fleet(store).entries == {"acme": entry("c"), "globex": entry("b")}


def test_an_update_that_changes_nothing_writes_nothing(store: ObjectStore) -> None:
    update_fleet(store, {"acme": to(entry("a"))})
    before = [info.key for info in store.list()]
    assert update_fleet(store, {"acme": lambda found: found}) == 1
    assert [info.key for info in store.list()] == before


def test_a_tenant_can_leave(store: ObjectStore) -> None:
    update_fleet(store, {"acme": to(entry("a"))})
    update_fleet(store, {"acme": to(None)})
    assert read_fleet(store).entries == {}


def test_fields_of_a_later_release_survive_a_rewrite(store: ObjectStore) -> None:
    later = FleetEntry.model_validate({"version": "a" * 16, "manifest": "a" * 64, "rollout": {"share": 0.1}})
    update_fleet(store, {"acme": to(later)})

    def change(found: FleetEntry | None) -> FleetEntry:
        assert found is not None
        return found.model_copy(update={"version": "b" * 16})

    update_fleet(store, {"acme": change})
    assert read_fleet(store).entries["acme"].model_dump()["rollout"] == {"share": 0.1}


@given(
    st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True), st.sampled_from("abcdef"), max_size=30)
)
def test_any_fleet_comes_back_whole(tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, str]) -> None:
    store = LocalStore(tmp_path_factory.mktemp("fleet"))
    update_fleet(store, {tenant: to(entry(mark)) for tenant, mark in wanted.items()})
    assert read_fleet(store).entries == {tenant: entry(mark) for tenant, mark in wanted.items()}


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_writers_at_once_lose_nothing(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store: ObjectStore
    if kind == "folder":
        store = LocalStore(tmp_path)
    else:
        settings: StoreSettings = request.getfixturevalue("s3_settings")
        store = open_store(settings)
    start = threading.Barrier(4)

    def write(number: int) -> None:
        start.wait()
        update_fleet(store, {f"tenant-{number}-{i}": to(entry("abcd"[number])) for i in range(3)})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    fleet = read_fleet(store)
    assert fleet.generation == 4
    assert len(fleet.entries) == 12


def test_a_reader_that_has_seen_everything_fetches_only_the_root(store: ObjectStore) -> None:
    update_fleet(store, {"acme": to(entry("a"))})
    watched = Watched(store)
    reader = FleetReader(watched)
    first = reader.refresh()
    watched.reads.clear()
    assert reader.refresh() is first
    assert set(watched.reads) == {FLEET_ROOT}
    other = next(f"t{i}" for i in range(1000) if fleet_shard(f"t{i}") != fleet_shard("acme"))
    update_fleet(store, {other: to(entry("b"))})
    watched.reads.clear()
    assert set(reader.refresh().entries) == {"acme", other}
    assert set(watched.reads) == {FLEET_ROOT, fleet_shard_key(fleet_shard(other), 1)}, "and the one shard that changed"


def test_a_reader_keeps_the_last_fleet_when_the_root_is_damaged(store: ObjectStore) -> None:
    update_fleet(store, {"acme": to(entry("a"))})
    reader = FleetReader(store)
    reader.refresh()
    store.put(FLEET_ROOT, b"{")
    with pytest.raises(StoreError, match=r"root\.json is not valid"):
        reader.refresh()
    update = Fleet(1, {"acme": entry("a")})
    assert update.serving() == {"acme": entry("a")}


def test_a_retry_refused_by_ones_own_success_is_success(store: ObjectStore) -> None:
    update_fleet(store, {"acme": to(entry("a").model_copy(update={"previous": "b" * 16}))})
    lossy = LosesAnswers(store)

    def swap(found: FleetEntry | None) -> FleetEntry:
        """A roll-back: applied twice it is undone, so a success that is not recognised shows."""
        assert found is not None
        return found.model_copy(update={"version": found.previous, "previous": found.version})

    assert update_fleet(lossy, {"acme": swap}) == 2
    assert lossy.lost == 1
    rolled_back = read_fleet(store).entries["acme"]
    assert (rolled_back.version, rolled_back.previous) == ("b" * 16, "a" * 16)


def test_a_crash_between_shard_and_root_leaves_the_old_fleet_and_a_rerun_finishes(store: ObjectStore) -> None:
    update_fleet(store, {"acme": to(entry("a"))})
    with pytest.raises(Crash):
        update_fleet(Crashes(store), {"acme": to(entry("b"))})
    assert read_fleet(store).entries == {"acme": entry("a")}
    update_fleet(store, {"acme": to(entry("c"))})
    assert read_fleet(store).entries == {"acme": entry("c")}


class Watched(LocalStore):
    """Counts what is read."""

    def __init__(self, store: ObjectStore) -> None:
        assert isinstance(store, LocalStore)
        super().__init__(Path(store.url.removeprefix("file://")))
        self.reads: list[str] = []

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        self.reads.append(key)
        return super().get(key, max_bytes=max_bytes)

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        self.reads.append(key)
        return super().get_if_changed(key, etag, max_bytes=max_bytes)


class LosesAnswers(Watched):
    """Takes the first write of the root, and answers as a retry of it would be answered."""

    lost = 0

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        etag = super().put(key, data, if_match=if_match, if_absent=if_absent)
        if key == FLEET_ROOT and not self.lost:
            self.lost += 1
            raise PreconditionFailed("the object exists")
        return etag


class Crash(Exception):
    pass


class Crashes(Watched):
    """Ends before the root is written."""

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        if key == FLEET_ROOT:
            raise Crash
        return super().put(key, data, if_match=if_match, if_absent=if_absent)
