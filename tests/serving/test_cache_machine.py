"""The memory tier against an oracle: any order of events leaves both with the same models, in the same places."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from registry.errors import BundleCorrupt, LoadBackingOff, MacrofleetError
from tests.serving.cache_world import HALF_LIFE, PAUSES, Holder, World, ref
from tests.serving.helpers import spin

SIZES = {"a": 1, "b": 1, "c": 2, "d": 3, "e": 5, "f": 100}
BUDGET = 100
WINDOW, MAIN = 5, 95
Key = tuple[str, str]


class Oracle:
    """What should be in memory, kept in plain lists and dicts and thought through tenant by tenant."""

    def __init__(self) -> None:
        self.fleet = dict.fromkeys(SIZES, "1")
        self.pins: set[str] = set()
        self.serving: dict[str, str] = {}
        self.window: list[str] = []  # least recently leased first
        self.main: list[str] = []
        self.leases: Counter[Key] = Counter()
        self.pending: set[Key] = set()
        self.retiring: set[Key] = set()
        self.asked: dict[str, list[float]] = {tenant: [] for tenant in SIZES}
        self.failures: dict[str, tuple[str, float, float]] = {}  # version, until, pause
        self.now = 0.0

    def weight(self, tenant: str) -> float:
        return sum(float(2.0 ** (at / HALF_LIFE)) for at in self.asked[tenant])

    def paused(self, tenant: str) -> bool:
        version, until, _ = self.failures.get(tenant, ("", 0.0, 0.0))
        return version == self.fleet[tenant] and self.now < until

    def use(self, tenant: str, version: str) -> None:
        self.asked[tenant].append(self.now)
        if self.serving.get(tenant) == version:
            for region in (self.window, self.main):
                if tenant in region:
                    region.remove(tenant)
                    region.append(tenant)

    def lease(self, tenant: str) -> str:
        """What the caller gets: "holds", "waits" or "refused"."""
        if tenant in self.serving:
            self.leases[tenant, self.serving[tenant]] += 1
            self.use(tenant, self.serving[tenant])
            return "holds"
        return "waits" if self.fetch(tenant, lease=True) else "refused"

    def fetch(self, tenant: str, *, lease: bool = False) -> bool:
        key = (tenant, self.fleet[tenant])
        if key not in self.pending and self.paused(tenant):
            return False
        self.pending.add(key)
        self.leases[key] += lease
        return True

    def loaded(self, key: Key, waiters: int) -> None:
        tenant, version = key
        self.pending.discard(key)
        self.failures.pop(tenant, None)
        before = self.serving.get(tenant)
        if before is None:
            self.serving[tenant] = version
            self.window.append(tenant)
            if self.fleet[tenant] != version:
                self.fetch(tenant)
        elif self.fleet[tenant] == version:
            self.serving[tenant] = version
            self.retire((tenant, before))
        else:
            self.retire(key)
        self.balance()
        for _ in range(waiters):
            self.use(tenant, version)

    def failed(self, key: Key) -> None:
        tenant, version = key
        self.pending.discard(key)
        self.leases[key] = 0
        known, _, pause = self.failures.get(tenant, ("", 0.0, 0.0))
        pause = min(pause * 2, PAUSES[1]) if known == version else PAUSES[0]
        self.failures[tenant] = (version, self.now + pause, pause)

    def release(self, key: Key) -> None:
        self.leases[key] -= 1
        if self.leases[key]:
            return
        if key in self.retiring:
            self.retiring.discard(key)
        else:
            self.balance()

    def retire(self, key: Key) -> None:
        if self.leases[key]:
            self.retiring.add(key)

    def evict(self, tenant: str) -> None:
        for region in (self.window, self.main):
            if tenant in region:
                region.remove(tenant)
        self.retire((tenant, self.serving.pop(tenant)))

    def size(self, region: list[str]) -> int:
        return sum(SIZES[tenant] for tenant in region)

    def idle(self, tenant: str) -> bool:
        return not self.leases[tenant, self.serving[tenant]]

    def victims(self, excess: int) -> list[str]:
        """The least busy first; there are fewer tenants here than the cache compares at a time."""
        chosen: list[str] = []
        for tenant in sorted(self.main, key=self.weight):
            if sum(SIZES[each] for each in chosen) >= excess:
                break
            if self.idle(tenant) and tenant not in self.pins:
                chosen.append(tenant)
        return chosen

    def balance(self) -> None:
        for tenant in list(self.window):
            if self.size(self.window) <= WINDOW:
                break
            excess = self.size(self.main) + SIZES[tenant] - MAIN
            if excess > 0 and tenant not in self.pins:
                if not self.idle(tenant):
                    continue
                victims = self.victims(excess)
                too_few = sum(SIZES[each] for each in victims) < excess
                if too_few or sum(map(self.weight, victims)) > self.weight(tenant):
                    self.evict(tenant)
                    continue
                for victim in victims:
                    self.evict(victim)
            self.window.remove(tenant)
            self.main.append(tenant)
        if self.size(self.main) > MAIN:
            for victim in self.victims(self.size(self.main) - MAIN):
                self.evict(victim)


class CacheMachine(RuleBasedStateMachine):
    """Publishing, leasing, renewing, finishing, failing, cancelling, pinning, leaving, unloading and waiting."""

    TENANTS = st.sampled_from(sorted(SIZES))

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.world = World(budget=BUDGET, sizes=SIZES)
        self.oracle = Oracle()
        self.world.fleet = self.oracle.fleet
        self.world.pins = self.oracle.pins
        self.holders: list[Holder] = []
        self.tasks: list[asyncio.Task[None]] = []

    def do(self, action: Callable[[], Any]) -> None:
        async def done() -> None:
            action()
            await spin()

        self.loop.run_until_complete(done())
        for task in [task for task in self.tasks if task.done()]:
            error = task.exception()
            assert error is None or isinstance(error, MacrofleetError)
            self.tasks.remove(task)

    def waiting_for(self, key: Key) -> list[Holder]:
        return [holder for holder in self.holders if holder.waits and self.key_of(holder) == key]

    def key_of(self, holder: Holder) -> Key:
        return (holder.tenant, self.asked_for[id(holder)])

    asked_for: dict[int, str]

    @rule(tenant=TENANTS, version=st.sampled_from("123"))
    def publish(self, tenant: str, version: str) -> None:
        # The oracle tells models apart by version, so one that is still leased elsewhere does not come back beside itself.
        if (tenant, version) not in self.oracle.retiring:
            self.oracle.fleet[tenant] = version

    @rule(tenant=TENANTS)
    def pin_or_unpin(self, tenant: str) -> None:
        self.oracle.pins ^= {tenant}
        self.world.pins = self.oracle.pins
        self.oracle.balance()
        self.world.cache.retain(lambda _: True)

    @rule(tenant=TENANTS, count=st.integers(1, 3))
    def lease(self, tenant: str, count: int) -> None:
        if not hasattr(self, "asked_for"):
            self.asked_for = {}
        for _ in range(count):
            version = self.oracle.serving.get(tenant, self.oracle.fleet[tenant])
            outcome = self.oracle.lease(tenant)
            self.do(lambda: self.holders.append(Holder(self.world, tenant)))
            holder = self.holders[-1]
            self.asked_for[id(holder)] = version
            if outcome == "refused":
                assert isinstance(self.holders.pop().task.exception(), LoadBackingOff)
            else:
                assert outcome == ("holds" if holder.holds else "waits")

    @rule(tenant=TENANTS)
    def renew(self, tenant: str) -> None:
        if self.oracle.serving.get(tenant) != self.oracle.fleet[tenant]:
            self.oracle.fetch(tenant)
        self.do(lambda: self.tasks.append(self.loop.create_task(self.world.cache.renew(tenant))))

    @precondition(lambda self: self.world.pending)
    @rule(data=st.data(), fails=st.booleans())
    def finish(self, data: st.DataObject, fails: bool) -> None:
        which = data.draw(st.sampled_from(sorted(self.world.pending, key=str)))
        self.finish_one(which.tenant, which.version, fails=fails)

    def finish_one(self, tenant: str, version: str, *, fails: bool) -> None:
        waiters = self.waiting_for((tenant, version))
        if fails:
            self.oracle.failed((tenant, version))
        else:
            self.oracle.loaded((tenant, version), len(waiters))
        self.do(lambda: self.world.finish(ref(tenant, version), BundleCorrupt("broken") if fails else None))
        for holder in waiters:
            if fails:
                assert isinstance(holder.task.exception(), BundleCorrupt)
                self.holders.remove(holder)
            else:
                assert holder.ref == ref(tenant, version)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def end_or_cancel(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(self.holders))
        self.holders.remove(holder)
        self.oracle.release(self.key_of(holder))
        self.do(holder.let_go if holder.holds else holder.task.cancel)
        assert holder.task.done()

    @rule(seconds=st.integers(1, 300))
    def wait(self, seconds: int) -> None:
        self.world.now += seconds
        self.oracle.now += seconds

    @rule(tenant=TENANTS)
    def leave_the_fleet(self, tenant: str) -> None:
        if tenant in self.oracle.serving:
            if not self.oracle.idle(tenant):
                return
            self.oracle.evict(tenant)
        self.oracle.failures.pop(tenant, None)
        self.oracle.balance()
        self.world.cache.retain(lambda other: other != tenant)

    @precondition(lambda self: self.oracle.serving and not self.world.pending)
    @rule(data=st.data())
    def unload(self, data: st.DataObject) -> None:
        tenant = data.draw(st.sampled_from(sorted(self.oracle.serving)))
        if not self.oracle.idle(tenant):
            return
        self.oracle.evict(tenant)
        self.do(lambda: self.tasks.append(self.loop.create_task(self.world.cache.unload(tenant))))

    @invariant()
    def both_agree(self) -> None:
        cache, oracle = self.world.cache, self.oracle
        assert list(cache._eviction.window.slots) == oracle.window
        assert list(cache._eviction.main.slots) == oracle.main
        assert {(pending.tenant, pending.version) for pending in self.world.pending} == oracle.pending
        mapped = set(oracle.serving.items()) | oracle.retiring
        assert self.world.in_memory() == mapped
        assert cache.nbytes == sum(SIZES[tenant] for tenant, _ in mapped)
        assert cache._eviction.window.nbytes == oracle.size(oracle.window)
        assert cache._eviction.main.nbytes == oracle.size(oracle.main)

    @invariant()
    def budgets_are_exceeded_by_leased_and_pinned_models_only(self) -> None:
        for region, budget in ((self.oracle.window, WINDOW), (self.oracle.main, MAIN)):
            held = sum(SIZES[tenant] for tenant in region if not self.oracle.idle(tenant) or tenant in self.oracle.pins)
            assert self.oracle.size(region) <= max(budget, budget + held)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        if not hasattr(self, "asked_for"):
            self.asked_for = {}
        while self.world.pending:
            which = sorted(self.world.pending, key=str)[0]
            self.finish_one(which.tenant, which.version, fails=False)
        for holder in list(self.holders):
            self.do(holder.let_go)
            assert holder.task.done()
        assert not self.tasks, "an unload or a renewal never ended"
        self.loop.run_until_complete(self.world.cache.close())
        self.loop.close()


CacheMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestCacheMachine = CacheMachine.TestCase
