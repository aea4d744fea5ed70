"""A cache to play with: the fleet it asks, a loader whose loads end when the test says so, and callers."""

from __future__ import annotations

import asyncio
import weakref
from collections import Counter

from registry.errors import TenantNotFound
from serving.engine.cache import ModelCache
from serving.engine.traffic import Traffic
from serving.fleet_watch import ModelRef
from tests.serving.helpers import spin

HALF_LIFE = 600.0
PAUSES = (8.0, 32.0)


class Observed:
    """Counts what the cache tells."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()

    def hit(self) -> None:
        self.events["hit"] += 1

    def waited(self, seconds: float) -> None:
        self.events["waited"] += 1

    def loaded(self, seconds: float) -> None:
        self.events["loaded"] += 1

    def load_failed(self, error: BaseException) -> None:
        self.events[f"failed {type(error).__name__}"] += 1

    def swapped(self, outcome: str) -> None:
        self.events[f"swapped {outcome}"] += 1

    def evicted(self, model: FakeModel, cause: str) -> None:
        self.events[f"evicted {cause}"] += 1


class FakeModel:
    def __init__(self, ref: ModelRef, nbytes: int) -> None:
        self.ref = ref
        self.nbytes = nbytes


class World:
    """A cache, the fleet it asks, and a loader whose loads end when the test says so."""

    def __init__(self, *, budget: int = 10, sizes: dict[str, int] | None = None) -> None:
        self.fleet: dict[str, str] = {}
        self.pins: set[str] = set()
        self.demands: list[bool] = []
        self.observed = Observed()
        self.sizes = sizes or {}
        self.now = 0.0
        self.pending: dict[ModelRef, asyncio.Future[None]] = {}
        self.loads: list[ModelRef] = []
        self.alive: weakref.WeakSet[FakeModel] = weakref.WeakSet()
        self.cache: ModelCache[FakeModel] = ModelCache(
            wanted=self.wanted,
            load=self.load,
            budget_bytes=budget,
            traffic=Traffic(half_life_seconds=HALF_LIFE, clock=lambda: self.now),
            pinned=lambda tenant: tenant in self.pins,
            observer=self.observed,
            pause_seconds=PAUSES,
            clock=lambda: self.now,
        )

    def wanted(self, tenant: str) -> ModelRef:
        if tenant not in self.fleet:
            raise TenantNotFound("there is no such tenant")
        return ref(tenant, self.fleet[tenant])

    async def load(self, ref: ModelRef, *, demand: bool) -> FakeModel:
        self.demands.append(demand)
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
        with await world.cache.lease(self.tenant) as model:
            self.model, self.ref = weakref.ref(model), model.ref
            del model
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


async def loaded(world: World, tenant: str) -> Holder:
    holder = Holder(world, tenant)
    await spin()
    if holder.waits:
        world.finish(ref(tenant, world.fleet[tenant]))
        await spin()
    assert holder.holds
    return holder
