import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import PreconditionFailed, PublishConflict, StoreError
from registry.fleet.state import (
    Change,
    Fleet,
    FleetEntry,
    FleetReader,
    PreloadPlan,
    TenantLimits,
    edit_fleet,
    in_threads,
    read_fleet,
    update_fleet,
)
from registry.layout import FLEET_ROOT, fleet_shard, fleet_shard_key
from registry.settings import StoreSettings
from registry.store import ObjectStore, StoredObject, open_store
from registry.store.failover import FailoverStore
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
    later = FleetEntry.model_validate({"version": "a" * 16, "manifest": "a" * 64, "regions": {"share": 0.1}})
    update_fleet(store, {"acme": to(later)})

    def change(found: FleetEntry | None) -> FleetEntry:
        assert found is not None
        return found.model_copy(update={"version": "b" * 16})

    update_fleet(store, {"acme": change})
    assert read_fleet(store).entries["acme"].model_dump()["regions"] == {"share": 0.1}


@settings(deadline=None)
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


def test_pins_limits_and_holds_come_back(store: ObjectStore) -> None:
    full = FleetEntry(
        version="a" * 16,
        manifest="a" * 64,
        previous="b" * 16,
        previous_manifest="b" * 64,
        keep_loaded=True,
        hold_version=True,
        limits=TenantLimits(concurrency=4, requests_per_second=1.5),
    )
    update_fleet(store, {"acme": to(full)})
    assert read_fleet(store).entries == {"acme": full}


PLANS = [
    PreloadPlan(models="all"),
    PreloadPlan(models="pinned"),
    PreloadPlan(models="share"),
    PreloadPlan(models="none"),
    PreloadPlan(models="top", top=10),
    PreloadPlan(models="bytes", bytes=10**12),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.models)
def test_a_preload_plan_is_written_kept_and_taken_away(store: ObjectStore, plan: PreloadPlan) -> None:
    assert update_fleet(store, {}, preload=plan) == 1
    assert update_fleet(store, {}, preload=plan) == 1, "nothing differs"
    assert update_fleet(store, {"acme": to(entry("a"))}) == 2
    assert read_fleet(store).preload == plan, "a write of entries leaves it"
    assert update_fleet(store, {"acme": to(entry("b"))}, preload=None) == 3, "both in one write"
    fleet = read_fleet(store)
    assert (fleet.preload, dict(fleet.entries)) == (None, {"acme": entry("b")})


@pytest.mark.parametrize(
    "plan",
    [
        {"models": "top"},
        {"models": "bytes"},
        {"models": "all", "top": 1},
        {"models": "top", "top": 1, "bytes": 1},
        {"models": "bytes", "top": 1},
        {"models": "top", "top": 0},
        {"models": "bytes", "bytes": 0},
        {"models": "some"},
        {},
    ],
    ids=str,
)
def test_a_plan_has_exactly_its_own_bound(store: ObjectStore, plan: dict[str, object]) -> None:
    store.put(FLEET_ROOT, json.dumps({"generation": 1, "shards": {}, "preload": plan}).encode())
    with pytest.raises(StoreError, match=r"root\.json is not valid: preload"):
        read_fleet(store)


@pytest.mark.parametrize(
    ("root", "why"),
    [
        ({"generation": -1, "shards": {}}, "is not valid: generation"),
        ({"generation": 1, "shards": {"00": 0}}, "is not valid: shards"),
        ({"generation": 1, "shards": {"zz": 1}}, "is not valid: shards"),
        ({"generation": 1, "shards": {}, "format": 2}, "has format 2, and this release of macrofleet reads up to 1"),
    ],
)
def test_a_root_that_makes_no_sense_is_refused(store: ObjectStore, root: dict[str, object], why: str) -> None:
    store.put(FLEET_ROOT, json.dumps(root).encode())
    with pytest.raises(StoreError, match=rf"root\.json {why}"):
        read_fleet(store)
    with pytest.raises(StoreError, match=rf"root\.json {why}"):
        update_fleet(store, {"acme": to(entry("a"))})


