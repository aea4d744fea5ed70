from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.runs import ShardRecord, parse_shard
from flows.shard_book import ShardBook
from registry.errors import ShardTaken, StoreUnavailable
from registry.layout import run_shard_key
from registry.store.local import LocalStore

RUN = "20261128T023000-f0bdc153127c"
KEY = run_shard_key(RUN, 3)
# Longer than any test: nothing is written but what a test waits for, or asks for.
NEVER = 1e6


class Store(LocalStore):
    """Says when a record was written, and fails as a test wants it to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.written = threading.Semaphore(0)
        self.down = False
        self.answers_lost = 0

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        if self.down:
            raise StoreUnavailable("the store does not answer")
        etag = super().put(key, data, if_match=if_match, if_absent=if_absent)
        if self.answers_lost:
            self.answers_lost -= 1
            raise StoreUnavailable("the answer was lost")
        self.written.release()
        return etag

    def record(self) -> ShardRecord:
        """The shard's record."""
        return parse_shard(self.get(KEY).data)

    def wait_for(self, *tenants: str) -> ShardRecord:
        """The record once these tenants are in it."""
        while (record := self.record()) is not None:
            if [one["tenant"] for one in record.outcomes] == list(tenants):
                return record
            assert self.written.acquire(timeout=30)
        raise AssertionError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def trained(tenant: str) -> dict[str, str]:
    return {"tenant": tenant, "state": "trained"}


def open_book(store: Store, *, attempt: int | None = None, beat_seconds: float = NEVER) -> ShardBook:
    return ShardBook(store, RUN, 3, attempt=attempt, beat_seconds=beat_seconds)


def given_out(store: Store, attempt: int = 1, *tenants: str) -> None:
    """The record as a parent writes it when it gives the shard out."""
    record = ShardRecord(attempt=attempt, written_at=datetime.now(UTC), outcomes=tuple(trained(one) for one in tenants))
    store.put(KEY, record.to_bytes())


def test_outcomes_are_in_the_store_as_they_come_and_the_end_is_said(store: Store) -> None:
    given_out(store)
    with open_book(store, attempt=1) as book:
        assert store.record().owner != "", "a claim says who has it"
        book.begin("acme")
        book.end(trained("acme"))
        record = store.wait_for("acme")
        assert (record.done, record.working) == (False, ())
        book.begin("globex")
        book.end(trained("globex"))
    record = store.record()
    assert ([one["tenant"] for one in record.outcomes], record.done) == (["acme", "globex"], True)


def test_who_is_worked_on_is_in_the_store_before_it_can_kill_the_process(store: Store) -> None:
    given_out(store)
    with open_book(store, attempt=1) as book:
        book.begin("poison")
        while store.record().working != ("poison",):
            assert store.written.acquire(timeout=30)


def test_the_record_changes_even_where_nothing_happens(store: Store) -> None:
    given_out(store)
    with open_book(store, attempt=1, beat_seconds=0.01):
        first = store.record().beat
        while store.record().beat < first + 3:
            assert store.written.acquire(timeout=30)


def test_a_successor_goes_on_where_a_process_that_failed_stopped(store: Store) -> None:
    given_out(store)

    def fails() -> None:
        with open_book(store, attempt=1) as book:
            book.end(trained("acme"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert (store.record().done, len(store.record().outcomes)) == (False, 1)
    with open_book(store) as book:
        assert list(book.outcomes) == ["acme"]
        assert store.record().attempt == 2


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_shard_that_was_given_out_again_is_left_alone(store: Store, attempt: int) -> None:
    given_out(store, 2)
    with pytest.raises(ShardTaken), open_book(store, attempt=attempt):
        raise AssertionError("it was entered")


def test_one_flow_run_started_twice_works_once(store: Store) -> None:
    given_out(store)
    with open_book(store, attempt=1), pytest.raises(ShardTaken), open_book(store, attempt=1):
        raise AssertionError("it was entered")


def test_whoever_is_replaced_finds_out_at_the_next_write_and_overwrites_nothing(store: Store) -> None:
    given_out(store)

    def works() -> None:
        with open_book(store, attempt=1) as book:
            given_out(store, 2, "acme")
            book.beat()
            book.end(trained("globex"))

    with pytest.raises(ShardTaken):
        works()
    record = store.record()
    assert (record.attempt, [one["tenant"] for one in record.outcomes]) == (2, ["acme"])


def test_a_run_that_was_forgotten_is_over(store: Store) -> None:
    given_out(store)

    def works() -> None:
        with open_book(store, attempt=1) as book:
            store.delete(KEY)
            book.beat()
            book.begin("acme")

    with pytest.raises(ShardTaken):
        works()


def test_one_that_has_nothing_left_to_do_finds_out_at_its_end(store: Store) -> None:
    given_out(store)

    def works() -> None:
        with open_book(store, attempt=1):
            given_out(store, 2)

    with pytest.raises(ShardTaken):
        works()
    assert not store.record().done


def test_a_store_that_fails_for_a_while_loses_nothing(store: Store) -> None:
    given_out(store)
    with open_book(store, attempt=1) as book:
        store.down = True
        with pytest.raises(StoreUnavailable):
            book.beat()
        book.end(trained("acme"))
        store.down = False
    assert [one["tenant"] for one in store.record().outcomes] == ["acme"]


def test_a_write_whose_answer_was_lost_is_found_to_be_ones_own(store: Store) -> None:
    given_out(store)
    with open_book(store, attempt=1) as book:
        store.answers_lost = 1
        with pytest.raises(StoreUnavailable):
            book.beat()
        book.end(trained("acme"))
        book.beat()
        assert [one["tenant"] for one in store.record().outcomes] == ["acme"]


def test_a_claim_whose_answer_was_lost_is_found_to_be_ones_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    given_out(store)
    real, calls = store.put, []

    def refused_after_all(key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        calls.append(key)
        etag = real(key, data, if_match=if_match, if_absent=if_absent)
        # A client that retries is refused by its own first success.
        return real(key, data, if_match=if_match) if len(calls) == 1 else etag

    monkeypatch.setattr(store, "put", refused_after_all)
    with open_book(store, attempt=1) as book:
        book.end(trained("acme"))
    assert store.record().done


def test_the_end_is_written_though_the_store_fails_at_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.retrying.stamina.retry_context", _at_once(store))
    given_out(store)
    with open_book(store, attempt=1) as book:
        book.end(trained("acme"))
        store.wait_for("acme")
        store.down = True
    assert store.record().done


def _at_once(store: Store) -> object:
    """stamina's retries without their waits; the store comes back after the first."""

    def attempts(on: type[Exception], **_: object) -> Iterator[contextlib.AbstractContextManager[None]]:
        yield contextlib.suppress(on)
        store.down = False
        yield contextlib.nullcontext()

    return attempts


def test_what_another_release_adds_is_passed_over() -> None:
    assert parse_shard(b'{"attempt":2,"written_at":"2026-11-28T02:30:00Z","later":1}\n').attempt == 2
