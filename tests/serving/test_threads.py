from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest

from serving.threads import Workers

pytestmark = pytest.mark.anyio


async def test_all_threads_are_there_from_the_start_and_no_more_come() -> None:
    def started() -> int:
        return sum(
            thread.name.startswith("few_") for thread in threading.enumerate()
        )  # earlier tests' ones may be ending

    workers = Workers("few", 3)
    assert started() == 3
    gate = threading.Event()
    running = [asyncio.create_task(workers.run(gate.wait)) for _ in range(9)]
    await asyncio.sleep(0)
    assert started() == 3
    gate.set()
    assert all(await asyncio.gather(*running))
    workers.close()


async def test_results_and_errors_come_back() -> None:
    workers = Workers("one", 1)
    assert await workers.run(max, 1, 2) == 2
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 // 0)
    workers.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
async def test_threads_stand_back_and_so_does_what_they_start() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def of_one_started_here() -> int:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(niceness()))
        thread.start()
        thread.join()
        return found[0]

    workers = Workers("back", 2, nice=7)
    before = niceness()
    assert await workers.run(niceness) == min(19, before + 7)
    assert await workers.run(of_one_started_here) == min(19, before + 7)
    assert niceness() == before
    workers.close()
