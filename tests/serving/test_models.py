"""What models are fetched for: by whom, and how often."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from registry.disk.tier import DiskTier
from registry.errors import BundleCorrupt, ModelNotFound, OutOfResources
from serving.admission import Pacer
from serving.engine.models import Models
from serving.fleet_watch import ModelRef
from serving.metrics import Metrics
from tests.serving.helpers import PATIENCE_SECONDS, eventually, spin

pytestmark = pytest.mark.anyio
NEW = ModelRef("acme", "0" * 16, "0" * 64)


class Disk:
    """A disk tier whose downloads end when the test says so, with an error: what comes afterwards is not looked at."""

    def __init__(self) -> None:
        self.installs: list[bool] = []
        self.gate = threading.Event()
        self.full = False
        self.there: set[str] = set()

    def has_model(self, tenant: str, version: str) -> bool:
        return tenant in self.there

    def open_model(self, tenant: str, version: str, manifest: str, **_: object) -> Any:
        assert tenant in self.there
        raise ModelNotFound("it was opened")

    def install_model(self, tenant: str, version: str, manifest: str, *, evict: bool) -> Any:
        self.installs.append(evict)
        assert self.gate.wait(PATIENCE_SECONDS)
        if self.full and not evict:
            raise OutOfResources("it is full")
        raise BundleCorrupt("it is damaged")


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def models(disk: Disk) -> Iterator[Models]:
    pacer = Pacer(per_second=1000, longest_wait_seconds=1)
    made = Models(cast(DiskTier, disk), trusted=frozenset(), max_queue=1, pacer=pacer, metrics=Metrics())
    yield made
    made.close()


@pytest.fixture
def waiting(models: Models, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Who waits for an installation: one's own, or one under way."""
    asked: list[Any] = []
    run = models._installing.run

    def noted(key: Any, work: Any) -> Any:
        asked.append(key)
        return run(key, work)

    monkeypatch.setattr(models._installing, "run", noted)
    return asked


async def outcomes(*asked: asyncio.Task[Any]) -> list[type]:
    return [type(each) for each in await asyncio.gather(*asked, return_exceptions=True)]


async def test_what_disk_and_memory_want_at_once_is_fetched_once(
    disk: Disk, models: Models, waiting: list[Any]
) -> None:
    preload = asyncio.create_task(models.prepare(NEW))
    await eventually(lambda: len(disk.installs) == 1)
    swaps = [asyncio.create_task(models.load(NEW, demand=False)) for _ in range(2)]
    await eventually(lambda: len(waiting) == 3)
    await spin()
    disk.gate.set()
    assert await outcomes(preload, *swaps) == [BundleCorrupt] * 3
    assert disk.installs == [False]


async def test_a_request_does_not_wait_for_what_stands_back(disk: Disk, models: Models) -> None:
    preload = asyncio.create_task(models.prepare(NEW))
    request = asyncio.create_task(models.load(NEW, demand=True))
    await eventually(lambda: len(disk.installs) == 2)
    disk.gate.set()
    assert await outcomes(preload, request) == [BundleCorrupt] * 2


async def test_a_swap_makes_the_room_that_a_preload_may_not(disk: Disk, models: Models, waiting: list[Any]) -> None:
    disk.full = True
    preload = asyncio.create_task(models.prepare(NEW))
    await eventually(lambda: len(disk.installs) == 1)
    swap = asyncio.create_task(models.load(NEW, demand=False))
    await eventually(lambda: len(waiting) == 2)
    await spin()
    disk.gate.set()
    assert await outcomes(preload, swap) == [OutOfResources, BundleCorrupt]
    assert disk.installs == [False, True]


@pytest.mark.parametrize("demand", [True, False])
async def test_what_is_on_disk_waits_for_no_download(disk: Disk, models: Models, demand: bool) -> None:
    """A slow store is the tail's to wait for: whoever is on disk is answered, and rolled back, meanwhile."""
    fetched = [ModelRef(f"tail-{number}", NEW.version, NEW.manifest) for number in range(9)]
    disk.there = {"here"}
    downloads = [asyncio.create_task(models.load(ref, demand=demand)) for ref in fetched]
    await eventually(lambda: len(disk.installs) == 4)  # as many as there are threads; the others wait their turn
    try:
        async with asyncio.timeout(PATIENCE_SECONDS / 2):
            with pytest.raises(BundleCorrupt, match="it was opened"):
                await models.load(ModelRef("here", NEW.version, NEW.manifest), demand=demand)
    finally:
        disk.gate.set()
    assert await outcomes(*downloads) == [BundleCorrupt] * len(downloads)
