from __future__ import annotations

import asyncio

import pytest

from registry.errors import BundleCorrupt
from serving.fleet_watch import ModelRef
from serving.preload import Preload, Progress
from tests.serving.helpers import spin

pytestmark = pytest.mark.anyio


class Preparing:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken: set[str] = set()
        self.gate = asyncio.Event()
        self.held: dict[str, asyncio.Event] = {}
        self.at_work = self.most_at_work = 0

    async def __call__(self, ref: ModelRef) -> None:
        self.calls.append(ref.tenant)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        await self.held.get(ref.tenant, self.gate).wait()
        self.at_work -= 1
        if ref.tenant in self.broken:
            raise BundleCorrupt("broken")


@pytest.fixture
def preparing() -> Preparing:
    return Preparing()


def refs(tenants: str, version: str = "1") -> list[ModelRef]:
    return [ModelRef(tenant, version, version) for tenant in tenants]


async def test_progress_shows_and_a_few_go_on_at_a_time(preparing: Preparing) -> None:
    preload = Preload(preparing)
    running = asyncio.create_task(preload.run(refs("abcdefgh")))
    await spin()
    assert preload.progress() == Progress(8, 0, {})
    assert not preload.usable
    preparing.gate.set()
    await running
    assert preload.progress() == Progress(8, 8, {})
    assert preload.usable
    assert 1 < preparing.most_at_work < 8


async def test_a_fleet_is_not_usable_before_the_last_was_tried(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.held = {"g": asyncio.Event()}
    preload = Preload(preparing)
    running = asyncio.create_task(preload.run(refs("abcdefgh")))
    await spin()
    assert preload.progress() == Progress(8, 7, {})
    assert not preload.usable
    preparing.held["g"].set()
    await running
    assert preload.usable


async def test_a_broken_model_is_listed_and_holds_up_nobody(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.broken = {"b"}
    preload = Preload(preparing)
    await preload.run(refs("abc"))
    assert preload.progress() == Progress(3, 2, {"b": "BundleCorrupt"})
    assert preload.usable


async def test_a_fleet_of_broken_models_is_not_usable_until_one_works(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.broken = {"a", "b"}
    preload = Preload(preparing)
    await preload.run(refs("ab"))
    assert not preload.usable
    preparing.broken = {"b"}
    await preload.run(refs("ab"))
    assert preload.usable


async def test_an_empty_fleet_is_usable(preparing: Preparing) -> None:
    preload = Preload(preparing)
    assert preload.usable
    await preload.run([])
    assert preload.usable


async def test_only_what_is_new_or_failed_is_prepared_again(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.broken = {"b"}
    preload = Preload(preparing)
    await preload.run(refs("abc"))
    preparing.calls.clear()
    preparing.broken = set()
    await preload.run([*refs("ab"), *refs("c", "2")])
    assert sorted(preparing.calls) == ["b", "c"]
    assert preload.progress() == Progress(3, 3, {})
