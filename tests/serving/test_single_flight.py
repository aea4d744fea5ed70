from __future__ import annotations

import asyncio

import pytest

from serving.engine.single_flight import SingleFlight
from tests.serving.helpers import spin

pytestmark = pytest.mark.anyio


class Work:
    def __init__(self) -> None:
        self.started = 0
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.started += 1
        return await self.outcome


async def test_callers_share_one_run_and_its_result() -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    work = Work()
    callers = [asyncio.create_task(flight.run("key", work)) for _ in range(3)]
    await spin()
    callers[0].cancel()
    await spin()
    work.outcome.set_result("done")
    assert await asyncio.gather(*callers[1:]) == ["done", "done"]
    assert work.started == 1
    assert await flight.run("key", work) == "done"
    assert work.started == 2


async def test_an_error_reaches_all_and_is_forgotten() -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    work, better = Work(), Work()
    callers = [asyncio.create_task(flight.run("key", work)) for _ in range(2)]
    await spin()
    work.outcome.set_exception(ValueError("broken"))
    assert [type(error) for error in await asyncio.gather(*callers, return_exceptions=True)] == [ValueError, ValueError]
    better.outcome.set_result("done")
    assert await flight.run("key", better) == "done"


async def test_keys_do_not_wait_for_each_other() -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    slow, quick = Work(), Work()
    waiting = asyncio.create_task(flight.run("slow", slow))
    quick.outcome.set_result("done")
    assert await flight.run("quick", quick) == "done"
    waiting.cancel()
    slow.outcome.cancel()
