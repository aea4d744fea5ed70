"""A backup is whole although nothing stops for it, and what is restored is what was backed up."""

from __future__ import annotations

import gzip
import json
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from typer.testing import CliRunner

import macrofleet
from registry.backup.backups import DAY, check_backup, prune_backups, take_backup
from registry.backup.databases import dump_keys, dump_tracking, restore_keys, restore_tracking
from registry.backup.documents import BackedUp, backup_names, blob_key, rank
from registry.backup.lists import Heading, opened_backup, read_heading
from registry.backup.restoring import restore_store
from registry.database import Database, DatabaseSettings, opened_database
from registry.documents import canonical_json
from registry.errors import (
    BackupCorrupt,
    InvalidInput,
    MacrofleetError,
    PreconditionFailed,
    PublishConflict,
    StoreError,
    StoreUnavailable,
)
from registry.files import ContentDigest
from registry.fleet.at_rest import read_root
from registry.fleet.state import read_fleet
from registry.garbage.retention import Retention
from registry.garbage.store_garbage import collect_garbage
from registry.keys.book import KeyBook
from registry.keys.published import PublishedKeys, parse_keys
from registry.keys.publishing import publish_keys
from registry.layout import (
    ACCESS_KEYS,
    COPY_MARK,
    FLEET_ROOT,
    MANIFEST,
    catalogue_key,
    examples_key,
    lease_key,
    model_key,
    tombstone_key,
)
from registry.store import ObjectInfo, ObjectStore
from registry.store.local import LocalStore
from tests.postgresql import LocalPostgres
from tests.registry.memory_store import Actor, Killed, MemoryStore, SteeredStore
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

Action = tuple[str, str, int]
ACTIONS: dict[str, Callable[[ObjectStore, str, int], None]] = {
    "serve": serve,
    "rename": rename,
    "delete": lambda store, tenant, _: delete(store, tenant),
}


def take(store: Any, place: Any, at: float = 0.0) -> str:
    none: dict[str, Any] = {"dump_keys": lambda _: False, "dump_tracking": lambda _: False}
    return take_backup(store, place, clock=lambda: 1_800_000_000 + at, threads=1, **none).name


def restore(place: Any, name: str, store: Any, **more: Any) -> Any:
    return restore_store(place, name, store, threads=1, sleep=lambda _: None, **more)


@pytest.fixture
def home() -> MemoryStore:
    store = a_store("home")
    for tenant in TENANTS[:2]:
        serve(store, tenant, 1)
    store.put(examples_key("acme"), b"tickets")
    store.put(lease_key("acme"), b"{}")
    return store


def objects(place: Any, name: str) -> dict[str, BackedUp]:
    with opened_backup(place, name) as backup:
        return dict(backup.objects())


def contents(store: MemoryStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key).data for info in store.list()}


def test_what_is_restored_is_what_was_backed_up(home: MemoryStore) -> None:
    place, there = a_store("backups"), a_store("there")
    name = take(home, place)
    done = restore(place, name, there)
    expected = contents(home)
    del expected[lease_key("acme")]  # which is of who holds it now
    assert contents(there) == expected
    assert (done.generation, done.written, done.there, done.deleted) == (2, len(expected), 0, ())
    assert complaints(there) == []
    assert check_backup(place, name, threads=1) == []
    assert restore(place, name, there).there == len(expected)


def test_a_second_backup_reads_what_is_new(home: MemoryStore) -> None:
    place = a_store("backups")
    first = take(home, place)
    serve(home, "acme", 2)
    asked: list[str] = []
    seen = Watched(home)
    opened = seen.open

    def open_and_tell(key: str) -> IO[bytes]:
        asked.append(key)
        return opened(key)

    seen.open = open_and_tell  # type: ignore[method-assign]
    second = take(seen, place, 1)
    assert backup_names(place) == [second, first]
    assert not [
        key for key in asked if "beta" in key or key.startswith("programs/") or made("acme", 1)[1].version in key
    ]
    there = a_store("there")
    restore(place, first, there)
    assert read_fleet(there).entries["acme"].version == made("acme", 1)[1].version


