from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.fan import Hand, HereFan
from flows.outcome import Outcome
from flows.progress import RunProgress, listener
from flows.runs import RunPlan
from registry.store.local import LocalStore

RUN = "20261128T023000-f0bdc153127c"
Event = tuple[str, int, int, float]


@pytest.fixture
def told() -> Iterator[list[Event]]:
    events: list[Event] = []
    token = listener.set(lambda *event: events.append(event))
    yield events
    listener.reset(token)


def outcome(tenant: str) -> Outcome:
    return Outcome(tenant=tenant, state="trained")


def test_a_run_that_is_cut_into_shards_counts_over_all_of_them(tmp_path: Path, told: list[Event]) -> None:
    plan = RunPlan(tenants=tuple(f"tenant-{number}" for number in range(12)), shards=4, options={})
    assert len(plan.cut()) > 1
    progress = RunProgress(len(plan.tenants))

    def train(tenants: Sequence[str], hand: Hand) -> None:
        for tenant in tenants:
            hand.begin(tenant)
            progress.told(tenant, 0.0)
            progress.told(tenant, 0.5)
            hand.end(outcome(tenant))

    HereFan(LocalStore(tmp_path), RUN, train, told=progress.ended).train(plan.cut())
    assert {total for _, _, total, _ in told} == {12}
    assert [done for _, done, _, _ in told] == [done for n in range(12) for done in (n, n, n + 1)]
    shares = [share for *_, share in told]
    assert shares == sorted(shares), "it never goes back"
    assert told[-1][1:] == (12, 12, 1.0)


def test_what_ended_is_counted_once_and_is_not_begun_again(told: list[Event]) -> None:
    progress = RunProgress(2)
    progress.ended(outcome("acme").as_dict())
    progress.ended(outcome("acme").as_dict())
    progress.told("acme", 0.3)
    assert told == [("acme", 1, 2, 0.5)]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.data())
def test_a_tenant_that_ends_never_takes_the_share_back(shares: list[float], data: st.DataObject) -> None:
    events: list[Event] = []
    token = listener.set(lambda *event: events.append(event))
    try:
        progress = RunProgress(len(shares))
    finally:
        listener.reset(token)
    for number, share in enumerate(shares):
        progress.told(f"tenant-{number}", share)
    for number in data.draw(st.permutations(range(len(shares)))):
        progress.told(f"tenant-{number}", 1.0)
        progress.ended(outcome(f"tenant-{number}").as_dict())
    assert [event[3] for event in events] == sorted(event[3] for event in events)
    assert events[-1][1:] == (len(shares), len(shares), 1.0)


def test_the_listener_is_that_of_the_run_in_whatever_thread_a_tenant_ends(told: list[Event]) -> None:
    progress = RunProgress(1)
    thread = threading.Thread(target=progress.ended, args=(outcome("acme").as_dict(),))
    thread.start()
    thread.join()
    assert told == [("acme", 1, 1, 1.0)]


def test_nobody_has_to_listen() -> None:
    progress = RunProgress(1)
    progress.told("acme", 0.5)
    progress.ended(outcome("acme").as_dict())
