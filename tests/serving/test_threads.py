from __future__ import annotations

import asyncio
import threading

import pytest

from serving.threads import Workers

pytestmark = pytest.mark.anyio


async def test_all_threads_are_there_from_the_start_and_no_more_come() -> None:
    before = threading.active_count()
    workers = Workers("few", 3)
    assert threading.active_count() == before + 3
    gate = threading.Event()
    running = [asyncio.create_task(workers.run(gate.wait)) for _ in range(9)]
    await asyncio.sleep(0)
    assert threading.active_count() == before + 3
    gate.set()
    assert all(await asyncio.gather(*running))
    workers.close()


async def test_results_and_errors_come_back() -> None:
    workers = Workers("one", 1)
    assert await workers.run(max, 1, 2) == 2
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 // 0)
    workers.close()
