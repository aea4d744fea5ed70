"""API keys in SQLite and in PostgreSQL, and their way to the store."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from registry.database import Database, DatabaseSettings, opened_database
from registry.documents import canonical_json
from registry.errors import (
    DatabaseUnavailable,
    InvalidInput,
    InvalidTenant,
    KeyNotFound,
    PublishConflict,
    StoreError,
    StoreUnavailable,
)
from registry.keys import book as module
from registry.keys.book import KeyBook, KeyRecord
from registry.keys.published import MAX_BYTES, AccessReader, PublishedKey, PublishedKeys, parse_keys, read_keys
from registry.keys.publishing import is_published, publish_keys
from registry.layout import ACCESS_KEYS
from registry.store import ObjectStore
from registry.store.local import LocalStore
from tests.registry.memory_store import MemoryStore

HOUR, DAY = 3600, 86_400
NOW = 1_800_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'db' / 'macrofleet.db'}"
    database: str = request.getfixturevalue("postgres").database()
    return database


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(address: str, clock: Clock) -> Iterator[KeyBook]:
    with opened_database(DatabaseSettings(url=SecretStr(address))) as database:
        yield KeyBook(database, clock=clock)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return LocalStore(tmp_path / "store")


def there(store: ObjectStore) -> PublishedKeys:
    return parse_keys(store.get(ACCESS_KEYS, max_bytes=MAX_BYTES).data, where="the store")


def prefixes(store: ObjectStore) -> set[str]:
    return {key.prefix for key in there(store).keys}


def test_a_key_is_kept_by_its_digest_alone(book: KeyBook, address: str, store: ObjectStore) -> None:
    key, record = book.create("acme", ["feedback", "suggest"], lifetime_seconds=DAY, note="help desk")
    assert re.fullmatch(r"mf_[0-9a-f]{10}_[0-9a-f]{40}", key)
    assert key.split("_")[1] == record.prefix
    assert record == KeyRecord(
        prefix=record.prefix,
        tenant="acme",
        scopes=("suggest", "feedback"),
        note="help desk",
        created_at=int(NOW),
        expires_at=int(NOW) + DAY,
        revoked_at=None,
        replaced_by=None,
    )
    assert book.records() == [record]
    publish_keys(book, store)
    (published,) = there(store).keys
    assert published.digest == hashlib.sha256(key.encode()).hexdigest()
    assert (published.tenant, published.scopes, published.expires) == ("acme", ("suggest", "feedback"), int(NOW) + DAY)
    secret = key.split("_")[2].encode()
    assert secret not in store.get(ACCESS_KEYS).data
    if address.startswith("sqlite"):
        folder = Path(address.removeprefix("sqlite:///")).parent
        assert not any(secret in file.read_bytes() for file in folder.iterdir())


def test_keys_differ(book: KeyBook) -> None:
    made = [book.create("acme", ["suggest"])[0] for _ in range(20)]
    assert len({key.split("_")[1] for key in made}) == len({key.split("_")[2] for key in made}) == 20


def test_what_a_key_cannot_be(book: KeyBook) -> None:
    for tenant, scopes, more in (
        ("acme", ["operator"], {}),
        (None, ["operator", "suggest"], {}),
        (None, ["suggest"], {}),
        ("acme", [], {}),
        ("acme", ["suggest"], {"lifetime_seconds": 0}),
        ("acme", ["suggest"], {"lifetime_seconds": 1e12}),
        ("acme", ["suggest"], {"note": "x" * 201}),
        ("acme", ["suggest"], {"note": "a\x1b[31m"}),
    ):
        with pytest.raises(InvalidInput):
            book.create(tenant, scopes, **more)  # type: ignore[arg-type]
    with pytest.raises(InvalidTenant):
        book.create("../x", ["suggest"])
    assert book.records() == []
    assert book.create(None, ["operator"])[1].tenant is None


def test_there_is_a_bound_on_keys(book: KeyBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    _, first = book.create("acme", ["suggest"])
    book.create("acme", ["suggest"])
    with pytest.raises(
        InvalidInput, match="there are 2 keys that are not revoked, and there can be 2 at most"
    ) as raised:
        book.create("acme", ["suggest"])
    assert "macrofleet keys revoke" in raised.value.remedy
    book.revoke([first.prefix])
    book.create("acme", ["suggest"])
    # A database from elsewhere has more.
    monkeypatch.setattr(module, "MAX_KEYS", 1)
    with pytest.raises(InvalidInput, match="there are 2 keys"):
        book.published()


def test_a_rotated_key_goes_on_for_a_while(book: KeyBook, clock: Clock) -> None:
    _, old = book.create("acme", ["suggest"], lifetime_seconds=30 * DAY, note="desk")
    clock.now += DAY
    key, new = book.rotate(old.prefix, overlap_seconds=HOUR)
    assert key.split("_")[1] == new.prefix
    assert (new.tenant, new.scopes, new.note, new.expires_at) == (
        "acme", ("suggest",), "desk", int(clock.now) + 30 * DAY,
    )  # fmt: skip
    was, now = book.records(tenant="acme")
    assert now == new
    assert (was.replaced_by, was.expires_at, was.revoked_at) == (new.prefix, int(clock.now) + HOUR, None)
    assert was.state(clock.now) == "valid"
    assert was.state(clock.now + HOUR) == "expired"
    with pytest.raises(InvalidInput, match=f"was replaced by {new.prefix}"):
        book.rotate(old.prefix, overlap_seconds=HOUR)


def test_an_overlap_does_not_lengthen_a_life(book: KeyBook, clock: Clock) -> None:
    _, old = book.create("acme", ["suggest"], lifetime_seconds=HOUR)
    book.rotate(old.prefix, overlap_seconds=DAY)
    assert book.records()[0].expires_at == old.expires_at


def test_without_an_overlap_the_old_key_ends_at_once(book: KeyBook, clock: Clock, store: ObjectStore) -> None:
    _, old = book.create("acme", ["suggest"])
    _, new = book.rotate(old.prefix, overlap_seconds=0, lifetime_seconds=DAY)
    assert new.expires_at == int(NOW) + DAY
    assert book.records()[0].state(clock.now) == "revoked"
    publish_keys(book, store)
    assert prefixes(store) == {new.prefix}
    with pytest.raises(InvalidInput, match="was replaced"):
        book.rotate(old.prefix, overlap_seconds=0)


def test_what_is_no_key_any_more_is_not_rotated(book: KeyBook, clock: Clock) -> None:
    _, gone = book.create("acme", ["suggest"])
    _, over = book.create("acme", ["suggest"], lifetime_seconds=HOUR)
    book.revoke([gone.prefix])
    clock.now += HOUR
    for prefix in (gone.prefix, over.prefix):
        with pytest.raises(InvalidInput, match=r"is (revoked|expired)"):
            book.rotate(prefix, overlap_seconds=0)


@pytest.mark.parametrize("prefix", ["0" * 10, "", "mf_0123456789_secret", "%"])
def test_a_prefix_that_is_none(book: KeyBook, prefix: str) -> None:
    _, record = book.create("acme", ["suggest"])
    for call in (lambda: book.revoke([record.prefix, prefix]), lambda: book.rotate(prefix, overlap_seconds=0)):
        with pytest.raises(KeyNotFound) as caught:
            call()
        assert "secret" not in str(caught.value)
    assert book.records() == [record]


def test_all_keys_of_a_tenant_are_revoked(book: KeyBook, clock: Clock, store: ObjectStore) -> None:
    _, one = book.create("acme", ["suggest"])
    _, two = book.create("acme", ["feedback"])
    _, other = book.create("globex", ["suggest"])
    first = book.revoke([one.prefix])
    clock.now += HOUR
    assert [each.prefix for each in book.revoke(tenant="acme")] == [one.prefix, two.prefix]
    assert book.records()[0].revoked_at == first[0].revoked_at, "it stays as it was"
    assert book.revoke(tenant="nobody") == []
    publish_keys(book, store)
    assert prefixes(store) == {other.prefix}


def test_what_expired_long_ago_is_published_no_more(book: KeyBook, clock: Clock, store: ObjectStore) -> None:
    _, over = book.create("acme", ["suggest"], lifetime_seconds=HOUR)
    clock.now += 2 * HOUR
    _, second = book.create("acme", ["suggest"])
    publish_keys(book, store)
    assert prefixes(store) == {over.prefix, second.prefix}
    clock.now += 2 * DAY
    _, third = book.create("acme", ["suggest"])
    publish_keys(book, store)
    assert prefixes(store) == {second.prefix, third.prefix}


def test_publishing_again_writes_nothing(book: KeyBook, store: ObjectStore) -> None:
    assert not is_published(book, store)
    first = publish_keys(book, store)
    assert (first.generation, first.keys, first.written) == (0, 0, True)
    book.create("acme", ["suggest"])
    assert not is_published(book, store)
    assert publish_keys(book, store).generation == 1
    assert is_published(book, store)
    again = publish_keys(book, store)
    assert (again.generation, again.written) == (1, False)


class Interrupting:
    """A store in which something happens just before a write."""

    def __init__(self, inner: ObjectStore, before: Any) -> None:
        self._inner = inner
        self._before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put(self, key: str, data: bytes, **conditions: Any) -> str:
        before, self._before = self._before, lambda: None
        before()
        return self._inner.put(key, data, **conditions)


def test_the_older_of_two_publishers_loses(book: KeyBook, store: ObjectStore) -> None:
    _, old = book.create("acme", ["suggest"])
    publish_keys(book, store)
    _, lost = book.create("acme", ["suggest"])

    def overtake() -> None:
        book.revoke([old.prefix])
        publish_keys(book, store)

    late = publish_keys(book, Interrupting(store, overtake))
    assert (late.generation, late.written) == (3, False)
    assert prefixes(store) == {lost.prefix}, "nothing is lost, and nothing comes back"


def test_the_first_of_two_publishers_is_not_overwritten_unseen(book: KeyBook, store: ObjectStore) -> None:
    book.create("acme", ["suggest"])

    def overtake() -> None:
        book.create("globex", ["suggest"])
        publish_keys(book, store)

    publish_keys(book, Interrupting(store, overtake))
    assert len(prefixes(store)) == 2


def test_the_next_command_mends_what_a_crash_left(book: KeyBook, store: ObjectStore) -> None:
    _, one = book.create("acme", ["suggest"])
    publish_keys(book, store)

    class Broken(Interrupting):
        def put(self, key: str, data: bytes, **conditions: Any) -> str:
            raise StoreUnavailable("gone")

    book.revoke([one.prefix])
    with pytest.raises(StoreUnavailable):
        publish_keys(book, Broken(store, None))
    assert prefixes(store) == {one.prefix}
    _, two = book.create("acme", ["suggest"])
    publish_keys(book, store)
    assert prefixes(store) == {two.prefix}


def test_a_writer_whose_answer_was_lost_is_done(book: KeyBook, store: ObjectStore) -> None:
    book.create("acme", ["suggest"])

    class Forgetful(Interrupting):
        def put(self, key: str, data: bytes, **conditions: Any) -> str:
            self._inner.put(key, data, **conditions)
            return self._inner.put(key, data, **conditions)  # what a library tries again

    assert publish_keys(book, Forgetful(store, None)).written


def test_keys_of_another_database_are_not_replaced_unasked(book: KeyBook, store: ObjectStore, tmp_path: Path) -> None:
    _, kept = book.create("acme", ["suggest"])
    for _ in range(3):
        publish_keys(book, store)
        book.create("acme", ["suggest"])
    publish_keys(book, store)
    with opened_database(DatabaseSettings(url=SecretStr(f"sqlite:///{tmp_path / 'other.db'}"))) as database:
        other = KeyBook(database)
        _, mine = other.create("acme", ["suggest"])
        with pytest.raises(PublishConflict, match="come from another database"):
            publish_keys(other, store)
        assert kept.prefix in prefixes(store)
        before = there(store).generation
        forced = publish_keys(other, store, force=True)
        assert forced.generation > before, "or servers would take it for an older state"
        assert prefixes(store) == {mine.prefix}
        assert not publish_keys(other, store).written


def test_a_database_that_was_restored_does_not_bring_revoked_keys_back(tmp_path: Path, store: ObjectStore) -> None:
    file, copy = tmp_path / "live.db", tmp_path / "copy.db"
    with opened_database(DatabaseSettings(url=SecretStr(f"sqlite:///{file}"))) as database:
        book = KeyBook(database)
        _, revoked = book.create("acme", ["suggest"])
        with sqlite3.connect(file) as live, sqlite3.connect(copy) as backup:
            live.backup(backup)
        live.close()
        backup.close()
        book.revoke([revoked.prefix])
        publish_keys(book, store)
    with opened_database(DatabaseSettings(url=SecretStr(f"sqlite:///{copy}"))) as database:
        restored = KeyBook(database)
        restored.create("acme", ["suggest"])  # the same number of changes, and another state
        with pytest.raises(PublishConflict, match="a later state"):
            publish_keys(restored, store)
        assert prefixes(store) == set()


def test_damage_is_not_written_over_unasked(book: KeyBook, store: ObjectStore) -> None:
    book.create("acme", ["suggest"])
    store.put(ACCESS_KEYS, b"{}")
    with pytest.raises(StoreError, match="is not valid"):
        publish_keys(book, store)
    assert publish_keys(book, store, force=True).written
    assert len(prefixes(store)) == 1


def test_threads_lose_nothing(book: KeyBook, store: ObjectStore) -> None:
    """Each makes keys, revokes every other one and publishes; the store ends with what the database has."""
    gate = threading.Barrier(4)

    def work(number: int) -> set[str]:
        gate.wait()
        kept = set()
        for turn in range(6):
            _, record = book.create(f"t{number}", ["suggest"])
            if turn % 2:
                book.revoke([record.prefix])
            else:
                kept.add(record.prefix)
            publish_keys(book, store)
        return kept

    with ThreadPoolExecutor(4) as pool:
        kept = set().union(*pool.map(work, range(4)))
    assert prefixes(store) == kept
    assert is_published(book, store)
    assert there(store).generation == 4 * (6 + 3)


def _create(address: str) -> str:
    with opened_database(DatabaseSettings(url=SecretStr(address))) as database:
        return KeyBook(database).create("acme", ["suggest"])[1].prefix


def test_processes_may_open_an_empty_database_at_once(address: str) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        made = pool.map(_create, [address] * 6, chunksize=1)
    with opened_database(DatabaseSettings(url=SecretStr(address))) as database:
        assert {each.prefix for each in KeyBook(database).records()} == set(made)


def test_a_rotation_takes_place_once(book: KeyBook) -> None:
    _, old = book.create("acme", ["suggest"])
    gate = threading.Barrier(4)

    def rotate(_: int) -> bool:
        gate.wait()
        try:
            book.rotate(old.prefix, overlap_seconds=HOUR)
        except InvalidInput:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(rotate, range(4))) == [False, False, False, True]
    assert len(book.records()) == 2


def test_a_schema_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "db"
    told = DatabaseSettings(url=SecretStr(f"sqlite:///{file}"))
    with opened_database(told) as database:
        KeyBook(database).create("acme", ["suggest"])
    with sqlite3.connect(file) as later:
        later.execute("UPDATE alembic_version SET version_num = 'keys_9999'")
    later.close()
    with opened_database(told) as database, pytest.raises(InvalidInput, match="a later release"):
        KeyBook(database).records()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nonsense",
        "mysql://user:hunter2@host/x",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite+aiosqlite:///x",
        "postgresql",
    ],
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(InvalidInput, match="MACROFLEET_DATABASE_URL") as caught:
        Database(DatabaseSettings(url=SecretStr(address)))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:hunter2@127.0.0.1:1/x",
        "postgres://user:hunter2@127.0.0.1:1/x",
        "postgresql+psycopg://user:hunter2@127.0.0.1:1/x",
        "postgresql://user@127.0.0.1:1/x?password=hunter2",
    ],
)
def test_a_database_that_is_not_there_is_told_without_its_password(address: str) -> None:
    told = DatabaseSettings(url=SecretStr(address))
    with opened_database(told) as database, pytest.raises(DatabaseUnavailable) as caught:
        KeyBook(database).records()
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert "hunter2" not in repr(told)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"no database" * 100)
    told = DatabaseSettings(url=SecretStr(f"sqlite:///{tmp_path / 'db'}"))
    with opened_database(told) as database, pytest.raises(DatabaseUnavailable, match="not a database"):
        KeyBook(database).records()


# What servers read


def test_a_reader_fetches_what_changed(book: KeyBook, store: ObjectStore) -> None:
    reader = AccessReader(store)
    assert reader.refresh() is None
    _, record = book.create("acme", ["suggest"])
    publish_keys(book, store)
    first = reader.refresh()
    assert first is not None
    assert [key.prefix for key in first.keys] == [record.prefix]
    assert reader.refresh() is first
    book.revoke([record.prefix])
    publish_keys(book, store)
    second = reader.refresh()
    assert second is not None
    assert second.keys == ()


@pytest.mark.parametrize("damage", ["gone", "no json", "older", "another format", "too long"])
def test_a_reader_keeps_to_what_it_has(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(versioned=False)
    good = PublishedKeys(source="0" * 32, generation=5, keys=())
    store.put(ACCESS_KEYS, good.to_bytes())
    reader = AccessReader(store)
    first = reader.refresh()
    match damage:
        case "gone":
            store.delete(ACCESS_KEYS)
        case "no json":
            store.put(ACCESS_KEYS, b"{")
        case "older":
            store.put(ACCESS_KEYS, good.model_copy(update={"generation": 4}).to_bytes())
        case "another format":
            store.put(ACCESS_KEYS, good.to_bytes().replace(b'"format":1', b'"format":2'))
        case "too long":
            real = LocalStore(tmp_path)
            real.put(ACCESS_KEYS, good.to_bytes())
            reader = AccessReader(real)
            first = reader.refresh()
            real.put(ACCESS_KEYS, good.to_bytes() + b" " * 1000)
            monkeypatch.setattr("registry.keys.published.MAX_BYTES", 500)
            with pytest.raises(InvalidInput):
                reader.refresh()
            return
    with pytest.raises(StoreError):
        reader.refresh()
    store.put(ACCESS_KEYS, good.to_bytes())
    assert reader.refresh() == first


def _published(count: int) -> PublishedKeys:
    keys = tuple(
        PublishedKey(
            prefix=f"{n:010x}",
            digest=f"{n:064x}",
            tenant=None if n % 3 else f"t{n}",
            scopes=("operator",) if n % 3 else ("suggest",),
        )
        for n in range(count)
    )
    return PublishedKeys(source="0" * 32, generation=3, keys=keys)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_document_is_json_and_lines(count: int) -> None:
    document = _published(count)
    data = document.to_bytes()
    assert parse_keys(data, where="here") == document
    assert len(data.splitlines()) == count + 2
    # Releases before this one read it as they did, and this one what they wrote.
    assert PublishedKeys.model_validate_json(data) == document
    assert parse_keys(canonical_json(document.model_dump(mode="json")), where="here") == document


def test_keys_are_read_one_by_one() -> None:
    data = _published(3).to_bytes()
    broken = data[: data.index(b"\n", data.index(b"\n") + 1) + 1] + b"nonsense\n"
    heading, keys = read_keys(broken, where="here")
    assert (heading.generation, heading.keys) == (3, ())
    assert next(keys).prefix == "0" * 10
    with pytest.raises(StoreError):
        next(keys)


@pytest.mark.parametrize("damage", ["cut", "a line less", "more behind", "no comma", "a comma more", "too many"])
def test_a_document_that_is_not_whole_is_none(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _published(4).to_bytes().splitlines(keepends=True)
    match damage:
        case "cut":
            lines[-2] = lines[-2][:-9]
            del lines[-1]
        case "a line less":
            del lines[-1]
        case "more behind":
            lines.append(lines[1])
        case "no comma":
            lines[2] = lines[2].replace(b",\n", b"\n")
        case "a comma more":
            lines[4] = lines[4].replace(b"\n", b",\n")
        case "too many":
            monkeypatch.setattr("registry.keys.published.MAX_KEYS", 3)
    with pytest.raises(StoreError, match="is not valid"):
        parse_keys(b"".join(lines), where="here")


def test_a_tenant_with_more_keys_than_a_statement_takes_names_is_revoked(
    book: KeyBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        book.create("acme", ["suggest"])
    _, other = book.create("beta", ["suggest"])
    _, kept = book.create("beta", ["suggest"])
    asked: list[int] = []
    real = sa.Column.in_

    def in_(column: sa.Column[Any], names: list[str]) -> Any:
        asked.append(len(names))
        return real(column, names)

    monkeypatch.setattr(sa.Column, "in_", in_)
    assert len(book.revoke([other.prefix], tenant="acme")) == 4
    assert max(asked) == 1
    assert [key.prefix for key in book.published().keys] == [kept.prefix]


@given(st.binary(max_size=200))
def test_what_is_no_document_is_an_error_of_the_store(data: bytes) -> None:
    with pytest.raises(StoreError):
        parse_keys(data, where="here")


@settings(max_examples=50)
@given(
    st.sampled_from(["tenant", "scopes", "digest", "prefix", "expires"]),
    st.sampled_from([None, "", "A/b", [], ["all"], "Operator", -1, ["operator"], 1.5, {}]),
)
def test_a_key_that_is_not_quite_one_spoils_the_document(field: str, value: object) -> None:
    """A document is taken whole or not at all: half of the keys could be the wrong half."""
    key = {"prefix": "0" * 10, "digest": "0" * 64, "tenant": "acme", "scopes": ["suggest"], "expires": None}
    if field == "expires" and value is None:
        return
    document = {"format": 1, "source": "0" * 32, "generation": 1, "keys": [{**key, field: value}]}
    with pytest.raises(StoreError):
        parse_keys(json.dumps(document).encode(), where="here")