def test_what_comes_back_comes_in_the_order_of_writing() -> None:
    order = [
        "deleted/0.json", "tenants/a/models/0123456789abcdef/manifest.json", "tenants/a/macros.json", ACCESS_KEYS,
        "fleet/shards/00/1.json", FLEET_ROOT,
    ]  # fmt: skip
    assert [rank(key) for key in order] == sorted({rank(key) for key in order})
    assert rank("tenants/a/models/0123456789abcdef/weights.safetensors") < rank(order[1])
    assert rank("programs/d/saved_model.pb") < rank("programs/d/files.json")
    assert all(0 <= rank(key) < 7 for key in [*order, "lake/tenants/a/examples.parquet", "runs/x/run.json"])


def test_a_store_with_a_fleet_is_left_alone(home: MemoryStore) -> None:
    place, other = a_store("backups"), a_store("other")
    name = take(home, place)
    serve(other, "gamma", 3)
    before = contents(other)
    with pytest.raises(InvalidInput, match="has a fleet"):
        restore(place, name, other)
    assert contents(other) == before
    restore(place, name, other, over=True)
    assert set(read_fleet(other).entries) == set(TENANTS[:2])
    assert complaints(other) == []


def test_going_back_in_place(home: MemoryStore) -> None:
    place = a_store("backups")
    name = take(home, place)
    serve(home, "acme", 2)
    home.delete(model_key("acme", made("acme", 1)[1].version, MANIFEST))
    restore(place, name, home, over=True)
    assert read_fleet(home).entries["acme"].version == made("acme", 1)[1].version
    assert complaints(home) == []
    serve(home, "acme", 3)  # and on from there
    assert complaints(home) == []


def test_who_was_deleted_since_does_not_come_back(home: MemoryStore) -> None:
    place, there = a_store("backups"), a_store("there")
    first = take(home, place)
    delete(home, "acme")
    take(home, place, 60)
    assert restore(place, first, there).deleted == ("acme",)
    assert traces(there, "acme") == []
    assert set(read_fleet(there).entries) == {"beta"}
    bring_back(home, "acme")
    take(home, place, 120)
    again = a_store("again")
    assert restore(place, first, again).deleted == ()
    assert set(read_fleet(again).entries) == {"acme", "beta"}


def test_a_damaged_backup_is_found_and_writes_no_fleet(home: MemoryStore) -> None:
    place, there = a_store("backups"), a_store("there")
    name = take(home, place)
    weights = next(key for key in objects(place, name) if key.endswith(f"/{MANIFEST}"))
    blob = blob_key(objects(place, name)[weights].content.sha256)
    place.put(blob, b"x" * len(place.get(blob).data))
    assert check_backup(place, name, threads=1) == [weights]
    with pytest.raises(BackupCorrupt, match="is not what its manifest says"):
        restore(place, name, there)
    assert read_root(there).generation == 0
    place.delete(blob)
    with pytest.raises(BackupCorrupt, match="lacks blobs/"):
        restore(place, name, there)
    place.put(f"backups/{name}.json.gz", b"nonsense")
    for read in (read_heading, objects):
        with pytest.raises(BackupCorrupt, match="is damaged"):
            read(place, name)
        with pytest.raises(InvalidInput, match="has no backup"):
            read(place, "20200101T000000Z")


def test_old_backups_go_and_their_contents(home: MemoryStore) -> None:
    place = a_store("backups")
    names = []
    for number in range(4):
        rename(home, "acme", number)
        names.append(take(home, place, number))
    place.now += 2 * DAY
    gone, blobs = prune_backups(place, keep=2, clock=lambda: place.now)
    assert set(gone) == set(names[:2])
    assert blobs == 1  # the first catalogue is another tenant's as well
    for name in names[2:]:
        assert check_backup(place, name, threads=1) == []
    fresh = a_store("fresh")
    take(home, fresh)
    assert prune_backups(fresh, keep=1, clock=lambda: fresh.now) == ((), 0)
    with pytest.raises(InvalidInput):
        prune_backups(place, keep=0)


def test_a_copy_is_restored_as_a_home(home: MemoryStore) -> None:
    place, there = a_store("backups"), a_store("there")
    home.put(COPY_MARK, b"{}")
    restore(place, take(home, place), there)
    assert COPY_MARK not in contents(there)


