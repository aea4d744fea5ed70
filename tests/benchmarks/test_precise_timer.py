from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace

import pytest
import uvloop

from benchmarks import precise_timer
from benchmarks.precise_timer import Timer, _KernelTimer, _SpinningTimer, make_timer

PATIENCE = 30.0
MakeTimer = Callable[[asyncio.AbstractEventLoop, Callable[[], None]], Timer]
NewLoop = Callable[[], asyncio.AbstractEventLoop]

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux's")
each_timer = pytest.mark.parametrize("make", [pytest.param(_KernelTimer, marks=on_linux), _SpinningTimer])
each_loop = pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])


class Bell:
    """Notes when a timer calls."""

    def __init__(self, make: MakeTimer) -> None:
        self.rung: list[float] = []
        self._ringing = asyncio.Event()
        self.timer = make(asyncio.get_running_loop(), self._ring)

    async def wait(self) -> float:
        async with asyncio.timeout(PATIENCE):
            await self._ringing.wait()
        self._ringing.clear()
        return self.rung[-1]

    def _ring(self) -> None:
        self.rung.append(time.monotonic())
        self._ringing.set()


async def later_than(make: MakeTimer, seconds: float) -> None:
    """Until a timer has called that is due after any that was started before for so long."""
    other = Bell(make)
    other.timer.start(seconds + 0.001)
    await other.wait()
    other.timer.close()


def run(new_loop: NewLoop, work: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(work())


@each_timer
@each_loop
def test_it_calls_once_after_each_start_and_never_early(make: MakeTimer, new_loop: NewLoop) -> None:
    async def work() -> None:
        bell = Bell(make)
        # Shorter and longer than what an event loop's own timer is trusted with.
        for times, seconds in enumerate([0.0001, 0.002, 0.01, 0.03, 0.0025], start=1):
            began = time.monotonic()
            bell.timer.start(seconds)
            assert await bell.wait() - began >= seconds
            assert len(bell.rung) == times
        await later_than(make, 0.03)
        assert len(bell.rung) == times
        bell.timer.close()

    run(new_loop, work)


@each_timer
@each_loop
@pytest.mark.parametrize("seconds", [0.0, -0.5, -1e-12, 1e-10])
def test_what_is_due_is_called_at_once_but_not_from_within_start(
    make: MakeTimer, new_loop: NewLoop, seconds: float
) -> None:
    async def work() -> None:
        bell = Bell(make)
        bell.timer.start(seconds)
        assert not bell.rung
        await bell.wait()
        bell.timer.close()

    run(new_loop, work)


@each_timer
@each_loop
def test_it_may_be_started_and_closed_from_the_call(make: MakeTimer, new_loop: NewLoop) -> None:
    async def work() -> None:
        calls = 0
        ended = asyncio.Event()

        def call() -> None:
            nonlocal calls
            calls += 1
            if calls < 2000:
                timer.start(0)
            else:
                timer.close()
                ended.set()

        timer = make(asyncio.get_running_loop(), call)
        timer.start(0)
        async with asyncio.timeout(PATIENCE):
            await ended.wait()

    run(new_loop, work)


@each_timer
@each_loop
def test_it_does_not_call_once_it_is_closed(make: MakeTimer, new_loop: NewLoop) -> None:
    async def work() -> None:
        for seconds in (0.0, 0.001, 0.005):
            bell = Bell(make)
            bell.timer.start(seconds)
            bell.timer.close()
            await later_than(make, seconds)
            assert not bell.rung

    run(new_loop, work)


@each_timer
@each_loop
def test_it_gives_back_what_it_holds(make: MakeTimer, new_loop: NewLoop) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        before = sorted(os.listdir("/proc/self/fd"))
        for _ in range(3):
            bell = Bell(make)
            bell.timer.start(0)
            await bell.wait()
            bell.timer.close()
        assert sorted(os.listdir("/proc/self/fd")) == before

    run(new_loop, work)


@on_linux
def test_the_kernel_keeps_the_time_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        timer = make_timer(loop, lambda: None)
        assert isinstance(timer, _KernelTimer)
        timer.close()
        monkeypatch.setattr(precise_timer, "sys", SimpleNamespace(platform="darwin"))
        assert isinstance(make_timer(loop, lambda: None), _SpinningTimer)

    run(asyncio.new_event_loop, work)


@on_linux
def test_what_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(OSError, match=r"Bad file descriptor|Invalid argument"):
        asyncio.run(_start_closed())


async def _start_closed() -> None:
    timer = _KernelTimer(asyncio.get_running_loop(), lambda: None)
    timer.close()
    timer.start(0)
