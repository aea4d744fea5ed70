"""What the fleets of the last days named, told from the store alone."""

from __future__ import annotations

import pytest

from registry.errors import StoreError
from registry.fleet.at_rest import present_generation
from registry.fleet.history import PAST, FleetHistory, History, named_versions
from registry.fleet.state import FleetEntry, update_fleet
from registry.garbage.retention import DAY
from registry.layout import FLEET_PREFIX, fleet_shard, fleet_shard_key
from tests.registry.memory_store import Actor, MemoryStore, SteeredStore

WEEK = 7 * DAY


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(versioned=False)


def name(store: MemoryStore | SteeredStore, tenant: str, mark: str) -> None:
    """Have the fleet name one version of a tenant, and no other."""
    update_fleet(store, {tenant: lambda _: FleetEntry(version=mark * 16, manifest=mark * 64)})


def read(store: MemoryStore) -> History:
    return FleetHistory(store, seconds=WEEK, threads=1).read(store.now)


def named(store: MemoryStore, tenant: str = "acme") -> dict[str, str]:
    """Why each version is named, by the digit that it is made of."""
    return {version[0]: why for version, why in read(store).named.get(tenant, {}).items()}


def expired(store: MemoryStore) -> set[str]:
    return {state.key for state in read(store).expired}


def test_an_empty_store_has_no_history(store: MemoryStore) -> None:
    assert read(store) == History(generation=0, named={}, expired=[])


def test_what_was_replaced_counts_for_a_week_more(store: MemoryStore) -> None:
    name(store, "acme", "a")
    store.now += 30 * DAY
    name(store, "acme", "b")
    assert named(store) == {"a": PAST, "b": "serves"}
    store.now += WEEK
    assert named(store) == {"a": PAST, "b": "serves"}
    store.now += 1
    assert named(store) == {"b": "serves"}


def test_it_is_the_replacement_that_counts_and_not_the_age_of_the_next_state(store: MemoryStore) -> None:
    """A writer that crashed before the root leaves a state with the next number, days before a successor is named."""
    name(store, "acme", "a")
    crashed = Actor(store, lambda steered: name(steered, "acme", "b"))
    while not str(crashed.waits_for).startswith("put fleet/root"):
        crashed.step()
    crashed.kill()
    assert {state.key for state in store.states("fleet/shards/")} == {
        fleet_shard_key(fleet_shard("acme"), number) for number in (1, 2)
    }
    store.now += 30 * DAY
    assert named(store) == {"a": "serves"}
    name(store, "acme", "b")
    present = present_generation(store)
    assert present is not None
    assert present.shards == {fleet_shard("acme"): 2}, "the state of the crashed writer, which was the same"
    store.now += 6 * DAY
    assert named(store) == {"a": PAST, "b": "serves"}
    store.now += 2 * DAY
    assert named(store) == {"b": "serves"}


def test_writes_for_other_tenants_do_not_bring_back_what_was_left_behind(store: MemoryStore) -> None:
    name(store, "acme", "a")
    name(store, "acme", "b")
    for _ in range(10):
        store.now += DAY
        name(store, "globex", "c")
        name(store, "globex", "d")
    assert named(store) == {"b": "serves"}
    assert named(store, "globex") == {"c": PAST, "d": "serves"}


def test_a_fleet_that_was_written_again_and_again_within_the_window_counts_whole(store: MemoryStore) -> None:
    for mark in "abcdef":
        name(store, "acme", mark)
    store.now += DAY
    assert named(store) == dict.fromkeys("abcde", PAST) | {"f": "serves"}
    assert expired(store) == set()


def test_what_no_fleet_of_the_window_needs_has_expired(store: MemoryStore) -> None:
    for mark in "abc":
        name(store, "acme", mark)
    store.now += 8 * DAY
    shard = fleet_shard("acme")
    records = sorted(state.key for state in store.states("fleet/generations/"))
    assert [key.partition("-")[0] for key in records] == ["fleet/generations/1", "fleet/generations/2"]
    assert expired(store) == {fleet_shard_key(shard, 1), fleet_shard_key(shard, 2), *records}
    store.purge(read(store).expired)
    assert named(store) == {"c": "serves"}
    store.now += DAY
    name(store, "acme", "d")
    assert named(store) == {"c": PAST, "d": "serves"}, "and nothing is missing after that"


def test_a_state_on_its_way_into_the_fleet_does_not_expire(store: MemoryStore) -> None:
    name(store, "acme", "a")
    suspended = Actor(store, lambda steered: name(steered, "acme", "b"))
    while not str(suspended.waits_for).startswith("put fleet/root"):
        suspended.step()
    store.now += 30 * DAY
    store.purge(read(store).expired)
    suspended.finish()
    assert suspended.problem is None
    assert named(store) == {"a": PAST, "b": "serves"}


