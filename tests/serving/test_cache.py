"""The memory tier: every interleaving that matters, driven by hand on one event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from registry.errors import BundleCorrupt, LoadBackingOff, NotReady, Overloaded, TenantNotFound
from tests.serving.cache_world import Holder, World, loaded, ref
from tests.serving.helpers import PATIENCE_SECONDS, spin

pytestmark = pytest.mark.anyio


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.fleet = {"a": "1", "b": "1", "c": "1"}
    yield made
    assert not made.pending


async def test_leases_that_come_together_share_one_load(world: World) -> None:
    holders = [Holder(world, "a") for _ in range(5)]
    await spin()
    assert world.loads == [ref("a", "1")]
    world.finish(ref("a", "1"))
    await spin()
    assert len({holder.model for holder in holders}) == 1
    for holder in holders:
        await holder.end()
    assert world.in_memory() == {("a", "1")}


async def test_a_load_holds_up_no_other_tenant(world: World) -> None:
    first, second = Holder(world, "a"), Holder(world, "b")
    await spin()
    world.finish(ref("b", "1"))
    await spin()
    assert first.waits
    assert second.holds
    await second.end()
    world.finish(ref("a", "1"))
    await spin()
    await first.end()


async def test_a_caller_that_gives_up_harms_no_other(world: World) -> None:
    first, second = Holder(world, "a"), Holder(world, "a")
    await spin()
    first.task.cancel()
    await spin()
    assert first.task.cancelled()
    world.finish(ref("a", "1"))
    await spin()
    assert second.holds
    await second.end()


async def test_a_load_that_everybody_gave_up_still_counts(world: World) -> None:
    only = Holder(world, "a")
    await spin()
    only.task.cancel()
    await spin()
    world.finish(ref("a", "1"))
    await spin()
    again = Holder(world, "a")
    await spin()
    assert again.holds
    assert len(world.loads) == 1
    await again.end()


async def test_a_failed_load_reaches_all_who_wait_and_pauses_the_next(world: World) -> None:
    holders = [Holder(world, "a") for _ in range(3)]
    await spin()
    world.finish(ref("a", "1"), BundleCorrupt("broken"))
    await spin()
    for holder in holders:
        with pytest.raises(BundleCorrupt, match="broken"):
            await holder.task
    for pause in (8, 16, 32, 32):  # twice as long every time, up to a bound
        world.now += pause - 0.5
        with pytest.raises(LoadBackingOff, match="broken") as refused:
            await world.cache.lease("a")
        assert refused.value.retry_after_seconds == pytest.approx(0.5)
        assert world.cache.status(ref("a", "1")).error == "broken"
        world.now += 0.5
        again = Holder(world, "a")
        await spin()
        world.finish(ref("a", "1"), BundleCorrupt("broken"))
        with pytest.raises(BundleCorrupt):
            await again.task
    world.fleet["a"] = "2"  # another version is another matter
    await (await loaded(world, "a")).end()


async def test_what_is_not_the_models_fault_pauses_nobody(world: World) -> None:
    for error in (Overloaded("too many"), NotReady("stopping")):
        holder = Holder(world, "a")
        await spin()
        world.finish(ref("a", "1"), error)
        with pytest.raises(type(error)):
            await holder.task
    await (await loaded(world, "a")).end()


async def test_an_error_that_is_not_the_domains_is_not_quoted(world: World) -> None:
    holder = Holder(world, "a")
    await spin()
    world.finish(ref("a", "1"), ValueError("what a customer wrote"))
    with pytest.raises(ValueError, match="customer"):
        await holder.task
    assert world.cache.status(ref("a", "1")).error == "ValueError"


async def test_the_least_recently_leased_goes_first(world: World) -> None:
    world.cache._eviction.main.budget = 2
    for tenant in "ab":
        await (await loaded(world, tenant)).end()
    await (await loaded(world, "a")).end()
    await (await loaded(world, "c")).end()
    assert world.in_memory() == {("a", "1"), ("c", "1")}
    assert world.observed.events["evicted budget"] == 1


async def test_a_leased_model_is_never_evicted(world: World) -> None:
    world.cache._eviction.main.budget = 1
    first = await loaded(world, "a")
    second = await loaded(world, "b")
    assert world.in_memory() == {("a", "1"), ("b", "1")}
    third = await loaded(world, "a")
    assert third.model == first.model
    for holder in (first, third, second):
        await holder.end()
    assert len(world.alive) == 1


async def test_nothing_is_evicted_between_its_load_and_its_first_use(world: World) -> None:
    world.cache._eviction.main.budget = 1
    first, second = Holder(world, "a"), Holder(world, "b")
    await spin()
    # Both loads end in the same turn of the loop, before either caller has run.
    world.finish(ref("a", "1"))
    world.finish(ref("b", "1"))
    await spin()
    assert first.holds
    assert second.holds
    await first.end()
    await second.end()


async def test_a_model_larger_than_the_budget_serves_and_goes(world: World) -> None:
    world.sizes["a"] = 1000
    for tenant in "bc":
        await (await loaded(world, tenant)).end()
    holder = await loaded(world, "a")
    assert world.cache.nbytes == 1002
    await holder.end()
    assert world.in_memory() == {("b", "1"), ("c", "1")}
    assert world.observed.events["evicted not_admitted"] == 1


async def test_a_scan_of_the_tail_evicts_nobody_who_is_busier(world: World) -> None:
    world.cache._eviction.main.budget = 2
    for _ in range(2):
        for tenant in "ab":
            await (await loaded(world, tenant)).end()
    for number in range(50):
        tail = f"tail-{number}"
        world.fleet[tail] = "1"
        await (await loaded(world, tail)).end()
        assert world.in_memory() == {("a", "1"), ("b", "1")}
    for _ in range(2):  # and who becomes as busy gets in
        await (await loaded(world, "c")).end()
    assert ("c", "1") in world.in_memory()


async def test_one_large_model_must_be_as_busy_as_all_it_would_drive_out(world: World) -> None:
    world.cache._eviction.main.budget = 5
    for tenant in "abcde":
        world.fleet[tenant] = "1"
        await (await loaded(world, tenant)).end()
    world.fleet["large"] = "1"
    world.sizes["large"] = 4
    for _ in range(3):
        await (await loaded(world, "large")).end()
        assert ("large", "1") not in world.in_memory()
    await (await loaded(world, "large")).end()
    assert world.in_memory() == {("e", "1"), ("large", "1")}


async def test_what_is_pinned_stays(world: World) -> None:
    world.cache._eviction.main.budget = 1
    world.pins = {"a"}
    await (await loaded(world, "a")).end()
    for tenant in "bcbcbc":
        await (await loaded(world, tenant)).end()
    assert world.in_memory() == {("a", "1")}
    world.pins = set()
    for _ in range(4):
        await (await loaded(world, "b")).end()
    assert world.in_memory() == {("b", "1")}


async def test_a_pinned_model_comes_in_whoever_is_busier(world: World) -> None:
    world.cache._eviction.main.budget = 1
    for _ in range(9):
        await (await loaded(world, "a")).end()
    world.pins = {"b"}
    await (await loaded(world, "b")).end()
    assert world.in_memory() == {("b", "1")}


async def renewing(world: World, tenant: str) -> asyncio.Task[None]:
    task = asyncio.create_task(world.cache.renew(tenant))
    await spin()
    return task


async def test_a_swap_serves_the_old_until_the_new_is_ready(world: World) -> None:
    before = await loaded(world, "a")
    world.fleet["a"] = "2"
    assert world.cache.outdated() == ["a"]
    swap = await renewing(world, "a")
    during = await loaded(world, "a")
    assert during.ref == ref("a", "1")
    world.finish(ref("a", "2"))
    await swap
    assert world.cache.outdated() == []
    after = await loaded(world, "a")
    assert after.ref == ref("a", "2")
    assert world.in_memory() == {("a", "1"), ("a", "2")}  # leases end on what they began with
    assert world.cache.nbytes == 2
    await before.end()
    assert world.in_memory() == {("a", "1"), ("a", "2")}
    await during.end()
    assert world.in_memory() == {("a", "2")}
    await after.end()
    assert world.observed.events["swapped done"] == 1
    assert world.demands == [True, False]


async def test_a_swap_that_fails_leaves_the_old_one_serving_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await (await loaded(world, "a")).end()
    world.fleet["a"] = "2"
    swap = await renewing(world, "a")
    with caplog.at_level(logging.WARNING):
        world.finish(ref("a", "2"), BundleCorrupt("broken"))
        with pytest.raises(BundleCorrupt):
            await swap
    assert [record.__dict__["version"] for record in caplog.records] == ["2"]
    assert world.observed.events["swapped failed"] == 1
    holder = await loaded(world, "a")
    assert holder.ref == ref("a", "1")
    with pytest.raises(LoadBackingOff):
        await world.cache.renew("a")
    world.now += 9
    swap = await renewing(world, "a")
    world.finish(ref("a", "2"))
    await swap
    await holder.end()
    assert world.in_memory() == {("a", "2")}


async def test_a_roll_back_during_a_swap_stays_with_the_old_one(world: World) -> None:
    await (await loaded(world, "a")).end()
    world.fleet["a"] = "2"
    swap = await renewing(world, "a")
    world.fleet["a"] = "1"
    world.finish(ref("a", "2"))
    await swap
    assert world.in_memory() == {("a", "1")}


async def test_a_swap_changes_what_a_model_counts(world: World) -> None:
    await (await loaded(world, "a")).end()
    world.fleet["a"], world.sizes["a"] = "2", 7
    swap = await renewing(world, "a")
    world.finish(ref("a", "2"))
    await swap
    assert world.cache.nbytes == 7
    assert sum(region.nbytes for region in (world.cache._eviction.main, world.cache._eviction.window)) == 7


async def test_renewing_loads_what_is_not_there_and_shares_a_load_under_way(world: World) -> None:
    swap = await renewing(world, "a")
    holder = Holder(world, "a")
    await spin()
    assert world.loads == [ref("a", "1")]
    world.finish(ref("a", "1"))
    await swap
    await holder.end()
    await world.cache.renew("a")
    assert len(world.loads) == 1


async def test_who_left_the_fleet_leaves_memory_when_its_last_lease_ends(world: World) -> None:
    for tenant in "ab":
        await (await loaded(world, tenant)).end()
    held = await loaded(world, "a")
    world.cache.retain(lambda tenant: tenant == "c")
    assert world.in_memory() == {("a", "1")}
    await held.end()
    assert world.in_memory() == set()
    assert world.cache.nbytes == 0
    assert len(world.cache) == 0


async def test_unloading_ends_when_the_memory_is_free(world: World) -> None:
    held = await loaded(world, "a")
    unloading = asyncio.create_task(world.cache.unload("a"))
    await spin()
    assert not unloading.done()
    other = Holder(world, "a")  # the next request loads it again, beside
    await spin()
    assert world.pending
    await held.end()
    await unloading
    assert world.in_memory() == set()
    world.finish(ref("a", "1"))
    await spin()
    await other.end()
    await world.cache.unload("a")
    await world.cache.unload("nobody")
    assert world.in_memory() == set()


async def test_unloading_waits_for_a_load_under_way_and_lets_go_of_it(world: World) -> None:
    first = Holder(world, "a")
    await spin()
    unloading = asyncio.create_task(world.cache.unload("a"))
    await spin()
    world.finish(ref("a", "1"))
    await spin()
    assert first.holds
    assert not unloading.done()
    await first.end()
    await unloading
    assert world.in_memory() == set()


async def test_unloading_a_load_that_fails_ends_as_well(world: World) -> None:
    first = Holder(world, "a")
    await spin()
    unloading = asyncio.create_task(world.cache.unload("a"))
    await spin()
    world.finish(ref("a", "1"), BundleCorrupt("broken"))
    await unloading
    with pytest.raises(BundleCorrupt):
        await first.task


async def test_what_is_known_of_a_model(world: World) -> None:
    absent = world.cache.status(ref("a", "1"))
    assert (absent.state, absent.bytes, absent.serving_version) == ("absent", 0, None)
    holder = Holder(world, "a")
    await spin()
    world.now += 2
    assert world.cache.status(ref("a", "1")).state == "fetching"
    world.finish(ref("a", "1"))
    await spin()
    world.pins = {"a"}
    world.now += 3
    found = world.cache.status(ref("a", "2"))
    assert (found.state, found.version, found.serving_version, found.bytes) == ("ready", "2", "1", 1)
    assert (found.pinned, found.leases, found.hits) == (True, 1, 1)
    assert (found.last_used_seconds, found.load_ms, found.wait_ms) == (3, 2000, 2000)
    await holder.end()


async def test_a_lease_is_given_back_once(world: World) -> None:
    await (await loaded(world, "a")).end()
    lease = world.cache.try_lease("a")
    assert lease is not None
    lease.release()
    lease.release()
    assert world.cache.status(ref("a", "1")).leases == 0
    assert world.cache.try_lease("b") is None


async def test_a_first_load_that_the_fleet_overtook_serves_its_own_callers(world: World) -> None:
    early = Holder(world, "a")
    await spin()
    world.fleet["a"] = "2"
    late = Holder(world, "a")
    await spin()
    world.finish(ref("a", "2"))
    await spin()
    assert late.ref == ref("a", "2")
    world.finish(ref("a", "1"))
    await spin()
    assert early.ref == ref("a", "1")
    await early.end()
    assert world.in_memory() == {("a", "2")}
    await late.end()


async def test_where_the_fleet_went_on_during_a_first_load_it_is_gone_after(world: World) -> None:
    early = Holder(world, "a")
    await spin()
    world.fleet["a"] = "2"
    world.finish(ref("a", "1"))
    await spin()
    assert early.ref == ref("a", "1")
    assert world.loads == [ref("a", "1"), ref("a", "2")]
    world.finish(ref("a", "2"))
    await spin()
    await early.end()
    assert world.in_memory() == {("a", "2")}


async def test_an_unknown_tenant_leaves_nothing_behind(world: World) -> None:
    with pytest.raises(TenantNotFound):
        await world.cache.lease("nobody")
    assert not world.cache._slots


async def test_closing_ends_loads_and_tells_who_waits(world: World) -> None:
    held, waiting = await loaded(world, "a"), Holder(world, "b")
    await spin()
    await world.cache.close()
    with pytest.raises(NotReady):
        await waiting.task
    assert held.holds
    await held.end()


async def test_closing_tells_who_waits_for_a_load_that_has_not_begun(world: World) -> None:
    waiting = asyncio.create_task(world.cache.lease("a"))
    await asyncio.sleep(0)
    await world.cache.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(NotReady):
            await waiting
    assert not world.cache._slots