def test_a_root_of_endless_depth_is_refused(store: ObjectStore) -> None:
    store.put(FLEET_ROOT, b"[" * 100_000)
    with pytest.raises(StoreError, match=r"root\.json is not valid"):
        read_fleet(store)
    failover = FailoverStore(store, store, near="home")
    assert failover.get(FLEET_ROOT).data == b"[" * 100_000
    failover.close()


@pytest.mark.parametrize(
    "value",
    [
        {"limits": {"concurrency": 0}},
        {"limits": {"concurrency": 1.5}},
        {"limits": {"requests_per_second": 0}},
        {"limits": {"requests_per_second": "fast"}},
        {"limits": 5},
        {"keep_loaded": "perhaps"},
        {"hold_version": None},
        {"version": "../../x"},
        {"lease_token": -1},
        {"previous_manifest": "b"},
    ],
    ids=str,
)
def test_an_entry_that_makes_no_sense_is_refused(store: ObjectStore, value: dict[str, object]) -> None:
    put_fleet(store, {"tenants": {"acme": value}})
    with pytest.raises(StoreError, match=r"1\.json is not valid: tenants\.acme\." + next(iter(value))):
        read_fleet(store)


def put_fleet(store: ObjectStore, shard: dict[str, object], **root: object) -> None:
    """A fleet of one shard, as some other release wrote it."""
    name = fleet_shard("acme")
    store.put(fleet_shard_key(name, 1), json.dumps(shard).encode())
    store.put(FLEET_ROOT, json.dumps({"generation": 1, "shards": {name: 1}, **root}).encode())


def stored(store: ObjectStore) -> tuple[dict[str, Any], dict[str, Any]]:
    """The root, and acme's entry, as they lie in the store."""
    root = json.loads(store.get(FLEET_ROOT).data)
    shard = fleet_shard("acme")
    entries = json.loads(store.get(fleet_shard_key(shard, root["shards"][shard])).data)["tenants"]
    return root, entries["acme"]


def test_what_a_later_release_wrote_survives_a_rewrite_at_every_depth(store: ObjectStore) -> None:
    later = {"version": "a" * 16, "manifest": "a" * 64, "mirror": {"to": "b"}, "limits": {"concurrency": 2, "bytes": 9}}
    plan = {"models": "top", "top": 3, "window_days": 7}
    put_fleet(store, {"tenants": {"acme": later}}, preload=plan, regions=["eu"])

    def change(found: FleetEntry | None) -> FleetEntry:
        assert found is not None
        assert found.limits is not None
        limits = found.limits.model_copy(update={"requests_per_second": 1.0})
        return found.published("b" * 16, "b" * 64, token=0).model_copy(update={"limits": limits})

    update_fleet(store, {"acme": change})
    root, acme = stored(store)
    assert root["regions"] == ["eu"]
    assert plan.items() <= root["preload"].items()
    assert (acme["mirror"], acme["limits"]) == ({"to": "b"}, {"concurrency": 2, "requests_per_second": 1.0, "bytes": 9})
    assert acme["version"] == "b" * 16


def test_a_fleet_without_the_newer_fields_is_read(store: ObjectStore) -> None:
    put_fleet(store, {"format": 1, "tenants": {"acme": {"version": "a" * 16, "manifest": "a" * 64, "previous": None}}})
    fleet = read_fleet(store)
    assert (fleet.preload, fleet.entries["acme"]) == (None, entry("a"))


def test_a_published_version_serves_and_remembers_the_one_before() -> None:
    pinned = FleetEntry(reason="too few examples", keep_loaded=True, limits=TenantLimits(concurrency=2))
    first = pinned.published("a" * 16, "a" * 64, token=0)
    assert (first.version, first.manifest, first.previous, first.previous_manifest) == ("a" * 16, "a" * 64, None, None)
    assert (first.reason, first.keep_loaded, first.limits) == (None, True, TenantLimits(concurrency=2))
    second = first.published("b" * 16, "b" * 64, token=0)
    assert (second.version, second.previous, second.previous_manifest) == ("b" * 16, "a" * 16, "a" * 64)
    assert second.published("b" * 16, "b" * 64, token=0) is second, "the same again is nothing new"


