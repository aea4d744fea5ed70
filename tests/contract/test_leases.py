"""Leases over both stores: what their conditional writes must be good for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry.errors import LeaseHeld, LeaseLost
from registry.layout import lease_key
from registry.leases import Lease, Leases
from registry.store import ObjectStore, open_store
from registry.store.local import LocalStore
from tests.registry.lease_world import Clock, holds


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    return open_store(request.getfixturevalue("s3_settings"))


def run(store: ObjectStore, name: str, clock: Clock) -> Leases:
    return Leases(store, holder=name, seconds=10, clock=clock, sleep=clock.sleep)


def test_a_lease_goes_through_its_life(store: ObjectStore) -> None:
    clock = Clock()
    first = run(store, "a", clock).take("acme")
    first.renew()
    clock.meanwhile = first.renew
    with pytest.raises(LeaseHeld, match="worked on by a, until"):
        run(store, "b", clock).take("acme")
    clock.meanwhile = first.release
    second = run(store, "b", clock).take("acme")
    clock.meanwhile = lambda: None
    third = run(store, "c", clock).take("acme")
    assert [lease.token for lease in (first, second, third)] == [1, 2, 3]
    assert [holds(lease) for lease in (first, second, third)] == [False, False, True]
    with pytest.raises(LeaseLost):
        second.renew()
    second.release()
    third.renew()
    third.release()
    assert [info.key for info in store.list()] == [lease_key("acme")]


def test_a_write_on_its_way_while_another_takes_over_is_refused(store: ObjectStore) -> None:
    clock = Clock()
    lease = run(store, "a", clock).take("acme")
    # Its own clock stands still: the machine was paused between its check and its write.
    other = Clock()
    run(store, "b", other).take("acme")
    with pytest.raises(LeaseLost, match="taken over by b"):
        lease.renew()


@pytest.mark.parametrize("there", [False, True])
def test_one_of_eight_takers_wins(store: ObjectStore, there: bool) -> None:
    class Waits(Exception):
        pass

    def wait(_: float) -> None:
        raise Waits

    def take(number: int) -> Lease | None:
        leases = Leases(store, holder=f"taker {number}", sleep=wait)
        barrier.wait()
        try:
            return leases.take("acme")
        except Waits:
            return None

    if there:
        run(store, "before", Clock()).take("acme").release()
    barrier = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        taken = [lease for lease in pool.map(take, range(8)) if lease is not None]
    assert [lease.token for lease in taken] == [1 + there]
    assert holds(taken[0])


def test_a_thread_renews_what_is_held(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed = threading.Event()
    renew = Lease.renew

    def renew_and_say_so(lease: Lease) -> None:
        renew(lease)
        renewed.set()

    monkeypatch.setattr(Lease, "renew", renew_and_say_so)
    clock = Clock()
    leases = Leases(store, holder="a", seconds=10, every=0.001, clock=clock, sleep=clock.sleep)
    with leases.hold("acme") as lease:
        assert renewed.wait(60)
        lease.check()
    assert run(store, "b", clock).take("acme").token == 2