def test_without_records_every_state_counts(store: MemoryStore) -> None:
    """A fleet that an older release wrote."""
    for mark in "abc":
        name(store, "acme", mark)
    store.purge(list(store.states("fleet/generations/")))
    store.now += DAY
    assert named(store) == {"a": PAST, "b": PAST, "c": "serves"}
    assert expired(store) == set()
    name(store, "acme", "d")
    assert set(named(store)) == set("abcd"), "one record is not enough: nobody knows when the others were replaced"
    store.now += 8 * DAY
    assert named(store) == {"d": "serves"}
    assert len(expired(store)) == 4


def test_a_fleet_that_stood_for_the_whole_window_needs_no_records(store: MemoryStore) -> None:
    for mark in "abc":
        name(store, "acme", mark)
    store.purge(list(store.states("fleet/generations/")))
    store.now += 8 * DAY
    assert named(store) == {"c": "serves"}
    assert len(expired(store)) == 2


def test_an_older_root_put_back_in_place_does_not_hide_what_follows(store: MemoryStore) -> None:
    """Generations of two fleets then have the same numbers."""
    for mark in "abcd":
        name(store, "acme", mark)
        if mark == "b":
            old = store.get("fleet/root.json").data
    store.now += 30 * DAY
    store.put("fleet/root.json", old)
    assert named(store)["b"] == "serves"
    store.now += 30 * DAY
    name(store, "acme", "e")
    assert {"b", "e"} <= set(named(store))
    store.now += 6 * DAY
    name(store, "acme", "f")
    assert {"b", "e", "f"} <= set(named(store))


def test_a_gap_in_the_records_is_no_history(store: MemoryStore) -> None:
    for mark in "abcd":
        name(store, "acme", mark)
    (gap,) = store.states("fleet/generations/2-")
    store.purge([gap])
    assert set(named(store)) == set("abcd")
    store.now += 8 * DAY
    assert set(named(store)) == set("d"), "it lies before the window"


@pytest.mark.parametrize("prefix", ["fleet/generations/1-", "fleet/shards/", "fleet/root"])
def test_a_history_that_cannot_be_read_is_no_history(store: MemoryStore, prefix: str) -> None:
    name(store, "acme", "a")
    name(store, "acme", "b")
    damaged = next(state.key for state in store.states(prefix))
    store.put(damaged, b"{}")
    with pytest.raises(StoreError, match="is not valid"):
        read(store)


def test_a_state_that_is_gone_is_no_history(store: MemoryStore) -> None:
    name(store, "acme", "a")
    name(store, "acme", "b")
    store.purge(list(store.states(fleet_shard_key(fleet_shard("acme"), 1))))
    with pytest.raises(StoreError):
        read(store)


def test_a_second_reading_fetches_what_is_new(store: MemoryStore) -> None:
    name(store, "acme", "a")
    name(store, "globex", "b")
    read_keys: list[str] = []

    def work(steered: SteeredStore) -> None:
        history = FleetHistory(steered, seconds=WEEK, threads=1)
        first = history.read(store.now)
        assert history.read(store.now) is first
        steered.sleep(0)
        assert set(history.read(store.now).named["acme"]) == {"a" * 16, "c" * 16}

    reader = Actor(store, work)
    while reader.waits_for != "sleep":
        reader.step()
    name(store, "acme", "c")
    while reader.waits_for is not None:
        read_keys.append(reader.waits_for)
        reader.step()
    assert reader.problem is None
    shard = fleet_shard("acme")
    assert read_keys[:3] == ["sleep", "get fleet/root.json", f"states {FLEET_PREFIX}"]
    assert read_keys[3].startswith("get fleet/generations/2-")
    assert read_keys[4:] == [f"get {fleet_shard_key(shard, 2)}"]


def test_every_version_that_an_entry_names_counts_whatever_the_field() -> None:
    entry = FleetEntry.model_validate(
        {
            "version": "a" * 16,
            "manifest": "a" * 64,
            "previous": "b" * 16,
            "previous_manifest": "b" * 64,
            "reason": "c" * 15,
            "later": {"manifest": "d" * 64},
            "much_later": {"stages": [{"version": "e" * 16, "share": 0.1}], "f" * 16: True},
        }
    )
    assert {version[0]: why for version, why in named_versions(entry).items()} == {
        "a": "serves",
        "b": "served before",
        "d": "later",
        "e": "much_later",
        "f": "much_later",
    }