# Restoring, and what comes in between


def entries(store: ObjectStore) -> dict[str, Any]:
    return dict(read_fleet(store).entries)


@pytest.mark.parametrize("after", [True, False])
def test_a_fleet_in_the_place_of_another_is_never_a_mixture(home: MemoryStore, *, after: bool) -> None:
    """Both have shard states of the same numbers."""
    place = a_store("backups")
    name = take(home, place)
    for death in count(1, 2):
        other = a_store("other")
        for number, tenant in enumerate(TENANTS):
            serve(other, tenant, 5 + number)
        whole = [entries(other), entries(home)]
        generation = read_root(other).generation
        try:
            restore(place, name, Watched(other, dies=(death, after)), over=True)
        except Killed:
            assert entries(other) in whole
            restore(place, name, other, over=True)
        else:
            assert death > 10
            break
        assert entries(other) == whole[-1]
        assert complaints(other) == []
        assert read_root(other).generation == generation + 1, "whoever follows it goes on"


def test_a_fleet_that_came_meanwhile_is_not_replaced_unasked(home: MemoryStore) -> None:
    place, there = a_store("backups"), a_store("there")
    name = take(home, place)
    began = count()

    def publish() -> None:
        if next(began) == 10:
            serve(there, "gamma", 3)

    with pytest.raises(PublishConflict, match="is of another fleet"):
        restore(place, name, Watched(there, wrote=publish))
    assert set(entries(there)) == {"gamma"}
    restore(place, name, there, over=True)
    assert set(entries(there)) == set(TENANTS[:2])


def test_a_root_that_is_damaged_can_be_gone_back_from(home: MemoryStore) -> None:
    place = a_store("backups")
    name = take(home, place)
    before = entries(home)
    home.put(FLEET_ROOT, b"{")
    with pytest.raises(StoreError, match="is not valid"):
        restore(place, name, home)
    restore(place, name, home, over=True)
    assert entries(home) == before


def test_what_was_replaced_is_remembered(home: MemoryStore) -> None:
    """So that garbage collection keeps what it named, for as long as it does with any fleet."""
    place = a_store("backups")
    name = take(home, place)
    serve(home, "acme", 2)
    restore(place, name, home, over=True)
    for number in range(3, 10):
        serve(home, "acme", number)
    home.now += 2 * DAY
    collect_garbage(home, clock=lambda: home.now, threads=1)
    assert home._find(model_key("acme", made("acme", 2)[1].version, MANIFEST))


def test_nothing_is_written_of_who_was_deleted_since(home: MemoryStore) -> None:
    place, there = a_store("backups"), a_store("there")
    name = take(home, place)
    delete(home, "acme")
    take(home, place, 60)

    def look() -> None:
        assert [key for key in traces(there, "acme") if not key.startswith("fleet/")] == []

    assert restore(place, name, Watched(there, wrote=look)).deleted == ("acme",)
    assert traces(there, "acme") == []


def test_a_deletion_that_the_store_has_forgotten_is_not(home: MemoryStore) -> None:
    """Tombstones go after a month; backups may stay for longer."""
    place, there = a_store("backups"), a_store("there")
    first = take(home, place)
    delete(home, "acme")
    take(home, place, 60)
    home.delete(tombstone_key("acme"))
    take(home, place, 120)
    later = f"backups/{backup_names(place)[1]}.json.gz"
    data = place.get(later).data
    place.put(later, b"nonsense")
    with pytest.raises(BackupCorrupt, match="nobody knows whom it says to be deleted"):
        restore(place, first, there)
    place.put(later, data)
    assert restore(place, first, there).deleted == ("acme",)
    assert traces(there, "acme") == []


def test_the_later_word_on_a_tenant_counts(home: MemoryStore) -> None:
    place = a_store("backups")
    delete(home, "acme")
    gone = take(home, place)
    bring_back(home, "acme")
    home.put(examples_key("acme"), b"new tickets")
    assert restore(place, gone, home, over=True).deleted == ()
    assert home._find(examples_key("acme")) == b"new tickets"
    back = take(home, place, 60)
    serve(home, "beta", 3)
    delete(home, "acme")
    assert restore(place, back, home, over=True).deleted == ("acme",)
    assert traces(home, "acme") == []