def test_who_was_replaced_meanwhile_publishes_nothing() -> None:
    newer = FleetEntry().published("b" * 16, "b" * 64, token=5)
    assert (newer.version, newer.lease_token) == ("b" * 16, 5)
    assert newer.published("a" * 16, "a" * 64, token=4) is newer
    assert newer.published("b" * 16, "b" * 64, token=4) is newer
    again = newer.published("b" * 16, "b" * 64, token=6)
    assert again == newer.model_copy(update={"lease_token": 6}), "the same again is later all the same"
    assert again.published("a" * 16, "a" * 64, token=5) is again


@pytest.mark.parametrize("held", [False, True])
def test_what_operators_do_needs_no_lease_and_keeps_the_token(held: bool) -> None:
    published = FleetEntry(hold_version=held).published("b" * 16, "b" * 64, token=5)
    assert published.serves is not held
    moved = published.with_version("a" * 16, "a" * 64)
    assert (moved.version, moved.lease_token) == ("a" * 16, 5)


def test_a_held_version_is_not_published_over() -> None:
    held = entry("a").model_copy(update={"hold_version": True, "previous": "c" * 16})
    assert held.published("b" * 16, "b" * 64, token=0) is held
    moved = held.with_version("b" * 16, "b" * 64)
    assert (moved.version, moved.previous, moved.hold_version) == ("b" * 16, "a" * 16, True)


@pytest.mark.parametrize("wrong", [None, "a" * 16 + "b" * 48])
def test_a_version_whose_manifest_was_mended_is_not_its_own_previous_one(wrong: str | None) -> None:
    mended = FleetEntry(version="a" * 16, manifest=wrong, previous="b" * 16).with_version("a" * 16, "a" * 64)
    assert (mended.manifest, mended.previous) == ("a" * 64, "b" * 16)


def test_a_plan_and_entries_written_at_once_both_survive(store: ObjectStore) -> None:
    update_fleet(store, {"acme": to(entry("a"))}, preload=PLANS[0])
    racing = LosesRace(store, lambda: update_fleet(store, {"acme": to(entry("b")), "new": to(entry("c"))}))
    assert update_fleet(racing, {}, preload=PLANS[3]) == 3
    fleet = read_fleet(store)
    assert (fleet.preload, dict(fleet.entries)) == (PLANS[3], {"acme": entry("b"), "new": entry("c")})

    racing = LosesRace(store, lambda: update_fleet(store, {}, preload=PLANS[4]))
    assert update_fleet(racing, {"acme": to(entry("d"))}) == 5
    fleet = read_fleet(store)
    assert (fleet.preload, fleet.entries["acme"]) == (PLANS[4], entry("d"))


def test_what_did_not_change_is_neither_read_nor_written_again_after_a_lost_race(store: ObjectStore) -> None:
    mine, theirs = "acme", next(f"t{i}" for i in range(1000) if fleet_shard(f"t{i}") != fleet_shard("acme"))
    update_fleet(store, {mine: to(entry("a")), theirs: to(entry("a"))})
    racing = LosesRace(store, lambda: update_fleet(store, {theirs: to(entry("b"))}))
    update_fleet(racing, {mine: to(entry("c"))})
    shard = fleet_shard(mine)
    assert racing.reads.count(fleet_shard_key(shard, 1)) == 1
    assert racing.writes.count(fleet_shard_key(shard, 2)) == 1
    assert read_fleet(store).entries == {mine: entry("c"), theirs: entry("b")}


def test_two_writers_of_one_shard_both_survive_a_lost_race(store: ObjectStore) -> None:
    mine = "acme"
    theirs = next(f"t{i}" for i in range(10_000) if fleet_shard(f"t{i}") == fleet_shard(mine))
    update_fleet(store, {mine: to(entry("a")), theirs: to(entry("a"))})
    racing = LosesRace(store, lambda: update_fleet(store, {theirs: to(entry("b"))}))
    update_fleet(racing, {mine: to(entry("c"))})
    assert read_fleet(store).entries == {mine: entry("c"), theirs: entry("b")}


