"""The memory tier: every interleaving that matters, driven by hand on one event loop."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from registry.errors import BundleCorrupt, MacrofleetError, NotReady, TenantNotFound
from serving.cache import ModelCache
from serving.fleet_watch import ModelRef
from tests.serving.helpers import spin

pytestmark = pytest.mark.anyio


class FakeModel:
    def __init__(self, ref: ModelRef, nbytes: int) -> None:
        self.ref = ref
        self.nbytes = nbytes


class World:
    """A cache, the fleet it asks, and a loader whose loads end when the test says so."""

    def __init__(self, *, budget: int = 10, sizes: dict[str, int] | None = None) -> None:
        self.fleet: dict[str, str] = {}
        self.sizes = sizes or {}
        self.now = 0.0
        self.pending: dict[ModelRef, asyncio.Future[None]] = {}
        self.loads: list[ModelRef] = []
        self.alive: weakref.WeakSet[FakeModel] = weakref.WeakSet()
        self.cache: ModelCache[FakeModel] = ModelCache(
            wanted=self.wanted, load=self.load, budget_bytes=budget, retry_seconds=30, clock=lambda: self.now
        )

    def wanted(self, tenant: str) -> ModelRef:
        if tenant not in self.fleet:
            raise TenantNotFound("there is no such tenant")
        return ref(tenant, self.fleet[tenant])

    async def load(self, ref: ModelRef) -> FakeModel:
        assert ref not in self.pending, "two loads of one version at once"
        self.loads.append(ref)
        self.pending[ref] = asyncio.get_running_loop().create_future()
        try:
            await self.pending[ref]
        finally:
            del self.pending[ref]
        model = FakeModel(ref, self.sizes.get(ref.tenant, 1))
        self.alive.add(model)
        return model

    def finish(self, ref: ModelRef, error: Exception | None = None) -> None:
        if error is None:
            self.pending[ref].set_result(None)
        else:
            self.pending[ref].set_exception(error)

    def finish_all(self) -> None:
        for pending in self.pending.values():
            pending.set_result(None)

    def in_memory(self) -> set[tuple[str, str]]:
        return {(model.ref.tenant, model.ref.version) for model in self.alive}


class Holder:
    """Someone who leases a model and keeps it until told otherwise."""

    def __init__(self, world: World, tenant: str) -> None:
        self.tenant = tenant
        self.model: weakref.ref[FakeModel] | None = None
        self.ref: ModelRef | None = None
        self._done = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._hold(world))

    async def _hold(self, world: World) -> None:
        async with world.cache.lease(self.tenant) as model:
            self.model, self.ref = weakref.ref(model), model.ref
            await self._done.wait()

    @property
    def waits(self) -> bool:
        return self.ref is None and not self.task.done()

    @property
    def holds(self) -> bool:
        return self.ref is not None and not self.task.done()

    async def end(self) -> None:
        self._done.set()
        await self.task

    def let_go(self) -> None:
        self._done.set()


def ref(tenant: str, version: str) -> ModelRef:
    return ModelRef(tenant, version, version)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.fleet = {"a": "1", "b": "1", "c": "1"}
    yield made
    assert not made.pending


async def loaded(world: World, tenant: str) -> Holder:
    holder = Holder(world, tenant)
    await spin()
    if holder.waits:
        world.finish(ref(tenant, world.fleet[tenant]))
        await spin()
    assert holder.holds
    return holder


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


async def test_a_failed_load_reaches_all_who_wait_and_is_not_cached(world: World) -> None:
    holders = [Holder(world, "a") for _ in range(3)]
    await spin()
    world.finish(ref("a", "1"), BundleCorrupt("broken"))
    await spin()
    for holder in holders:
        with pytest.raises(BundleCorrupt, match="broken"):
            await holder.task
    again = await loaded(world, "a")
    assert len(world.loads) == 2
    await again.end()


async def test_the_least_recently_leased_goes_first(world: World) -> None:
    world.cache._budget = 2
    for tenant in "ab":
        await (await loaded(world, tenant)).end()
    await (await loaded(world, "a")).end()
    await (await loaded(world, "c")).end()
    assert world.in_memory() == {("a", "1"), ("c", "1")}


async def test_a_leased_model_is_never_evicted(world: World) -> None:
    world.cache._budget = 1
    first = await loaded(world, "a")
    second = await loaded(world, "b")
    assert world.in_memory() == {("a", "1"), ("b", "1")}
    third = await loaded(world, "a")
    assert third.model == first.model
    for holder in (first, third, second):
        await holder.end()
    assert len(world.alive) == 1


async def test_nothing_is_evicted_between_its_load_and_its_first_use(world: World) -> None:
    world.cache._budget = 1
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
    holder = await loaded(world, "a")
    await holder.end()
    assert world.in_memory() == set()


async def test_a_swap_serves_the_old_until_the_new_is_ready(world: World) -> None:
    before = await loaded(world, "a")
    world.fleet["a"] = "2"
    during = await loaded(world, "a")
    assert during.ref == ref("a", "1")
    world.finish(ref("a", "2"))
    await spin()
    after = await loaded(world, "a")
    assert after.ref == ref("a", "2")
    assert world.in_memory() == {("a", "1"), ("a", "2")}  # leases end on what they began with
    await before.end()
    assert world.in_memory() == {("a", "1"), ("a", "2")}
    await during.end()
    assert world.in_memory() == {("a", "2")}
    await after.end()


async def test_a_swap_that_fails_leaves_the_old_one_serving_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await (await loaded(world, "a")).end()
    world.fleet["a"] = "2"
    await (await loaded(world, "a")).end()
    with caplog.at_level(logging.WARNING):
        world.finish(ref("a", "2"), BundleCorrupt("broken"))
        await spin()
    assert [record.__dict__["version"] for record in caplog.records] == ["2"]
    holder = await loaded(world, "a")
    assert holder.ref == ref("a", "1")
    assert world.loads.count(ref("a", "2")) == 1  # not again for every request …
    world.now += 31
    await (await loaded(world, "a")).end()
    assert world.loads.count(ref("a", "2")) == 2  # … but again
    world.finish(ref("a", "2"))
    await spin()
    await holder.end()
    assert world.in_memory() == {("a", "2")}


async def test_a_roll_back_during_a_swap_stays_with_the_old_one(world: World) -> None:
    await (await loaded(world, "a")).end()
    world.fleet["a"] = "2"
    await (await loaded(world, "a")).end()
    world.fleet["a"] = "1"
    await (await loaded(world, "a")).end()
    world.finish(ref("a", "2"))
    await spin()
    assert world.in_memory() == {("a", "1")}


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


async def test_an_unknown_tenant_leaves_nothing_behind(world: World) -> None:
    with pytest.raises(TenantNotFound):
        async with world.cache.lease("nobody"):
            pass
    assert not world.cache._slots


async def test_closing_ends_loads_and_tells_who_waits(world: World) -> None:
    held, waiting = await loaded(world, "a"), Holder(world, "b")
    await spin()
    await world.cache.close()
    with pytest.raises(NotReady):
        await waiting.task
    assert held.holds
    await held.end()


class CacheMachine(RuleBasedStateMachine):
    """Any order of publishing, leasing, finishing, failing, cancelling and waiting keeps the cache's promises."""

    TENANTS = st.sampled_from("abcd")

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.world = World(budget=5, sizes={"a": 1, "b": 2, "c": 3, "d": 6})
        self.world.fleet = dict.fromkeys("abcd", "1")
        self.holders: list[Holder] = []

    def do(self, action: Callable[[], Any]) -> None:
        async def done() -> None:
            action()
            await spin()

        self.loop.run_until_complete(done())
        for holder in self.holders:
            if holder.task.done() and not holder.task.cancelled():
                error = holder.task.exception()
                assert error is None or isinstance(error, MacrofleetError)
        self.holders = [holder for holder in self.holders if not holder.task.done()]

    @rule(tenant=TENANTS, version=st.sampled_from("123"))
    def publish(self, tenant: str, version: str) -> None:
        self.world.fleet[tenant] = version

    @rule(tenant=TENANTS, count=st.integers(1, 3))
    def lease(self, tenant: str, count: int) -> None:
        self.do(lambda: self.holders.extend(Holder(self.world, tenant) for _ in range(count)))

    @precondition(lambda self: self.world.pending)
    @rule(data=st.data(), fails=st.booleans())
    def finish(self, data: st.DataObject, fails: bool) -> None:
        which = data.draw(st.sampled_from(sorted(self.world.pending, key=str)))
        self.do(lambda: self.world.finish(which, BundleCorrupt("broken") if fails else None))

    @precondition(lambda self: len(self.world.pending) > 1)
    @rule()
    def finish_all_at_once(self) -> None:
        self.do(self.world.finish_all)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def end_or_cancel(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(self.holders))
        self.do(holder.let_go if holder.holds else holder.task.cancel)

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.world.now += seconds

    @invariant()
    def waiting_means_loading(self) -> None:
        for holder in self.holders:
            assert holder.holds or any(pending.tenant == holder.tenant for pending in self.world.pending)

    @invariant()
    def leases_are_of_the_right_tenant(self) -> None:
        assert all(holder.ref.tenant == holder.tenant for holder in self.holders if holder.ref)

    @invariant()
    def the_budget_is_exceeded_by_leased_models_only(self) -> None:
        alive = set(self.world.alive)
        leased = {holder.model() for holder in self.holders if holder.holds and holder.model}
        assert self.world.cache._bytes == sum(model.nbytes for model in alive)
        if self.world.cache._bytes > 5:
            assert alive <= leased

    @invariant()
    def one_version_serves_and_others_only_finish(self) -> None:
        leased = {holder.model() for holder in self.holders if holder.holds and holder.model}
        idle = [model.ref.tenant for model in self.world.alive if model not in leased]
        assert len(idle) == len(set(idle))

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.world.now += 1000
        while self.world.pending:
            self.finish_all_at_once()
        for holder in list(self.holders):
            self.do(holder.let_go)
        # With nothing in the way, every tenant gets what the fleet names, at the latest with the second lease.
        for tenant, version in self.world.fleet.items():
            for _ in range(2):
                self.do(lambda tenant=tenant: self.holders.append(Holder(self.world, tenant)))  # type: ignore[misc]
                if self.world.pending:
                    self.finish_all_at_once()
                (holder,) = self.holders
                self.do(holder.let_go)
            assert holder.ref == ref(tenant, version)
        self.loop.run_until_complete(self.world.cache.close())
        self.loop.close()
        assert not self.holders


CacheMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestCacheMachine = CacheMachine.TestCase