@pytest.mark.parametrize("collector_first", [True, False])
def test_garbage_may_be_collected_meanwhile(collector_first: bool) -> None:
    """Some of the orders of their requests. What the backup names is garbage by then, and its states of the fleet are past."""
    turn = other = 0
    while True:
        home, place = a_store("home"), a_store("backups")
        home.url = MemoryStore.url
        serve(home, "acme", 1)
        name = take(home, place)
        for number in range(2, 5):
            serve(home, "acme", number)
        home.now += 20 * DAY
        serve(home, "acme", 5)
        collecting = Actor(home, partial(_collect, now=home.now))
        restoring = Actor(home, partial(_restore, place, name))
        first, second = (collecting, restoring) if collector_first else (restoring, collecting)
        for _ in range(turn):
            first.step()
        for _ in range(other):
            second.step()
        reached = first.waits_for is not None and second.waits_for is not None
        first.finish()
        second.finish()
        assert complaints(home) == [], (turn, other)
        assert collecting.problem is None
        if restoring.problem is None:
            assert read_fleet(home).entries["acme"].version == made("acme", 1)[1].version
        else:  # it waited in vain for the collector, who never had a turn
            assert isinstance(restoring.problem, PublishConflict)
        if reached:
            other += 9
        elif other:
            turn, other = turn + 9, 0
        else:
            break
    assert turn > 20


def _collect(store: SteeredStore, *, now: float) -> None:
    store.repeats = True  # every deletion arrives twice
    collect_garbage(store, retention=Retention(keep=1), clock=lambda: now, threads=1)


def _restore(place: MemoryStore, name: str, store: SteeredStore) -> None:
    restore_store(place, name, store, over=True, threads=1, sleep=store.sleep)


