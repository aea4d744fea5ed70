"""One holder a tenant: taking, renewing, losing and releasing a lease, and what the store's failures make of it."""

from __future__ import annotations

import logging
import threading

import pytest

from registry.errors import InvalidInput, InvalidTenant, LeaseHeld, LeaseLost, StoreError, StoreUnavailable
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import lease_key
from registry.leases import Leases, LeaseState, this_process
from tests.registry.lease_world import SECONDS, TENANT, World, holds


@pytest.fixture
def world() -> World:
    return World()


def keepers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"lease of {TENANT}"]


def test_a_lease_is_an_object_that_says_who_and_until_when(world: World) -> None:
    lease = world.run("process 1 on host").take(TENANT)
    state = world.store.lease()
    assert (state.holder, state.token, state.released, state.seconds) == ("process 1 on host", 1, False, SECONDS)
    assert (state.expires_at - state.taken_at).total_seconds() == pytest.approx(SECONDS, abs=0.1)
    assert (lease.tenant, lease.token) == (TENANT, 1)
    assert holds(lease)


def test_a_released_lease_is_taken_at_once_and_keeps_its_token(world: World) -> None:
    first = world.run("a").take(TENANT)
    first.release()
    assert not holds(first)
    assert world.store.lease().released
    before = world.clock.now
    second = world.run("b").take(TENANT)
    assert (second.token, world.clock.now) == (2, before)
    first.release()
    assert world.store.lease().holder == "b", "the second release is none"
    assert holds(second)


def test_who_renews_while_another_waits_keeps_it_and_is_named(world: World) -> None:
    lease = world.run("process 1 on host").take(TENANT)
    world.clock.meanwhile = lease.renew
    with pytest.raises(LeaseHeld, match=r"acme is being worked on by process 1 on host, until \d{4}-.* UTC or longer"):
        world.run("b").take(TENANT)
    assert world.clock.now <= 1001, "one renewal shows that it lives"
    assert world.store.lease().token == 1


def test_what_is_released_while_another_waits_is_taken(world: World) -> None:
    lease = world.run("a").take(TENANT)
    world.clock.meanwhile = lease.release
    assert world.run("b").take(TENANT).token == 2
    assert world.clock.now <= 1001


