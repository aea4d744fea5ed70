"""What a collection deletes, keeps and reports; against a folder, a bucket and a bucket with versions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from registry.errors import InvalidInput, StoreError
from registry.fleet.control import pin, roll_back
from registry.fleet.state import FleetEntry, update_fleet
from registry.garbage.collecting import announced
from registry.garbage.retention import DAY, OLD, PARTIAL, Retention, divide
from registry.garbage.store_garbage import Collected, collect_garbage
from registry.layout import COLLECTION, LABELS, MANIFEST, PROVENANCE, WEIGHTS, collecting_key, model_key
from registry.publishing import record_provenance
from registry.settings import StoreSettings
from registry.store import ObjectState, ObjectStore, open_store
from registry.store.local import LocalStore
from tests.buckets import s3_client
from tests.registry.garbage_world import TENANT, is_whole, made, publish, serve, version, versions
from tests.registry.memory_store import MemoryStore

KEEP_ONE = Retention(keep=1)


@pytest.fixture(params=[False, True], ids=["bucket", "versioned bucket"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    return MemoryStore(versioned=request.param)


def collect(store: MemoryStore, retention: Retention = KEEP_ONE, **options: Any) -> Collected:
    return collect_garbage(store, retention=retention, clock=lambda: store.now, **options)


def whys(done: Collected) -> dict[str, tuple[str, ...]]:
    return {one.version: one.why for one in done.kept}


def gone(done: Collected) -> dict[str, str]:
    return {one.version: one.why for one in done.deleted}


def test_an_empty_store_has_no_garbage(store: MemoryStore) -> None:
    done = collect(store)
    assert (done.deleted, done.kept, done.objects, done.bytes, done.generation) == ((), (), 0, 0, 0)
    assert {state.key for state in store.states()} == {COLLECTION}


def test_what_nobody_needs_goes_and_all_else_stays_for_a_reason(store: MemoryStore) -> None:
    for number in range(5):
        publish(store, number)
        serve(store, number)
        store.now += DAY
    store.now += 8 * DAY
    publish(store, 5)
    publish(store, 6)
    store.put(model_key(TENANT, "a" * 16, WEIGHTS), b"1")
    record_provenance(store, tenant=TENANT, version=version(0), provenance={})
    store.now += 2 * DAY
    publish(store, 6)
    done = collect(store, Retention(keep=2))
    assert whys(done) == {
        version(3): ("served before",),
        version(4): ("serves",),
        version(5): ("one of the last 2",),
        version(6): ("one of the last 2", "young"),
    }
    assert gone(done) == {version(0): OLD, version(1): OLD, version(2): OLD, "a" * 16: PARTIAL}
    assert versions(store) == whys(done).keys()
    assert all(is_whole(store, one) for one in whys(done))
    assert done.objects == 4 + 3 + 3 + 1 + done.fleet_objects
    assert done.reasons() == {"serves": 1, "served before": 1, "one of the last 2": 2, "young": 1}
    again = collect(store, Retention(keep=2))
    assert (again.objects, whys(again)) == (0, whys(done))


def test_a_fleet_of_the_last_days_keeps_what_it_named(store: MemoryStore) -> None:
    for number in range(4):
        publish(store, number)
        serve(store, number)
    store.now += 2 * DAY
    assert gone(collect(store)) == {}
    store.now += 6 * DAY
    done = collect(store)
    assert gone(done) == {version(0): OLD, version(1): OLD}
    assert done.fleet_objects == 6, "three states of a shard, and three records"


def test_what_is_pinned_or_held_stays(store: MemoryStore) -> None:
    for number in range(3):
        publish(store, number)
        serve(store, number)
    pin(store, [TENANT])
    roll_back(store, [TENANT], to=version(0))
    store.now += 30 * DAY
    for number in range(3, 6):
        publish(store, number)
    store.now += 30 * DAY
    done = collect(store)
    assert whys(done) == {
        version(0): ("serves",),
        version(2): ("served before",),
        version(5): ("one of the last 1",),
    }


def test_what_runs_in_the_shadow_stays(store: MemoryStore) -> None:
    for number in range(3):
        publish(store, number)
        store.now += DAY
    entry = FleetEntry.model_validate({"shadow": version(0), "shadow_manifest": made(0)[1].digest})
    update_fleet(store, {TENANT: lambda _: entry})
    store.now += 30 * DAY
    assert whys(collect(store)) == {version(0): ("shadow",), version(2): ("one of the last 1",)}


def test_a_tenant_in_no_fleet_keeps_its_last_versions(store: MemoryStore) -> None:
    for number in range(3):
        publish(store, number)
        store.now += 2 * DAY
    assert whys(collect(store, Retention(keep=2))).keys() == {version(1), version(2)}


def test_published_again_is_published_last(store: MemoryStore) -> None:
    for number in (0, 1, 2, 0):
        publish(store, number)
        store.now += 2 * DAY
    assert whys(collect(store)).keys() == {version(0)}


def test_what_is_not_whole_is_none_of_the_last(store: MemoryStore) -> None:
    for number in range(3):
        publish(store, number)
        store.now += 2 * DAY
    store.delete(model_key(TENANT, version(2), WEIGHTS))
    store.now += 2 * DAY
    done = collect(store)
    assert whys(done).keys() == {version(1)}
    assert gone(done) == {version(0): OLD, version(2): PARTIAL}


def test_provenance_alone_is_garbage(store: MemoryStore) -> None:
    record_provenance(store, tenant=TENANT, version=version(0), provenance={})
    assert gone(collect(store)) == {}
    store.now += 2 * DAY
    assert gone(collect(store)) == {version(0): PARTIAL}
    assert versions(store) == set()


def test_nothing_else_is_touched(store: MemoryStore) -> None:
    others = [
        "programs/" + "a" * 64 + "/files.json",
        "tenants/acme/macros.json",
        "tenants/acme/settings.json",
        "tenants/acme/models/notes.txt",
        "tenants/acme/models/UPPER/weights.safetensors",
        "tenants/ACME/models/aaaaaaaaaaaaaaaa/weights.safetensors",
        "tenants/ACME/collecting.json",
        "lake/tenants/acme/examples.parquet",
        "access/keys.json",
        "fleet/notes.txt",
    ]
    for key in others:
        store.put(key, b"1")
    store.now += 100 * DAY
    assert collect(store).objects == 0
    assert {state.key for state in store.states()} == {*others, COLLECTION}


def test_a_dry_run_says_the_same_and_writes_nothing(store: MemoryStore) -> None:
    for number in range(4):
        publish(store, number)
        serve(store, number)
        store.now += 8 * DAY
    store.now += 8 * DAY
    before = set(store.states())
    planned = collect(store, dry_run=True)
    assert set(store.states()) == before
    done = collect(store)
    assert planned.dry_run
    assert not done.dry_run
    assert {**planned.as_dict(), "dry_run": False} == done.as_dict()
    assert done.objects


def test_the_clock_of_the_collectors_machine_may_be_wrong(store: MemoryStore) -> None:
    publish(store, 0)
    publish(store, 1)
    serve(store, 1)
    store.now += 30 * DAY
    publish(store, 2)
    publish(store, 3)
    for skew in (100 * DAY, -100 * DAY):
        done = collect_garbage(store, retention=KEEP_ONE, clock=lambda: store.now + skew)  # noqa: B023  # called now
        assert is_whole(store, version(2)), "it is a minute old"
        assert is_whole(store, version(1))
        assert gone(done) == ({version(0): OLD} if skew > 0 else {}), skew


def test_a_fleet_that_cannot_be_read_is_no_reason_to_delete(store: MemoryStore) -> None:
    for number in range(3):
        publish(store, number)
    serve(store, 0)
    store.now += 30 * DAY
    before = {state.key for state in store.states("tenants/")}
    store.put("fleet/root.json", b"{}")
    with pytest.raises(StoreError):
        collect(store)
    assert {state.key for state in store.states("tenants/")} == before


def test_a_tenant_that_another_collector_is_at_work_on_is_left_to_it(store: MemoryStore) -> None:
    publish(store, 0)
    publish(store, 1)
    store.now += 30 * DAY
    publish(store, 2)
    with announced(store, TENANT, [version(0)], now=lambda: store.now):
        done = collect(store)
    assert done.busy == (TENANT,)
    assert gone(done) == {}
    assert set(gone(collect(store))) == {version(0), version(1)}


def test_the_notice_of_a_collector_that_died_goes_even_where_nothing_is_garbage(store: MemoryStore) -> None:
    publish(store, 0)
    with pytest.raises(KeyboardInterrupt), announced(store, TENANT, [version(0)], now=lambda: store.now):
        raise KeyboardInterrupt
    store.now += 2 * DAY
    done = collect(store)
    assert (done.busy, gone(done)) == ((), {})
    assert list(store.states(collecting_key(TENANT))) == []


def test_progress_is_told(store: MemoryStore) -> None:
    publish(store, 0)
    publish(store, 1)
    store.now += 30 * DAY
    publish(store, 2)
    told: list[tuple[str, float]] = []
    collect(store, step=lambda text, share: told.append((text, share)))
    assert told == [("looking at the store", 0.0), ("deleting garbage", 1.0)]


def test_at_least_one_version_is_kept() -> None:
    with pytest.raises(InvalidInput):
        Retention(keep=0)


def test_division_is_by_age_of_any_part() -> None:
    def state(name: str, modified: float, kind: Any = "current") -> ObjectState:
        return ObjectState(key=f"tenants/a/models/v/{name}", kind=kind, size=1, modified=modified, id="1")

    old = [state(name, 0.0) for name in (WEIGHTS, LABELS, MANIFEST)]
    states = {
        "old": old,
        "resumed": [*old[:2], state(PROVENANCE, 99_000.0)],
        "uploading": [*old[:2], state(MANIFEST, 99_000.0, "unfinished")],
        "deleted": [*old, state(MANIFEST, 0.0, "marker")][:2],
        "last": [state(name, 1.0) for name in (WEIGHTS, LABELS, MANIFEST)],
    }
    kept, garbage = divide(states, named={}, retention=KEEP_ONE, now=100_000.0)
    assert {name: found.why for name, found in garbage.items()} == {"old": OLD, "deleted": PARTIAL}
    assert kept == {"resumed": ("young",), "uploading": ("young",), "last": ("one of the last 1",)}


# Real stores, whose clock is not ours: what counts as young or recent is shortened instead.

AT_ONCE = Retention(keep=1, young_seconds=-10.0, fleet_seconds=-10.0)


@pytest.fixture(params=["local", "s3", "versioned"])
def real_settings(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    if request.param == "local":
        return StoreSettings(url=str(tmp_path / "store"))
    found: StoreSettings = request.getfixturevalue(f"{request.param}_settings")
    return found


def test_a_real_store_is_collected_as_well(real_settings: StoreSettings) -> None:
    store: ObjectStore = open_store(real_settings)
    for number in range(4):
        publish(store, number)
        serve(store, number)
    store.delete(model_key(TENANT, version(0), MANIFEST))
    store.put(f"lake/tenants/{TENANT}/examples.parquet", b"1")
    give_up_a_write(real_settings)
    nothing = collect_garbage(store, retention=KEEP_ONE)
    assert nothing.objects == 0, "all of it is young"
    done = collect_garbage(store, retention=AT_ONCE)
    assert gone(done) == {version(0): PARTIAL, version(1): OLD}
    assert versions(store) == {version(2), version(3)}
    assert done.unfinished == 1
    assert done.bytes > 0
    kinds = {state.kind for state in store.states() if "/models/" in state.key or state.key.startswith("fleet/gen")}
    assert kinds == {"current"}
    assert not [state for state in store.states() if state.kind == "unfinished"]
    assert collect_garbage(store, retention=AT_ONCE).objects == 0
    publish(store, 0)
    assert is_whole(store, version(0))


def give_up_a_write(settings: StoreSettings) -> None:
    """Leave behind what a writer leaves that is killed in the middle of a lake."""
    if settings.endpoint_url is None:
        waiting = Path(settings.url) / ".tmp" / f"lake+tenants+{TENANT}+examples.parquet+0"
        waiting.write_bytes(b"1")
        return
    bucket, _, prefix = settings.url.removeprefix("s3://").partition("/")
    with s3_client(settings) as client:
        client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/lake/tenants/{TENANT}/examples.parquet")


def test_the_ages_of_files_are_what_counts_in_a_folder(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for number in range(3):
        publish(store, number)
    for path in tmp_path.glob(f"tenants/{TENANT}/models/{version(0)}/*"):
        os.utime(path, (1e9, 1e9))
    assert gone(collect_garbage(store, retention=KEEP_ONE)) == {version(0): OLD}