def test_a_place_that_is_away_says_nothing_of_a_backup(home: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    place = a_store("backups")
    name = take(home, place)

    def away(_: str) -> IO[bytes]:
        raise StoreUnavailable("nobody answers")

    monkeypatch.setattr(place, "open", away)
    with pytest.raises(StoreUnavailable):
        check_backup(place, name, threads=1)


@pytest.mark.parametrize("at", [0.05, 0.4, 0.9])
def test_a_list_whose_bits_have_turned_is_damaged(home: MemoryStore, at: float) -> None:
    place = a_store("backups")
    name = take(home, place)
    key = f"backups/{name}.json.gz"
    data = bytearray(place.get(key).data)
    begin = int(len(data) * at)
    data[begin : begin + 40] = b"\xff" * 40
    place.put(key, bytes(data))
    with pytest.raises(BackupCorrupt):
        objects(place, name)
    there = a_store("there")
    with pytest.raises(BackupCorrupt):
        restore(place, name, there)
    assert not list(there.list())
    # Nobody has to clear it away before another one can be taken.
    assert check_backup(place, take(home, place, 1), threads=1) == []


@pytest.mark.parametrize("damage", ["a line less", "another order", "a part of a line", "one line twice"])
def test_a_list_that_is_not_what_was_written_is_damaged(home: MemoryStore, damage: str) -> None:
    place = a_store("backups")
    name = take(home, place)
    key = f"backups/{name}.json.gz"
    lines = gzip.decompress(place.get(key).data).splitlines(keepends=True)
    if damage == "a line less":
        del lines[3]
    elif damage == "another order":
        lines[2], lines[3] = lines[3], lines[2]
    elif damage == "a part of a line":
        lines[-1] = lines[-1][:40]
    else:
        lines[3] = lines[2]
    place.put(key, gzip.compress(b"".join(lines)))
    with pytest.raises(BackupCorrupt):
        objects(place, name)


def test_a_list_of_the_release_before_is_read(home: MemoryStore) -> None:
    place, there = a_store("backups"), a_store("there")
    name = take(home, place)
    heading = read_heading(place, name)
    rows = {key: one.model_dump(include={"content", "etag"}) for key, one in objects(place, name).items()}
    whole = {
        "format": 1, "name": name, "source": heading.source, "generation": heading.generation, "objects": rows,
        "databases": {},
    }  # fmt: skip
    place.put(f"backups/{name}.json.gz", gzip.compress(canonical_json(whole)))
    assert read_heading(place, name) == heading
    restore(place, name, there)
    assert complaints(there) == []
    assert check_backup(place, name, threads=1) == []
    second = take(home, place, 1)
    assert objects(place, second).keys() == rows.keys()


def test_a_list_is_never_held(home: MemoryStore) -> None:
    """Neither the listing, nor what is written, nor the list of the last backup: all three pass side by side."""
    place = a_store("backups")
    for number in range(200):
        home.put(f"lake/tenants/acme/feedback/{number:03d}.gz", b"1")
    passed = {"listed": 0, "read": 0}
    ahead: list[int] = []

    class Listed(Watched):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            for info in super().list(prefix):
                passed["listed"] += 1
                ahead.append(passed["listed"] - passed["read"])
                yield info

        def open(self, key: str) -> IO[bytes]:
            passed["read"] += 1
            return super().open(key)

    assert backup_names(place) == []
    none: dict[str, Any] = {"dump_keys": lambda _: False, "dump_tracking": lambda _: False}
    take_backup(Listed(home), place, clock=lambda: 1_800_000_000, threads=2, **none)
    counted = len(list(home.list()))  # how many there are, the first time
    assert max(ahead[counted:]) - counted < 2 * 16 + 8, "no more than what threads take ahead"


def test_a_list_whose_answer_was_lost_is_written(home: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    place = a_store("backups")
    put = place.put

    def lose_the_answer(key: str, data: bytes, **condition: Any) -> str:
        etag = put(key, data, **condition)
        if key.startswith("backups/"):
            raise PreconditionFailed("the retry found the first attempt")
        return etag

    monkeypatch.setattr(place, "put", lose_the_answer)
    assert [take(home, place)] == backup_names(place)


def test_a_database_of_gigabytes_fits() -> None:
    """MLflow's records of a large fleet are more than any file of a model."""
    content = ContentDigest(sha256="a" * 64, size=8 * 2**30)
    heading = Heading(
        name="20260101T000000Z", source="s", generation=0, objects=0, bytes=0, databases={"mlflow.db": content}
    )
    assert Heading.parse(heading.to_bytes(), what="it", error=BackupCorrupt) == heading


# Whatever happens meanwhile

SOME = st.tuples(st.sampled_from(sorted(ACTIONS)), st.sampled_from(TENANTS), st.integers(1, 4))


@settings(max_examples=25, deadline=None)
@given(
    before=st.lists(SOME, max_size=4),
    meanwhile=st.dictionaries(st.integers(0, 60), SOME, max_size=4),
    dies=st.none() | st.tuples(st.integers(1, 40), st.booleans()),
)
def test_a_backup_is_whole_whatever_happens_meanwhile(
    before: list[Action], meanwhile: dict[int, Action], dies: tuple[int, bool] | None
) -> None:
    home, place, there = a_store("home"), a_store("backups"), a_store("there")
    gone: set[str] = set()

    def act(action: Action) -> None:
        name, tenant, number = action
        if tenant in gone or (name != "serve" and tenant not in read_fleet(home).entries):
            return
        ACTIONS[name](home, tenant, number)
        if name == "delete":
            gone.add(tenant)

    for action in [("serve", "acme", 1), *before]:
        act(action)
    deleted_before = set(gone)
    requests = count()

    def interfere() -> None:
        if (action := meanwhile.get(next(requests))) is not None:
            act(action)

    name = take(Watched(home, asked=interfere), place)
    with suppress(Killed):
        restore(place, name, Watched(there, dies=dies))
    assert [one for one in complaints(there) if one.split(":")[0] not in gone] == []
    take(home, place, 60)  # which knows who was deleted while the first was taken
    done = restore(place, name, there)
    assert complaints(there) == []
    assert done.generation >= read_heading(place, name).generation
    for tenant in deleted_before | set(done.deleted):
        assert traces(there, tenant) == []


# Databases


def keys_of(address: str) -> KeyBook:
    return KeyBook(Database(DatabaseSettings(url=SecretStr(address))))


@pytest.fixture(params=["sqlite", "postgresql"])
def addresses(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Two empty databases of one kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'one.db'}", f"sqlite:///{tmp_path / 'other.db'}"
    server: LocalPostgres = request.getfixturevalue("postgres")
    return server.database(), server.database()


def test_keys_come_back_and_may_go_on(addresses: tuple[str, str], tmp_path: Path) -> None:
    one, other = (DatabaseSettings(url=SecretStr(address)) for address in addresses)
    store, dumped = LocalStore(tmp_path / "store"), tmp_path / "keys.json"
    with opened_database(one) as database:
        book = KeyBook(database)
        kept, _ = book.create("acme", ["suggest"], note="help desk")
        lost, record = book.create("beta", ["suggest"], note="")
        publish_keys(book, store)
        assert dump_keys(one)(dumped)
        book.revoke([record.prefix])
        publish_keys(book, store)
    assert kept.encode() not in dumped.read_bytes()
    assert restore_keys(other, dumped.read_bytes()) == 2
    assert restore_keys(other, dumped.read_bytes()) == 2  # again is harmless
    with opened_database(other) as database:
        book = KeyBook(database)
        found = book.find(kept)
        assert found is not None
        assert found.tenant == "acme"
        assert book.find(lost) is not None
        # What servers know is later than the backup: nobody makes keys valid again by accident.
        with pytest.raises(MacrofleetError):
            publish_keys(book, store)
        publish_keys(book, store, force=True)
        made_since, _ = book.create("gamma", ["suggest"], note="")
        publish_keys(book, store)
    published: PublishedKeys = parse_keys(store.get(ACCESS_KEYS).data, where="here")
    assert len(published.keys) == 3
    with pytest.raises(InvalidInput, match="has 3 keys"):
        restore_keys(other, dumped.read_bytes())
    assert restore_keys(other, dumped.read_bytes(), over=True) == 2
    with opened_database(other) as database:
        assert KeyBook(database).find(made_since) is None


def test_keys_move_between_kinds_of_databases(tmp_path: Path, postgres: LocalPostgres) -> None:
    one = DatabaseSettings(url=SecretStr(f"sqlite:///{tmp_path / 'one.db'}"))
    other = DatabaseSettings(url=SecretStr(postgres.database()))
    assert not dump_keys(one)(tmp_path / "none")
    with opened_database(one) as database:
        key, _ = KeyBook(database).create(None, ["operator"], note="")
    dump_keys(one)(tmp_path / "keys.json")
    restore_keys(other, (tmp_path / "keys.json").read_bytes())
    with opened_database(other) as database:
        assert KeyBook(database).find(key) is not None
        KeyBook(database).create("acme", ["suggest"], note="")  # its number is free


def test_others_tables_are_left_alone_and_keys_of_who_was_deleted_stay_away(tmp_path: Path) -> None:
    one, other = (DatabaseSettings(url=SecretStr(f"sqlite:///{tmp_path / name}")) for name in ("one.db", "other.db"))
    for each in (one, other):
        with opened_database(each) as database:
            kept, _ = KeyBook(database).create("acme", ["suggest"])
            lost, _ = KeyBook(database).create("beta", ["suggest"])
            with database.begin() as connection:
                connection.exec_driver_sql("CREATE TABLE theirs (n INTEGER)")
                connection.exec_driver_sql("INSERT INTO theirs VALUES (7)")
        if each is one:
            key, gone = kept, lost
    assert dump_keys(one)(tmp_path / "keys.json")
    assert "theirs" not in (tmp_path / "keys.json").read_text()
    assert restore_keys(other, (tmp_path / "keys.json").read_bytes(), over=True, without=["beta"]) == 1
    with opened_database(other) as database:
        assert KeyBook(database).find(key)
        assert not KeyBook(database).find(gone)
        with database.begin() as connection:
            assert connection.exec_driver_sql("SELECT n FROM theirs").scalar_one() == 7


def test_keys_of_a_later_release_are_refused(tmp_path: Path) -> None:
    settings = DatabaseSettings(url=SecretStr(f"sqlite:///{tmp_path / 'one.db'}"))
    later = json.dumps({"format": 1, "tables": {"api_keys": [{"id": 1, "colour": "red"}]}}).encode()
    with pytest.raises(InvalidInput, match="later release"):
        restore_keys(settings, later)
    with pytest.raises(BackupCorrupt):
        restore_keys(settings, b'{"format": 2, "tables": {}}')


def test_mlflows_file_is_copied_while_it_is_written(tmp_path: Path) -> None:
    file, copy = tmp_path / "mlflow.db", tmp_path / "copy.db"
    assert not dump_tracking(f"sqlite:///{file}")(copy)
    assert not dump_tracking("http://127.0.0.1:5000")(copy)
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE runs (n INTEGER)")
        writer.execute("INSERT INTO runs VALUES (1)")
        writer.execute("BEGIN")
        writer.execute("INSERT INTO runs VALUES (2)")
        assert dump_tracking(f"sqlite:///{file}")(copy)
        writer.execute("COMMIT")
    elsewhere = f"sqlite:///{tmp_path / 'there' / 'mlflow.db'}"
    assert restore_tracking(elsewhere, copy)
    assert restore_tracking(elsewhere, copy)
    with closing(sqlite3.connect(tmp_path / "there" / "mlflow.db")) as reader:
        assert reader.execute("SELECT n FROM runs").fetchall() == [(1,)]
    with pytest.raises(InvalidInput, match="there already"):
        restore_tracking(f"sqlite:///{file}", copy)
    assert not restore_tracking("http://127.0.0.1:5000", copy)


def test_mlflows_records_in_postgresql_with_the_documented_commands(postgres: LocalPostgres) -> None:
    """`pg_dump` and `pg_restore` with the options of docs/operations.md, over what was there."""
    document = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    here, there = postgres.database(), postgres.database()
    for address, number in ((here, 1), (there, 2)):
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("CREATE TABLE runs (n INTEGER)")
            connection.execute("INSERT INTO runs VALUES (%s)", (number,))
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # the programs run as PostgreSQL's user
        dump, restored = re.findall(r"^(pg_\w+) (.*)$", document, re.MULTILINE)
        for (program, words), address in ((dump, here), (restored, there)):
            named = words.partition("&&")[0].partition("#")[0].replace("mlflow.dump", f"{folder}/mlflow.dump")
            postgres.run(program, *(address if word == '"$MLFLOW_DATABASE"' else word for word in named.split()))
    with psycopg.connect(there) as connection:
        assert connection.execute("SELECT n FROM runs").fetchall() == [(1,)]


def test_the_rehearsal_with_the_commands(tmp_path: Path) -> None:
    """What an operator does: a backup, the loss of everything, restoring, and keys that servers know again."""
    run = CliRunner()
    environment = {
        "MACROFLEET_STORE_URL": str(tmp_path / "store"),
        "MACROFLEET_DATABASE_URL": f"sqlite:///{tmp_path / 'macrofleet.db'}",
        "MACROFLEET_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "MACROFLEET_BACKUP_STORE_URL": str(tmp_path / "backups"),
    }

    def told(*words: str) -> dict[str, Any]:
        result = run.invoke(macrofleet.app, [*words, "--json"], env=environment, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.stdout))

    store = LocalStore(tmp_path / "store")
    serve(store, "acme", 1)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as writer:
        writer.execute("CREATE TABLE runs (n INTEGER)")
    made_key = told("keys", "create", "--tenant", "acme")
    name = told("backup", "create", "--keep", "2")["name"]
    assert [one["name"] for one in told("backup", "list")["backups"]] == [name]
    assert told("backup", "check", "latest") == {"name": name, "wrong": []}
    lost = tmp_path / "lost"
    lost.mkdir()
    for part in ("store", "macrofleet.db", "mlflow.db"):
        (tmp_path / part).rename(lost / part)
    done = told("backup", "restore", "latest")
    assert (done["generation"], done["keys"], done["tracking"]) == (1, 1, True)
    store_there = LocalStore(tmp_path / "store")
    assert complaints(store_there) == []
    assert store_there.get(catalogue_key("acme")).data
    told("keys", "publish")
    (known,) = parse_keys(store_there.get(ACCESS_KEYS).data, where="here").keys
    assert known.prefix == made_key["prefix"]
    assert told("backup", "restore", "latest")["written"] == 0
