"""A copy of a store is whole at any moment, never goes back, and ends as its source is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import macrofleet
from registry.errors import BundleCorrupt, InvalidInput, MacrofleetError, ModelNotFound
from registry.fleet.at_rest import read_root
from registry.fleet.state import FleetEntry, read_fleet, update_fleet
from registry.garbage.retention import DAY, Retention
from registry.garbage.store_garbage import collect_garbage
from registry.keys.published import PublishedKeys
from registry.layout import (
    ACCESS_KEYS,
    COPY_DOCUMENTS,
    COPY_MARK,
    FLEET_ROOT,
    LABELS,
    MANIFEST,
    WEIGHTS,
    catalogue_key,
    examples_key,
    fleet_shard,
    model_key,
    tenant_settings_key,
)
from registry.publishing import publish_bundle
from registry.regions.copying import Copied, copy_region
from registry.regions.marks import promote, read_mark
from registry.store import ObjectInfo, ObjectStore
from registry.store.local import LocalStore
from tests.registry.memory_store import Killed, MemoryStore
from tests.registry.region_world import (
    TENANTS,
    Watched,
    a_store,
    bring_back,
    complaints,
    delete,
    made,
    rename,
    serve,
    traces,
)


def _set(store: ObjectStore, tenant: str, number: int) -> None:
    store.put(tenant_settings_key(tenant), json.dumps({"seed": number}).encode())


Action = tuple[str, str, int]
ACTIONS: dict[str, Callable[[ObjectStore, str, int], None]] = {
    "serve": serve,
    "rename": rename,
    "delete": lambda store, tenant, _: delete(store, tenant),
    "bring back": lambda store, tenant, _: bring_back(store, tenant),
    "set": _set,
}


def copy(source: object, destination: object, **more: object) -> Copied:
    return copy_region(source, destination, threads=1, sleep=lambda _: None, **more)  # type: ignore[arg-type]


@pytest.fixture
def home() -> MemoryStore:
    store = a_store("home")
    for tenant in TENANTS[:2]:
        serve(store, tenant, 1)
    return store


def same(home: MemoryStore, there: MemoryStore) -> None:
    """What a reader of the one finds is what a reader of the other finds."""
    assert read_root(there).data == read_root(home).data
    assert complaints(there) == []
    found, expected = read_fleet(there), read_fleet(home)
    assert (found.generation, found.entries) == (expected.generation, expected.entries)
    for tenant in TENANTS:
        for key in (catalogue_key(tenant), tenant_settings_key(tenant)):
            assert there._find(key) == home._find(key)


def test_a_copy_serves_what_its_source_does(home: MemoryStore) -> None:
    there = a_store("there")
    update_fleet(home, {"gamma": lambda _: FleetEntry(reason="too few tickets")})
    home.put(ACCESS_KEYS, PublishedKeys(source="c" * 32, generation=4, keys=()).to_bytes())
    home.put(examples_key("acme"), b"tickets")
    done = copy(home, there)
    assert (done.generation, done.before, done.models, done.missing) == (3, 0, 2, ())
    same(home, there)
    assert there._find(ACCESS_KEYS) == home._find(ACCESS_KEYS)
    # Tickets stay where they are.
    assert there._find(examples_key("acme")) is None
    mark = read_mark(there)
    assert mark is not None
    assert (mark.source, mark.generation) == (home.url, 3)


def test_what_is_there_is_not_copied_again(home: MemoryStore) -> None:
    there = a_store("there")
    copy(home, there)
    written: list[str] = []
    there.on_put = written.append
    done = copy(home, there)
    assert (done.models, done.documents, done.removed, done.generation) == (0, 0, 0, done.before)
    assert written == [COPY_MARK]
    written.clear()
    serve(home, "acme", 2)
    assert copy(home, there).models == 1
    assert not [key for key in written if "beta" in key or key.startswith("programs/")]
    # The claim of what is named again, not its weights.
    old = made("acme", 1)[1].version
    assert not [key for key in written if old in key and key.endswith(WEIGHTS)]
    same(home, there)


def test_models_come_before_the_fleet_and_the_root_last_of_it(home: MemoryStore) -> None:
    there = a_store("there")
    written: list[str] = []
    there.on_put = written.append
    copy(home, there)
    place = written.index(FLEET_ROOT)
    assert all(key.startswith("copy/") for key in written[place + 1 :])
    manifest = next(n for n, key in enumerate(written) if key.endswith("manifest.json") and "acme" in key)
    files = [n for n, key in enumerate(written) if key.endswith((WEIGHTS, LABELS)) and "/acme/models/" in key]
    assert max(files) < manifest < place
    assert written[0] == COPY_MARK


def test_a_tenant_that_was_deleted_leaves_nothing_there(home: MemoryStore) -> None:
    there = a_store("there", versioned=True)
    home.put(tenant_settings_key("acme"), b'{"precision": 0.9}')
    copy(home, there)
    serve(home, "acme", 2)
    serve(home, "beta", 2)
    copy(home, there)
    assert traces(there, "acme")
    delete(home, "acme")
    assert copy(home, there).tenants_removed == ("acme",)
    assert traces(there, "acme") == []
    same(home, there)
    bring_back(home, "acme")
    copy(home, there)
    same(home, there)


def test_documents_that_the_source_has_no_longer_go(home: MemoryStore) -> None:
    there = a_store("there")
    home.put(tenant_settings_key("acme"), b"{}")
    copy(home, there)
    assert there._find(tenant_settings_key("acme"))
    home.delete(tenant_settings_key("acme"))
    update_fleet(home, {"acme": lambda _: None})
    assert copy(home, there).removed == 1
    assert there._find(tenant_settings_key("acme")) is None


def test_an_older_source_is_refused(home: MemoryStore) -> None:
    there = a_store("there")
    serve(home, "acme", 2)
    copy(home, there)
    restored = a_store("home")
    serve(restored, "acme", 1)
    before = dict(there._kept)
    with pytest.raises(InvalidInput, match="only 1"):
        copy(restored, there)
    assert there._kept == before
    assert copy(restored, there, adopt=True).generation == 1
    same(restored, there)


def test_another_fleet_of_the_same_generation_is_refused(home: MemoryStore) -> None:
    there = a_store("there")
    copy(home, there)
    other = a_store("home")
    for tenant in ("beta", "gamma"):
        serve(other, tenant, 3)
    with pytest.raises(InvalidInput, match="another 2"):
        copy(other, there)


@pytest.mark.parametrize("marked", [True, False])
def test_a_store_that_is_no_copy_of_this_one_is_left_alone(home: MemoryStore, *, marked: bool) -> None:
    there = a_store("there")
    other = a_store("other")
    serve(other, "gamma", 1)
    if marked:
        copy(other, there)
    else:
        serve(there, "gamma", 1)
    before = dict(there._kept)
    with pytest.raises(InvalidInput, match="a copy of memory://other" if marked else "a fleet of its own"):
        copy(home, there)
    assert there._kept == before
    copy(home, there, adopt=True)
    same(home, there)


@pytest.mark.parametrize("after", [True, False])
def test_adopting_that_is_killed_is_finished_without_a_word_more(home: MemoryStore, *, after: bool) -> None:
    """The fleet that goes has shard states of the same numbers: half of one and half of the other would be no fleet."""
    for number in range(3):
        serve(home, "gamma", number + 1)
    for death in count(1):
        there = a_store("there")
        for place, tenant in enumerate(TENANTS):
            serve(there, tenant, 5 + place)
        try:
            copy(home, Watched(there, dies=(death, after)), adopt=True)
        except Killed:
            if death > 1 or after:  # it has said whose copy it is
                copy(home, Watched(there, wrote=partial(_whole_or_none, home, there)))
                same(home, there)
        else:
            assert death > 5
            return


def _whole_or_none(home: MemoryStore, there: MemoryStore) -> None:
    mark = read_mark(there)
    if (root := read_root(there)).data and mark is not None and mark.replaces != "fleet":
        assert root.data == read_root(home).data
        assert complaints(there) == []


def test_wrong_ways_are_refused(home: MemoryStore) -> None:
    there = a_store("there")
    with pytest.raises(InvalidInput, match="no fleet to copy"):
        copy(a_store("empty"), there)
    copy(home, there)
    with pytest.raises(InvalidInput, match="itself a copy"):
        copy(there, a_store("third"))
    with pytest.raises(InvalidInput, match="a copy of itself"):
        copy(home, home)


def test_a_promoted_copy_is_a_home(home: MemoryStore) -> None:
    there = a_store("there")
    copy(home, there)
    assert promote(there).source == home.url
    with pytest.raises(InvalidInput, match="no copy"):
        promote(there)
    with pytest.raises(InvalidInput, match="a fleet of its own"):
        copy(home, there)
    serve(there, "acme", 5)  # trained there from now on
    serve(home, "acme", 9)  # what the old home still did before it was lost
    copy(there, home, adopt=True)
    same(there, home)


def test_a_copy_that_is_promoted_meanwhile_gets_no_mark(home: MemoryStore) -> None:
    there = a_store("there")
    copy(home, there)
    serve(home, "acme", 2)

    def promoted() -> None:
        if there._find(FLEET_ROOT) == home._find(FLEET_ROOT) and there._find(COPY_MARK):
            promote(there)

    with pytest.raises(InvalidInput, match="was promoted"):
        copy(home, Watched(there, wrote=promoted))
    assert read_mark(there) is None


def test_a_copy_that_was_promoted_is_written_by_its_own_people_alone(home: MemoryStore) -> None:
    """It takes hours to copy a large fleet's models; what is known of catalogues and keys by then is the new home's."""
    there = a_store("there")
    copy(home, there)
    serve(home, "acme", 2)
    rename(home, "acme", 8)

    def promoted() -> None:
        if there._find(model_key("acme", made("acme", 2)[1].version, MANIFEST)) and read_mark(there):
            promote(there)
            rename(there, "acme", 9)

    before = read_root(there).data
    with pytest.raises(InvalidInput, match="was promoted"):
        copy(home, Watched(there, wrote=promoted))
    assert b"Macro 9" in there.get(catalogue_key("acme")).data
    assert read_root(there).data == before


def test_a_source_that_lacks_what_it_serves_is_not_followed(home: MemoryStore) -> None:
    there = a_store("there")
    copy(home, there)
    generation = read_root(there).generation
    serve(home, "acme", 2)
    home.delete(model_key("acme", made("acme", 2)[1].version, WEIGHTS))
    with pytest.raises(ModelNotFound, match=r"lacks tenants/acme/models"):
        copy(home, there)
    home.put(model_key("acme", made("acme", 2)[1].version, WEIGHTS), b"x" * 10)
    with pytest.raises(MacrofleetError, match="is not what its manifest says"):
        copy(home, there)
    assert read_root(there).generation == generation
    assert complaints(there) == []
    serve_again = made("acme", 2)[0] / WEIGHTS
    home.put(model_key("acme", made("acme", 2)[1].version, WEIGHTS), serve_again.read_bytes())
    copy(home, there)
    same(home, there)


def test_what_nobody_is_served_may_be_missing(home: MemoryStore) -> None:
    there = a_store("there")
    update_fleet(home, {"acme": _with_candidate})
    done = copy(home, there)
    assert (done.missing, done.damaged, done.whole) == ((f"acme {'9' * 16}",), (), False)
    same(home, there)


@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST])
def test_what_nobody_is_served_may_be_damaged(home: MemoryStore, name: str) -> None:
    there = a_store("there")
    update_fleet(home, {"acme": _with_shadow(home)})
    shadow = made("acme", 2)[1].version
    home.put(model_key("acme", shadow, name), b"x" * 10)
    serve(home, "beta", 2)
    done = copy(home, there)
    assert [what.split(":")[0] for what in done.damaged] == [f"acme {shadow}"]
    assert (done.missing, done.whole) == ((), False)
    same(home, there)
    # Nothing of it is there, so that nobody takes it for whole.
    assert not list(there.list(model_key("acme", shadow, "")))
    # Mended where it lies, it comes with a look at everything.
    home.put(model_key("acme", shadow, name), (made("acme", 2)[0] / name).read_bytes())
    assert copy(home, there, everything=True).whole
    assert there.head(model_key("acme", shadow, WEIGHTS))


def _with_shadow(store: ObjectStore, number: int = 2) -> Callable[[FleetEntry | None], FleetEntry]:
    folder, manifest = made("acme", number)
    publish_bundle(store, folder, tenant="acme")

    def edit(entry: FleetEntry | None) -> FleetEntry:
        assert entry is not None
        return entry.model_copy(update={"shadow": manifest.version, "shadow_manifest": manifest.digest})

    return edit


def test_what_one_is_served_and_is_damaged_keeps_the_fleet_and_nothing_else(home: MemoryStore) -> None:
    there = a_store("there")
    copy(home, there)
    generation = read_root(there).generation
    for tenant in TENANTS:
        serve(home, tenant, 2)
    for tenant in TENANTS[:2]:
        home.put(model_key(tenant, made(tenant, 2)[1].version, WEIGHTS), b"x" * 10)
    delete(home, "nobody")
    rename(home, "acme", 5)
    keys = PublishedKeys(source="c" * 32, generation=5, keys=()).to_bytes()
    home.put(ACCESS_KEYS, keys)
    with pytest.raises(BundleCorrupt, match=r"2 tenants serve what is not whole .*acme: .*; beta: "):
        copy(home, there)
    assert read_root(there).generation == generation
    assert complaints(there) == []
    # A key that was revoked, above all, is not one there any more.
    assert there.get(ACCESS_KEYS).data == keys
    assert there._find(catalogue_key("acme")) == home._find(catalogue_key("acme"))
    assert there.head(model_key("gamma", made("gamma", 2)[1].version, WEIGHTS))
    # What is there by then is not copied again.
    written: list[str] = []
    there.on_put = written.append
    with pytest.raises(BundleCorrupt):
        copy(home, there)
    assert not [
        key for key in written if key.startswith(("access/", "copy/")) or key.endswith(("macros.json", WEIGHTS))
    ]
    for tenant in TENANTS[:2]:
        home.put(model_key(tenant, made(tenant, 2)[1].version, WEIGHTS), (made(tenant, 2)[0] / WEIGHTS).read_bytes())
    assert copy(home, there).whole
    same(home, there)


def _with_candidate(entry: FleetEntry | None) -> FleetEntry:
    assert entry is not None
    return entry.model_copy(update={"candidate": "9" * 16, "candidate_manifest": "9" * 64})


def test_garbage_is_collected_there_as_here(home: MemoryStore) -> None:
    there = a_store("there")
    for number in range(2, 6):
        serve(home, "acme", number)
        copy(home, there)
        home.now += DAY
        there.now += DAY
    home.now += 20 * DAY
    there.now += 20 * DAY
    gone = collect_garbage(there, retention=Retention(keep=1), clock=lambda: there.now, threads=1)
    assert len(gone.deleted) == 3
    assert complaints(there) == []
    done = copy(home, there)
    assert done.models == 0
    collect_garbage(home, retention=Retention(keep=1), clock=lambda: home.now, threads=1)
    assert copy(home, there).removed > 0  # past states of the fleet
    same(home, there)


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("listed", ["deleted/", "tenants/", "fleet/"])
def test_a_tenant_that_is_deleted_while_it_is_copied(home: MemoryStore, listed: str, *, again: bool) -> None:
    there = a_store("there")
    if again:
        copy(home, there)
    seen = Watched(home)
    list_it = seen.list

    def list_later(prefix: str = "") -> Iterator[ObjectInfo]:
        if prefix == listed and "acme" in read_fleet(home).entries:
            delete(home, "acme")
        return list_it(prefix)

    seen.list = list_later  # type: ignore[method-assign]
    for _ in range(2):
        copy(seen, Watched(there, wrote=lambda: _whole(there)))
    same(home, there)
    assert traces(there, "acme") == []


def _whole(there: MemoryStore) -> None:
    assert complaints(there) == []


# Whatever happens meanwhile

SOME = st.tuples(st.sampled_from(sorted(ACTIONS)), st.sampled_from(TENANTS), st.integers(1, 4))


BACK_ACME, BACK_BETA = ("bring back", "acme", 1), ("bring back", "beta", 1)
LOST_ACME, LOST_BETA = ("delete", "acme", 1), ("delete", "beta", 1)


# What this found before.
@example(
    before=[BACK_BETA],
    rounds=[([], {}, None), ([LOST_BETA], {0: LOST_ACME}, (11, False)), ([BACK_ACME], {}, None)],
    versioned=False,
)
@example(before=[], rounds=[([], {}, None), ([BACK_BETA, LOST_ACME], {}, (18, False))], versioned=True)
@example(
    before=[],
    rounds=[([BACK_BETA], {0: ("set", "beta", 1)}, None), ([LOST_BETA], {0: BACK_BETA}, None)],
    versioned=False,
)
@example(
    before=[],
    rounds=[
        ([("bring back", "gamma", 1), LOST_ACME], {}, None),
        ([BACK_ACME], {27: ("rename", "acme", 1)}, None),
        ([("delete", "gamma", 1)], {}, (1, False)),
        ([], {}, (16, True)),
    ],
    versioned=True,
)
@settings(max_examples=40, deadline=None)
@given(
    before=st.lists(SOME, max_size=6),
    rounds=st.lists(
        st.tuples(
            st.lists(SOME, max_size=3),
            st.dictionaries(st.integers(0, 60), st.one_of(SOME, st.just("another copy")), max_size=3),
            st.none() | st.tuples(st.integers(1, 25), st.booleans()),
        ),
        min_size=1,
        max_size=4,
    ),
    versioned=st.booleans(),
)
def test_readers_of_a_copy_always_find_a_whole_fleet_that_never_goes_back(
    before: list[Action],
    rounds: list[tuple[list[Action], dict[int, Action | str], tuple[int, bool] | None]],
    *,
    versioned: bool,
) -> None:
    note(f"{before!r} {rounds!r} {versioned!r}")
    home, there = a_store("home"), a_store("there", versioned=versioned)
    serve(home, TENANTS[0], 1)
    generations = [0]
    alive = {TENANTS[0]}

    def act(action: Action) -> None:
        name, tenant, number = action
        if (name == "delete") != (tenant in alive) and name in ("delete", "bring back"):
            return
        if name != "delete" and name != "bring back" and tenant not in alive and name != "serve":
            return
        if name == "serve" and tenant not in alive and f"deleted/{tenant}" in gone:
            return
        ACTIONS[name](home, tenant, number)
        if name == "delete":
            alive.discard(tenant)
            gone.add(f"deleted/{tenant}")
        else:
            alive.add(tenant)
            gone.discard(f"deleted/{tenant}")

    gone: set[str] = set()

    def look() -> None:
        assert complaints(there) == []
        generations.append(read_root(there).generation)
        assert generations[-1] >= generations[-2]

    for action in before:
        act(action)
    for actions, meanwhile, dies in rounds:
        for action in actions:
            act(action)
        requests = count()

        def interfere(meanwhile: dict[int, Action | str] = meanwhile, requests: count[int] = requests) -> None:
            what = meanwhile.get(next(requests))
            if isinstance(what, tuple):
                act(what)
            elif what is not None:
                with suppress(MacrofleetError):
                    copy(home, Watched(there, wrote=look))

        with suppress(Killed, MacrofleetError):
            copy(Watched(home, asked=interfere), Watched(there, asked=interfere, wrote=look, dies=dies))
        look()
    for _ in range(2):  # what was deleted just before the last look at it goes with the next one
        copy(home, Watched(there, wrote=look))
    same(home, there)
    for tenant in set(TENANTS) - alive:
        assert traces(there, tenant) == []


def test_the_commands(tmp_path: Path) -> None:
    home = LocalStore(tmp_path / "home")
    serve(home, "acme", 1)
    run = CliRunner()
    environment = {"MACROFLEET_STORE_URL": str(tmp_path / "home"), "MACROFLEET_COPY_STORE_URL": str(tmp_path / "there")}

    def told(*words: str) -> tuple[int, dict[str, object]]:
        result = run.invoke(macrofleet.app, ["regions", *words, "--json"], env=environment)
        return result.exit_code, json.loads(result.stdout) if result.stdout else {}

    assert told("status")[0] == 1
    code, copied = told("copy", "--collect")
    assert (code, copied["generation"], copied["models"], copied["collected"]) == (0, 1, 1, 0)
    code, status = told("status")
    assert (code, status["generation"], status["copy_generation"]) == (0, 1, 1)
    serve(home, "acme", 2)
    assert told("status")[0] == 1
    assert told("copy")[1]["before"] == 1
    update_fleet(home, {"acme": _with_shadow(home, 3)})
    home.put(model_key("acme", made("acme", 3)[1].version, LABELS), b"x")
    code, copied = told("copy")
    assert (code, len(copied["damaged"]), told("status")[0]) == (1, 1, 0)  # type: ignore[arg-type]
    assert told("promote")[1]["was_copy_of"] == home.url
    assert isinstance(run.invoke(macrofleet.app, ["regions", "copy"], env=environment).exception, InvalidInput)
    nowhere = run.invoke(macrofleet.app, ["regions", "copy"], env={**environment, "MACROFLEET_COPY_STORE_URL": ""})
    assert isinstance(nowhere.exception, InvalidInput)


def test_every_shard_of_the_world_is_of_one_tenant() -> None:
    """So that the tests above have shards that change while others stay."""
    assert len({fleet_shard(tenant) for tenant in TENANTS}) == len(TENANTS)
    assert COPY_DOCUMENTS.startswith("copy/")
