"""A timer good to some tens of microseconds, where an event loop's own are good to a millisecond or two."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import Protocol

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
# What an event loop's own timer may be late by; the rest of a wait is spent asking the clock.
_COARSE_SECONDS = 0.003


class Timer(Protocol):
    """Calls back once after each `start`."""

    def start(self, seconds: float) -> None:
        """Call back after so many seconds, from the event loop. Only when the last call has come."""

    def close(self) -> None:
        """Let go of what it holds; it does not call any more."""


def make_timer(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Timer:
    """The best timer that this system has."""
    return _KernelTimer(loop, callback) if sys.platform == "linux" else _SpinningTimer(loop, callback)


class _Moment(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    """The kernel's `itimerspec`."""

    _fields_ = (("interval", _Moment), ("value", _Moment))


class _KernelTimer:
    """`timerfd_create(2)`, through the C library: Python has it from 3.13 on.

    Sleeping matters: a generator that spins keeps a processor busy, and on a virtual machine with a bound on its
    processors' time the server was stopped for 30 ms at a time because of it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._checked(self._library.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC))
        loop.add_reader(self._descriptor, self._expired)

    def start(self, seconds: float) -> None:
        # Zero would disarm it.
        nanoseconds = max(int(seconds * 1e9), 1)
        setting = _Setting(_Moment(0, 0), _Moment(*divmod(nanoseconds, 1_000_000_000)))
        self._checked(self._library.timerfd_settime(self._descriptor, 0, ctypes.byref(setting), None))

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _expired(self) -> None:
        os.read(self._descriptor, 8)
        self._callback()

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


class _SpinningTimer:
    """The event loop's own timer, and the last bit of a wait spent asking the clock again and again."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._due = 0.0
        self._handle: asyncio.Handle | None = None

    def start(self, seconds: float) -> None:
        self._due = time.monotonic() + seconds
        self._handle = self._loop.call_soon(self._wait)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _wait(self) -> None:
        left = self._due - time.monotonic()
        if left <= 0:
            self._callback()
        elif left > _COARSE_SECONDS:
            self._handle = self._loop.call_later(left - _COARSE_SECONDS + 0.001, self._wait)
        else:
            self._handle = self._loop.call_soon(self._wait)
