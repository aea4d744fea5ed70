"""A claim and a collection at the same time, in every order of their requests that takes up to three turns."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from registry.errors import ModelNotFound, PreconditionFailed, PublishConflict, StoreError, StoreUnavailable
from registry.fleet.control import roll_back, set_shadow
from registry.fleet.state import read_fleet, update_fleet
from registry.garbage.collecting import NOTICE_SECONDS, STALE_SECONDS, Notice, announced, claim, claim_version
from registry.garbage.retention import DAY, Retention
from registry.garbage.store_garbage import Collected, collect_garbage
from registry.layout import LABELS, MANIFEST, WEIGHTS, collecting_key, model_key
from registry.publishing import publish_bundle
from tests.registry.garbage_world import TENANT, is_whole, made, publish, serve, serving, version
from tests.registry.memory_store import Actor, MemoryStore, SteeredStore

RETENTION = Retention(keep=1)
OLD, NEW = 0, 1


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(versioned=False)


def publisher(store: SteeredStore) -> None:
    publish_bundle(store, made(OLD)[0], tenant=TENANT, sleep=store.sleep)
    update_fleet(store, {TENANT: serving(OLD)})


def operator(store: SteeredStore) -> None:
    roll_back(store, [TENANT], to=version(OLD))


def collect(store: MemoryStore | SteeredStore) -> Collected:
    now = store.now if isinstance(store, MemoryStore) else store.actor.since
    return collect_garbage(store, retention=RETENTION, clock=lambda: now, threads=1)


def collector(store: SteeredStore) -> None:
    store.repeats = True
    collect(store)


def world(*, versioned: bool, partial: bool = False) -> MemoryStore:
    """A tenant that serves NEW, and OLD, which nobody needs any more; all of it is old."""
    store = MemoryStore(versioned=versioned)
    publish(store, OLD)
    store.now += 10 * DAY
    publish(store, NEW)
    serve(store, NEW)
    if partial:
        store.purge(list(store.states(model_key(TENANT, version(OLD), MANIFEST))))
    store.now += 10 * DAY
    return store


def take_turns(first: Actor, second: Actor, turn: int, other: int) -> bool:
    """The first sends `turn` requests, the second `other`, then the first all of its, then the second.

    Returns:
        Whether both had so many to send.
    """
    for _ in range(turn):
        first.step()
    for _ in range(other):
        second.step()
    reached = first.waits_for is not None and second.waits_for is not None
    while first.waits_for is not None:
        for _ in range(4 if first.waits_for == "sleep" else 0):
            second.step()
        first.step()
    second.finish()
    return reached


@pytest.mark.parametrize("collector_first", [True, False], ids=["collector first", "claim first"])
@pytest.mark.parametrize(
    ("work", "partial", "versioned"),
    [(publisher, False, False), (publisher, True, False), (operator, False, False), (publisher, True, True)],
    ids=["published again", "publishing resumed", "rolled back to", "in a bucket with versions"],
)
def test_a_version_that_is_claimed_is_whole(
    work: Callable[[SteeredStore], None], partial: bool, versioned: bool, collector_first: bool
) -> None:
    outcomes: set[str] = set()
    turn = other = 0
    while True:
        store = world(versioned=versioned, partial=partial)
        claimer, collecting = Actor(store, work), Actor(store, collector)
        actors = (collecting, claimer) if collector_first else (claimer, collecting)
        reached = take_turns(*actors, turn, other)
        assert collecting.problem is None
        entry = read_fleet(store).entries[TENANT]
        assert is_whole(store, str(entry.version)), (turn, other)
        assert is_whole(store, version(NEW))
        if claimer.problem is None:
            assert entry.version == version(OLD)
            assert is_whole(store, version(OLD)), (turn, other)
        else:
            # It never came to its turn between notice and end, or cannot publish what it found half gone.
            assert isinstance(claimer.problem, PublishConflict if work is publisher else ModelNotFound)
            assert entry.version == version(NEW)
        outcomes.add(type(claimer.problem).__name__)
        if reached:
            other += 1
        elif other:
            turn, other = turn + 1, 0
        else:
            break
    assert turn > 5
    assert "NoneType" in outcomes


# Notices


def notice(store: MemoryStore) -> Notice:
    return Notice.parse(store.get(collecting_key(TENANT)).data, what="notice", error=StoreError)


def test_a_notice_stands_while_something_is_deleted(store: MemoryStore) -> None:
    with announced(store, TENANT, ["b" * 16, "a" * 16], now=lambda: store.now) as standing:
        assert standing is not None
        assert standing.versions == {"a" * 16, "b" * 16}
        assert notice(store).versions == ("a" * 16, "b" * 16)
    assert list(store.states()) == []


def test_two_collectors_are_not_at_work_on_one_tenant(store: MemoryStore) -> None:
    with announced(store, TENANT, ["a" * 16], now=lambda: store.now):
        store.now += STALE_SECONDS
        before = notice(store)
        with announced(store, TENANT, ["b" * 16], now=lambda: store.now) as second:
            assert second is None
        assert notice(store) == before
        with announced(store, "globex", ["b" * 16], now=lambda: store.now) as elsewhere:
            assert elsewhere is not None
        store.now -= STALE_SECONDS


def test_a_collector_goes_on_where_one_died_an_hour_ago(store: MemoryStore) -> None:
    with pytest.raises(KeyboardInterrupt), announced(store, TENANT, ["a" * 16], now=lambda: store.now):
        raise KeyboardInterrupt
    store.now += STALE_SECONDS + 1
    with announced(store, TENANT, ["b" * 16], now=lambda: store.now) as standing:
        assert standing is not None
        assert standing.versions == {"a" * 16, "b" * 16}
    assert list(store.states()) == []


def test_a_collector_that_takes_too_long_deletes_nothing_more_and_leaves_its_notice(store: MemoryStore) -> None:
    def take_too_long() -> None:
        with announced(store, TENANT, ["a" * 16], now=lambda: store.now) as standing:
            assert standing is not None
            standing.check()
            store.now += NOTICE_SECONDS

    with pytest.raises(StoreUnavailable, match="too long"):
        take_too_long()
    assert notice(store).versions == ("a" * 16,)


def test_ones_own_notice_whose_answer_was_lost_is_ones_own(store: MemoryStore) -> None:
    class LosesAnswers(MemoryStore):
        def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
            super().put(key, data, if_match=if_match, if_absent=if_absent)
            raise PreconditionFailed("the client tried once more")

    lossy = LosesAnswers(versioned=False)
    with announced(lossy, TENANT, ["a" * 16], now=lambda: lossy.now) as standing:
        assert standing is not None
    assert list(lossy.states()) == []


# Claims


def test_a_claim_makes_a_version_young(store: MemoryStore) -> None:
    publish(store, OLD)
    store.now += 10 * DAY
    assert claim(store, made(OLD)[1])
    (state,) = store.states(model_key(TENANT, version(OLD), MANIFEST))
    assert state.modified == store.now


def test_a_version_that_is_about_to_go_cannot_be_claimed(store: MemoryStore) -> None:
    publish(store, OLD)
    with announced(store, TENANT, [version(NEW)], now=lambda: store.now):
        assert claim(store, made(OLD)[1]), "another one is"
    with announced(store, TENANT, [version(OLD)], now=lambda: store.now):
        assert not claim(store, made(OLD)[1])
        with pytest.raises(ModelNotFound, match="or is being deleted"):
            claim_version(store, TENANT, version(OLD))
    claim_version(store, TENANT, version(OLD))


def test_a_version_that_is_about_to_go_is_no_shadow() -> None:
    store = world(versioned=False)
    with announced(store, TENANT, [version(OLD)], now=lambda: store.now), pytest.raises(ModelNotFound):
        set_shadow(store, TENANT, version(OLD))
    assert read_fleet(store).entries[TENANT].shadow is None
    set_shadow(store, TENANT, version(OLD))
    collect(store)
    assert is_whole(store, version(OLD))


@pytest.mark.parametrize("name", [WEIGHTS, LABELS])
@pytest.mark.parametrize("data", [None, b"", b"other"])
def test_a_version_that_is_not_whole_cannot_be_claimed(store: MemoryStore, name: str, data: bytes | None) -> None:
    publish(store, OLD)
    if data is None:
        store.delete(model_key(TENANT, version(OLD), name))
    else:
        store.put(model_key(TENANT, version(OLD), name), data)
    with pytest.raises(ModelNotFound, match="not whole"):
        claim_version(store, TENANT, version(OLD))


def test_publishing_waits_until_what_it_writes_is_no_longer_deleted(store: MemoryStore) -> None:
    publish(store, OLD)
    standing = announced(store, TENANT, [version(OLD)], now=lambda: store.now)
    standing.__enter__()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            store.purge(list(store.states(model_key(TENANT, version(OLD), ""))))
            standing.__exit__(None, None, None)

    publish_bundle(store, made(OLD)[0], tenant=TENANT, sleep=sleep)
    assert is_whole(store, version(OLD))
    assert pauses == sorted(pauses)
    assert len(pauses) == 3


def test_publishing_gives_up_on_a_collector_that_died(store: MemoryStore) -> None:
    pauses: list[float] = []
    with (
        announced(store, TENANT, [version(OLD)], now=lambda: store.now),
        pytest.raises(PublishConflict, match="garbage collect"),
    ):
        publish_bundle(store, made(OLD)[0], tenant=TENANT, sleep=pauses.append)
    assert 10 < sum(pauses) < 60