def test_a_holder_that_is_gone_is_replaced_after_its_own_time_not_before(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    gone = world.run("a", seconds=30).take(TENANT)
    seen: list[bool] = []
    world.clock.meanwhile = lambda: seen.append(holds(gone))
    lease = world.run("b", seconds=5).take(TENANT)
    assert 1030 < world.clock.now < 1031
    assert seen[0], "it held when the other one came"
    assert not seen[-1]
    assert (lease.token, world.store.lease().holder) == (2, "b")
    assert "taken over from a" in caplog.text


def test_time_that_passed_before_somebody_looked_counts_for_nothing(world: World) -> None:
    """Whoever looks knows only what it saw itself: no clock of another machine, and none of the store."""
    world.run("a").take(TENANT)
    world.clock.now += 10 * SECONDS
    before = world.clock.now
    world.run("b").take(TENANT)
    assert world.clock.now - before >= SECONDS


def test_a_lease_that_ran_out_is_lost_though_nobody_took_it(world: World) -> None:
    lease = world.run("a").take(TENANT)
    world.clock.now += SECONDS
    with pytest.raises(LeaseLost, match="acme has run out") as caught:
        lease.check()
    assert caught.value.remedy
    with pytest.raises(LeaseLost):
        lease.renew()


def test_renewing_counts_from_before_the_write(world: World) -> None:
    lease = world.run("a").take(TENANT)

    def slowly() -> None:
        world.clock.now += 7

    world.store.before_put = slowly
    lease.renew()
    world.clock.now += 2.9
    assert holds(lease)
    world.clock.now += 0.1
    assert not holds(lease)


def test_taking_counts_from_before_the_write(world: World) -> None:
    def slowly() -> None:
        world.clock.now += SECONDS

    world.store.before_put = slowly
    assert not holds(world.run("a").take(TENANT))


def test_a_check_asks_nobody(world: World) -> None:
    lease = world.run("a").take(TENANT)
    requests = world.store.requests
    lease.check()
    assert world.store.requests == requests


def test_taking_and_releasing_costs_three_requests(world: World) -> None:
    world.run("a").take(TENANT).release()
    before = world.store.requests
    world.run("a").take(TENANT).release()
    assert world.store.requests - before == 3


def test_a_write_that_comes_after_a_takeover_says_who_has_it(world: World) -> None:
    lease = world.run("a").take(TENANT)
    world.store.before_put = lambda: world.run("b").take(TENANT)
    with pytest.raises(LeaseLost, match="was taken over by b"):
        lease.renew()
    with pytest.raises(LeaseLost, match="was taken over by b"):
        lease.check()
    lease.release()
    state = world.store.lease()
    assert (state.holder, state.released) == ("b", False), "a lease that was lost is not released"


def test_a_lease_that_is_lost_late_is_not_released(world: World) -> None:
    lease = world.run("a").take(TENANT)
    world.run("b").take(TENANT)
    lease.release()
    assert not world.store.lease().released


@pytest.mark.parametrize("released", [False, True])
def test_who_is_quicker_between_looking_and_writing_has_it(world: World, released: bool) -> None:
    quicker = world.run("b")

    def intervene() -> None:
        lease = quicker.take(TENANT)
        if released:
            lease.release()
        else:
            world.clock.meanwhile = lease.renew

    world.store.before_put = intervene
    if released:
        assert world.run("a").take(TENANT).token == 2
    else:
        with pytest.raises(LeaseHeld, match="worked on by b"):
            world.run("a").take(TENANT)


def test_a_lease_that_always_changes_hands_is_given_up(world: World) -> None:
    quicker = world.run("b")

    def intervene() -> None:
        quicker.take(TENANT).release()
        world.store.before_put = intervene

    world.store.before_put = intervene
    with pytest.raises(LeaseHeld):
        world.run("a").take(TENANT)


# The store fails.


@pytest.mark.parametrize("step", ["take", "renew", "release"])
def test_a_retry_refused_by_ones_own_success_is_success(world: World, step: str) -> None:
    lease = None
    for now in ("take", "renew", "release"):
        if now == step:
            world.store.faults = ["refused answer"]
        if lease is None:
            lease = world.run("a").take(TENANT)
        else:
            getattr(lease, now)()
    assert not world.store.faults
    state = world.store.lease()
    assert (state.holder, state.token, state.renewals, state.released) == ("a", 1, 1, True)
    assert world.run("b").take(TENANT).token == 2


def test_a_renewal_whose_answer_was_lost_is_made_again(world: World) -> None:
    lease = world.run("a").take(TENANT)
    world.store.faults = ["lost answer"]
    with pytest.raises(StoreUnavailable):
        lease.renew()
    assert holds(lease), "it holds as long as it did"
    world.clock.now += 9
    lease.renew()
    world.clock.now += 9
    assert holds(lease)


def test_a_taking_whose_answer_was_lost_is_nobodys_until_its_time_is_over(world: World) -> None:
    world.store.faults = ["lost answer"]
    with pytest.raises(StoreUnavailable):
        world.run("a").take(TENANT)
    assert world.run("a").take(TENANT).token == 2
    assert world.clock.now >= 1000 + SECONDS


def test_a_store_that_refuses_what_it_has_written_again_and_again_is_its_failure(world: World) -> None:
    lease = world.run("a").take(TENANT)
    world.store.faults = ["refused answer"] * 4
    with pytest.raises(StoreError, match="a retry found"):
        lease.renew()
    lease.renew()
    assert holds(lease)


def test_a_damaged_lease_is_named(world: World) -> None:
    world.store.objects[lease_key(TENANT)] = b'{"token": 0}'
    with pytest.raises(StoreError, match=r"tenants/acme/lease\.json is not valid"):
        world.run("a").take(TENANT)


def test_a_lease_that_claims_to_hold_for_days_is_damaged(world: World) -> None:
    world.run("a").take(TENANT)
    long = world.store.lease().model_copy(update={"seconds": 86_400.0})
    world.store.objects[lease_key(TENANT)] = long.to_bytes()
    with pytest.raises(StoreError, match="seconds"):
        world.run("b").take(TENANT)


def test_a_lease_object_that_was_removed_starts_above_what_the_fleet_has_seen(world: World) -> None:
    update_fleet(world.store, {TENANT: lambda _: FleetEntry().published("a" * 16, "a" * 64, token=41)})
    assert world.run("a").take(TENANT).token == 42


def test_a_tenant_that_is_deleted_while_one_waits_is_left_alone(world: World) -> None:
    world.run("the deletion").take(TENANT)
    world.clock.meanwhile = lambda: world.store.delete(lease_key(TENANT))
    with pytest.raises(LeaseHeld, match="the deletion"):
        world.run("b").take(TENANT)
    assert not world.store.objects


def test_a_tenant_that_is_deleted_while_one_holds_it_is_not_made_again(world: World) -> None:
    lease = world.run("a").take(TENANT)
    world.store.delete(lease_key(TENANT))
    with pytest.raises(LeaseLost, match="was removed"):
        lease.renew()
    lease.release()
    assert not world.store.objects


def test_fields_of_a_later_release_do_not_keep_an_older_one_away(world: World) -> None:
    world.run("a").take(TENANT).release()
    later = LeaseState.model_validate({**world.store.lease().model_dump(), "purpose": "training"})
    world.store.objects[lease_key(TENANT)] = later.to_bytes()
    assert world.run("b").take(TENANT).token == 2


# Holding one while the work lasts.


def test_a_held_lease_is_renewed_and_released(world: World) -> None:
    renewed = threading.Event()
    with world.run("a", every=0.001).hold(TENANT) as lease:
        for _ in range(15):
            world.store.before_put = renewed.set
            assert renewed.wait(30)
            renewed.clear()
            world.clock.now += SECONDS / 5  # more than it holds for, in all
        lease.check()
    assert world.store.lease().released
    assert keepers() == []


def test_a_lease_is_released_when_the_work_fails(world: World) -> None:
    with pytest.raises(ZeroDivisionError), world.run("a").hold(TENANT):
        1 / 0  # noqa: B018
    assert world.store.lease().released
    assert keepers() == []


def test_work_that_hangs_loses_its_lease(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def hang() -> None:
        world.clock.now += 100

    with world.run("a", longest=100, every=0.001).hold(TENANT) as lease:
        (keeper,) = keepers()
        world.store.before_put = hang
        keeper.join(30)
        assert not keeper.is_alive()
        with pytest.raises(LeaseLost):
            lease.check()
        assert world.run("b").take(TENANT).token == 2
    assert "takes too long" in caplog.text
    assert not world.store.lease().released, "b's"


def test_a_keeper_that_lost_it_says_so_and_ends(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with world.run("a", every=0.001).hold(TENANT) as lease:
        (keeper,) = keepers()
        world.store.before_put = lambda: world.run("b").take(TENANT)
        keeper.join(30)
        assert not keeper.is_alive()
        with pytest.raises(LeaseLost, match="taken over by b"):
            lease.check()
    assert "tenant acme: the lease of tenant acme was taken over by b" in caplog.text


def test_a_keeper_outlives_a_store_that_is_down_for_a_while(world: World, caplog: pytest.LogCaptureFixture) -> None:
    renewed = threading.Event()

    def count() -> None:
        if world.store.faults:
            world.store.before_put = count
        else:
            renewed.set()

    with world.run("a", every=0.001).hold(TENANT) as lease:
        world.store.faults = ["down", "lost answer", "down"]
        world.store.before_put = count
        assert renewed.wait(30)
        lease.check()
    assert "its lease was not renewed: the store is down" in caplog.text
    assert world.store.lease().released


def test_a_release_that_fails_does_not_undo_the_work(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with world.run("a").hold(TENANT):
        world.store.faults = ["down"]
    assert "tenant acme: its lease was not released: the store is down" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


# What cannot be used.


@pytest.mark.parametrize("holder", ["", "a\nb", "a\x1b[2J", "é", "a" * 201])
def test_a_holder_is_a_short_line_of_text(world: World, holder: str) -> None:
    with pytest.raises(InvalidInput, match="holder of a lease"):
        Leases(world.store, holder=holder)


@pytest.mark.parametrize("seconds", [0, -1, 3601, float("nan"), float("inf")])
def test_a_lease_holds_for_a_bounded_time(world: World, seconds: float) -> None:
    with pytest.raises(InvalidInput, match="cannot hold for"):
        Leases(world.store, holder="a", seconds=seconds)


@pytest.mark.parametrize("name", ["", "..", "a/b", "ACME"])
def test_a_name_that_is_no_tenants_has_no_lease(world: World, name: str) -> None:
    with pytest.raises(InvalidTenant):
        world.run("a").take(name)


def test_this_process_can_hold_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.leases.platform.node", lambda: "höst \n" + "x" * 300)
    Leases(world.store, holder=this_process())
    assert this_process().endswith("on h?st??" + "x" * 94)


def test_the_clock_of_a_process_goes_on_while_the_machine_sleeps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = Leases(world.store, holder="a").take(TENANT)
    assert holds(lease)
    monkeypatch.setattr("registry.leases.time.clock_gettime", lambda clock: float("inf"))
    assert not holds(lease)