def test_a_write_at_once_with_one_that_is_not_there_yet_is_tried_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amazon's 409 to one of two conditional writes of a key, when the other one is not done."""
    put = type(store).put
    refused: list[str] = []

    def conflict(self: ObjectStore, key: str, data: bytes, **condition: Any) -> str:
        if "/shards/" in key and not refused:
            refused.append(key)
            raise PreconditionFailed("at the same time")
        return put(self, key, data, **condition)

    monkeypatch.setattr(type(store), "put", conflict)
    update_fleet(store, {"acme": to(entry("a"))})
    assert refused
    assert read_fleet(store).entries == {"acme": entry("a")}


def test_a_writer_that_always_loses_says_so(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.fleet.state.time.sleep", lambda _: None)
    marks = iter("bc" * 20)
    racing = LosesRace(store, lambda: update_fleet(store, {"other": to(entry(next(marks)))}), times=100)
    with pytest.raises(PublishConflict, match="kept changing under this writer"):
        update_fleet(racing, {"acme": to(entry("a"))})
    assert set(read_fleet(store).entries) == {"other"}


def test_an_edit_that_refuses_leaves_the_store_as_it_was(store: ObjectStore) -> None:
    update_fleet(store, {"acme": to(entry("a"))})
    before = [info.key for info in store.list()]

    def refuse(_: object) -> dict[str, FleetEntry | None]:
        raise StoreError("no")

    with pytest.raises(StoreError, match="no"):
        edit_fleet(store, ["acme", "new"], refuse, preload=PLANS[0])
    assert [info.key for info in store.list()] == before


def test_an_edit_says_what_it_found_and_left_and_can_only_be_tried(store: ObjectStore) -> None:
    update_fleet(store, {"acme": to(entry("a")), "same": to(entry("b"))}, preload=PLANS[0])
    before = [info.key for info in store.list()]
    wanted: dict[str, FleetEntry | None] = {"acme": None, "new": entry("c")}
    for write in (False, True):
        edited = edit_fleet(store, ["acme", "same", "new"], lambda _: wanted, preload=None, write=write)
        assert edited.before == {"acme": entry("a"), "same": entry("b"), "new": None}
        assert edited.after == {"acme": None, "same": entry("b"), "new": entry("c")}
        assert (edited.preload_before, edited.preload_after) == (PLANS[0], None)
        assert edited.changed() == ["acme", "new"]
        assert edited.generation == (2 if write else 1)
        assert ([info.key for info in store.list()] == before) is not write
    assert read_fleet(store).entries == {"same": entry("b"), "new": entry("c")}


def test_a_reader_whose_read_failed_half_way_reads_the_rest_later(store: ObjectStore) -> None:
    update_fleet(store, {f"t{i}": to(entry("a")) for i in range(40)})
    failing = FailsOnce(store)
    reader = FleetReader(failing)
    with pytest.raises(StoreError, match="once"):
        reader.refresh()
    assert len(reader.refresh().entries) == 40


@pytest.mark.parametrize("threads", [1, 4])
def test_work_in_threads_keeps_its_order_and_passes_failures_on(threads: int) -> None:
    assert in_threads(lambda n: n * n, range(20), threads=threads) == [n * n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda n: 1 // n, [1, 0, 1], threads=threads)


class Watched(LocalStore):
    """Counts what is read and written."""

    def __init__(self, store: ObjectStore) -> None:
        assert isinstance(store, LocalStore)
        super().__init__(Path(store.url.removeprefix("file://")))
        self.reads: list[str] = []
        self.writes: list[str] = []

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        self.reads.append(key)
        return super().get(key, max_bytes=max_bytes)

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        self.reads.append(key)
        return super().get_if_changed(key, etag, max_bytes=max_bytes)

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        self.writes.append(key)
        return super().put(key, data, if_match=if_match, if_absent=if_absent)


class LosesRace(Watched):
    """Lets another writer in just before a write of the root."""

    def __init__(self, store: ObjectStore, other: Callable[[], object], *, times: int = 1) -> None:
        super().__init__(store)
        self._other = other
        self._left = times

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        if key == FLEET_ROOT and self._left:
            self._left -= 1
            self._other()
        return super().put(key, data, if_match=if_match, if_absent=if_absent)


class FailsOnce(Watched):
    """Fails at one shard, once."""

    failed = False

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        if key == fleet_shard_key(fleet_shard("t7"), 1) and not self.failed:
            self.failed = True
            raise StoreError("once")
        return super().get(key, max_bytes=max_bytes)


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
