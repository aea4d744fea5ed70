"""The table of a multi-model container: every interleaving that matters, driven by hand on one event loop."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from registry.errors import BundleCorrupt, ModelAlreadyLoaded, ModelNotFound, OutOfResources
from serving.engine.local_models import LocalModels
from tests.serving.helpers import spin

pytestmark = pytest.mark.anyio


class Memory:
    """Stands for a mapping."""


class FakeModel:
    def __init__(self, url: str, nbytes: int) -> None:
        self.url = url
        self.nbytes = nbytes
        self.memory: object = Memory()
        self.forgotten = False

    def forget_pages(self) -> None:
        self.forgotten = True


class World:
    """A table whose loads end when the test says so. The size of a model is the length of its URL."""

    def __init__(self, budget: int = 10) -> None:
        self.pending: list[tuple[str, asyncio.Future[None]]] = []
        self.made: list[str] = []
        self.alive: weakref.WeakSet[Memory] = weakref.WeakSet()
        self.models: LocalModels[FakeModel] = LocalModels(weigh=self.weigh, load=self.load, budget_bytes=budget)

    async def weigh(self, url: str) -> int:
        return len(url)

    async def load(self, url: str, nbytes: int) -> FakeModel:
        waits: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pending.append((url, waits))
        await waits
        model = FakeModel(url, nbytes)
        assert isinstance(model.memory, Memory)
        self.alive.add(model.memory)
        self.made.append(url)
        return model

    def start(self, alias: str, url: str = "u", target: str | None = None) -> asyncio.Task[None]:
        return asyncio.create_task(self.models.load(alias, url, target=target))

    def stop(self, alias: str) -> asyncio.Task[None]:
        return asyncio.create_task(self.models.unload(alias))

    def finish(self, error: Exception | None = None) -> None:
        """End the load that has waited longest."""
        _, waits = self.pending.pop(0)
        if error is None:
            waits.set_result(None)
        else:
            waits.set_exception(error)

    async def loaded(self, *aliases: str) -> None:
        for alias in aliases:
            load = self.start(alias)
            await spin()
            self.finish()
            await load


@pytest.fixture
def world() -> Iterator[World]:
    # Collections would hide what reference counting alone must do.
    gc.disable()
    yield World()
    gc.enable()


async def test_a_model_is_found_once_its_load_ended(world: World) -> None:
    load = world.start("a", "url", target="a.tar.gz")
    await spin()
    with pytest.raises(ModelNotFound):
        world.models.find("a")
    assert world.models.page(after=None, limit=10) == ([], False)
    world.finish()
    await load
    found = world.models.find("a")
    assert (found.alias, found.url, found.target, found.model.url) == ("a", "url", "a.tar.gz", "url")
    assert (len(world.models), world.models.nbytes) == (1, 3)


async def test_a_second_load_waits_for_the_first_and_is_refused(world: World) -> None:
    first, second = world.start("a"), world.start("a", "other")
    await spin()
    assert len(world.pending) == 1
    assert not second.done()
    world.finish()
    await first
    with pytest.raises(ModelAlreadyLoaded):
        await second
    assert world.made == ["u"]
    assert world.models.nbytes == 1


async def test_a_second_load_takes_its_turn_where_the_first_failed(world: World) -> None:
    first, second = world.start("a"), world.start("a", "other")
    await spin()
    world.finish(BundleCorrupt("damaged"))
    with pytest.raises(BundleCorrupt):
        await first
    await spin()
    world.finish()
    await second
    assert world.models.find("a").url == "other"
    assert world.models.nbytes == len("other")


async def test_aliases_do_not_wait_for_each_other(world: World) -> None:
    slow, quick = world.start("a", "slow"), world.start("b", "q")
    await spin()
    assert [url for url, _ in world.pending] == ["slow", "q"]
    world.pending.reverse()
    world.finish()
    await quick
    assert not slow.done()
    await world.models.unload("b")
    world.finish()
    await slow


async def test_an_unload_during_a_load_waits_and_unloads(world: World) -> None:
    load, unload = world.start("a"), world.stop("a")
    await spin()
    assert not unload.done()
    world.finish()
    await load
    await unload
    assert not world.alive
    assert world.models.nbytes == 0


async def test_an_unload_during_a_load_that_fails_finds_nothing(world: World) -> None:
    load, unload = world.start("a"), world.stop("a")
    await spin()
    world.finish(BundleCorrupt("damaged"))
    with pytest.raises(BundleCorrupt):
        await load
    with pytest.raises(ModelNotFound):
        await unload


async def test_an_unload_waits_for_the_last_who_holds_the_model(world: World) -> None:
    await world.loaded("a")
    held = [world.models.find("a").model, world.models.find("a").model]
    unload = world.stop("a")
    await spin()
    with pytest.raises(ModelNotFound):
        world.models.find("a")
    assert held[0].forgotten
    assert world.models.nbytes == 1, "its bytes are given back when they are"
    held.pop()
    await spin()
    assert not unload.done()
    held.pop()
    await unload
    assert not world.alive
    assert world.models.nbytes == 0


async def test_a_load_waits_for_the_unload_before_it(world: World) -> None:
    await world.loaded("a")
    held = [world.models.find("a").model]
    unload, load = world.stop("a"), world.start("a", "next")
    await spin()
    assert not world.pending
    held.clear()
    await unload
    await spin()
    world.finish()
    await load
    assert world.models.find("a").url == "next"


async def test_a_second_unload_waits_and_finds_nothing(world: World) -> None:
    await world.loaded("a")
    held = [world.models.find("a").model]
    first, second = world.stop("a"), world.stop("a")
    await spin()
    assert not second.done()
    held.clear()
    await first
    with pytest.raises(ModelNotFound):
        await second


async def test_a_model_in_a_reference_cycle_is_collected(world: World) -> None:
    await world.loaded("a")
    error = ValueError()
    error.args = (world.models.find("a").model, error)
    del error
    await world.models.unload("a")
    assert not world.alive


async def test_the_budget_counts_loads_under_way_and_unloads_that_wait(world: World) -> None:
    first = world.start("a", "123456")
    await spin()
    with pytest.raises(OutOfResources):
        await world.start("b", "12345")
    world.finish()
    await first
    held = [world.models.find("a").model]
    unload = world.stop("a")
    await spin()
    with pytest.raises(OutOfResources):
        await world.start("b", "12345")
    held.clear()
    await unload
    last = world.start("b", "1234567890")
    await spin()
    world.finish()
    await last
    assert world.models.nbytes == 10


async def test_a_failed_load_gives_its_room_back(world: World) -> None:
    load = world.start("a", "1234567890")
    await spin()
    world.finish(BundleCorrupt("damaged"))
    with pytest.raises(BundleCorrupt):
        await load
    assert world.models.nbytes == 0


async def test_a_caller_that_goes_away_during_a_load_changes_nothing(world: World) -> None:
    gone, other = world.start("a"), world.start("a")
    await spin()
    gone.cancel()
    await spin()
    world.finish()
    with pytest.raises(ModelAlreadyLoaded):
        await other
    assert world.models.find("a").url == "u"


async def test_a_caller_that_goes_away_during_an_unload_changes_nothing(world: World) -> None:
    await world.loaded("a")
    held = [world.models.find("a").model]
    gone = world.stop("a")
    await spin()
    gone.cancel()
    await spin()
    held.clear()
    await spin()
    assert world.models.nbytes == 0
    assert not world.alive


async def test_an_error_that_nobody_waits_for_is_not_reported_as_lost(world: World) -> None:
    gone = world.start("a")
    await spin()
    gone.cancel()
    world.finish(BundleCorrupt("damaged"))
    await spin()
    gc.collect()
    assert len(world.models) == 0


async def test_targets(world: World) -> None:
    with pytest.raises(ModelNotFound):
        world.models.find_by_target(None)
    load = world.start("a", target="x.tar.gz")
    await spin()
    world.finish()
    await load
    for target in (None, "a", "x.tar.gz"):
        assert world.models.find_by_target(target).alias == "a"
    load = world.start("x.tar.gz", target="x.tar.gz")
    await spin()
    world.finish()
    await load
    assert world.models.find_by_target("x.tar.gz").alias == "x.tar.gz", "an alias goes before what was said"
    for unclear in (None, "y"):
        with pytest.raises(ModelNotFound):
            world.models.find_by_target(unclear)


async def test_pages(world: World) -> None:
    await world.loaded("d", "b", "a", "c")
    found, more = world.models.page(after=None, limit=3)
    assert ([one.alias for one in found], more) == (["a", "b", "c"], True)
    del found
    await world.models.unload("c")
    await world.loaded("bb", "cc")
    found, more = world.models.page(after="c", limit=3)
    assert ([one.alias for one in found], more) == (["cc", "d"], False)


async def test_closing_gives_up_what_is_under_way(world: World) -> None:
    await world.loaded("held")
    held = world.models.find("held").model
    load, unload = world.start("a"), world.stop("held")
    await spin()
    await world.models.close()
    assert load.done()
    assert unload.done()
    del held
    assert not world.alive
