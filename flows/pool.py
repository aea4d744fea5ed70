"""Processes that work off one job after the other, each job within limits of time and memory.

A process holds what takes seconds to start (TensorFlow, programs, MLflow) and is used again. One that exceeds a limit is
killed, one that dies is noticed at once; the job is named as the reason, another process takes its place, and the other
jobs go on. What a job asks, tells and gives travels as plain data through a pipe of its process alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, cast

from registry.errors import MacrofleetError, TrainingStopped

Job = TypeVar("Job")
Result = TypeVar("Result")
# Told the finished share of a job.
Told = Callable[[float], None]
Work = Callable[[Job, Told], Result]

# How often the memory of a busy process is looked at: 30 microseconds a look, and a core fills 0.2 GB in between.
_LOOK_SECONDS = 0.1
# So many starts in a row that fail are no accident: thousands of tenants need not wait for one each.
_MOST_FAILED_STARTS = 3
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one job may take.

    Attributes:
        seconds: from when a process has it.
        memory_bytes: what its process may hold beside files (RssAnon), TensorFlow included.
    """

    seconds: float
    memory_bytes: int

    def outgrown(self, *, fresh: int, now: int) -> bool:
        """Whether an idle process had better be replaced: half of its room for a job is gone.

        Args:
            fresh, now: its memory before the first job, and now.
        """
        return now > (fresh + self.memory_bytes) / 2


# Ten seconds are usual; a machine that is busy with all else may need minutes.
_START = Limits(seconds=600, memory_bytes=1 << 62)


class Pool(Generic[Job, Result]):
    """Processes for jobs; entering the context starts them, leaving it kills them, whatever they are at.

    They end with this process, even if that is killed. `run` may be called by any thread; threads beyond the number of
    processes wait.

    Args:
        make: a module's function; called in each process, it gives what does the work. What that raises ends the job alone;
            only the type of it is repeated, as its text could quote a ticket.
        processes: how many.

    Example:
        >>> with Pool(make_worker, processes=2, limits=Limits(seconds=900, memory_bytes=4 * 1024**3)) as pool:
        ...     pool.run(job, told)
    """

    def __init__(self, make: Callable[[], Work[Job, Result]], *, processes: int, limits: Limits) -> None:
        self._make, self._limits, self._processes = make, limits, processes
        self._lock = threading.Lock()
        self._free: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        self._all: set[_Process] = set()
        self._closed = False
        self._failed_starts = 0
        # A process is told of the end of the thread that started it; this one lasts as long as the pool.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="process-starter")

    def __enter__(self) -> Self:
        for _ in range(self._processes):
            self._free.put(self._started())
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            left = list(self._all)
        for process in left:
            process.kill()
        self._starter.shutdown()

    def run(self, job: Job, told: Told) -> Result:
        """Do one job in a process, and wait for it.

        Args:
            job: plain data, and so is the result.
            told: told the finished share, in this thread.

        Raises:
            TrainingStopped: it exceeded a limit, its process died or did not start, its work raised something, or the pool
                was closed.
        """
        process = self._free.get()
        try:
            process = self._ready(process)
            result = process.do(job, told, self._limits)
        except BaseException:
            if process is not None:
                self._drop(process)
            self._free.put(None)
            if self._closed:
                raise TrainingStopped("the run was ended", remedy="Run it again.") from None
            raise
        if process.outgrown(self._limits):
            self._drop(process)
            process = None
        self._free.put(process)
        return cast("Result", result)

    def _ready(self, process: _Process | None) -> _Process:
        """A process that waits for a job. Raises TrainingStopped where none starts."""
        if process is not None and not process.alive:  # ended while it had nothing to do: nobody's failure
            self._drop(process)
            process = None
        with self._lock:
            if not self._closed and self._failed_starts >= _MOST_FAILED_STARTS:
                raise TrainingStopped(
                    f"{_MOST_FAILED_STARTS} processes in a row did not start",
                    remedy="What stopped them is named with the tenants before this one.",
                )
        process = process or self._started()
        try:
            process.wait_until_ready()
        except TrainingStopped:
            self._drop(process)
            with self._lock:
                self._failed_starts += 1
            raise
        with self._lock:
            self._failed_starts = 0
        return process

    def _started(self) -> _Process:
        try:
            process = self._starter.submit(_Process, self._make).result()
        except OSError as problem:
            raise TrainingStopped(f"a process did not start: {problem.strerror}", remedy=_DIED_REMEDY) from None
        with self._lock:
            self._all.add(process)
            closed = self._closed
        if closed:
            process.kill()
        return process

    def _drop(self, process: _Process) -> None:
        process.kill()
        with self._lock:
            self._all.discard(process)


class _Process:
    """One process and this side of its pipe. One thread's at a time, but for `kill`."""

    def __init__(self, make: Callable[[], Work[Any, Any]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(
            target=_serve, args=(theirs, os.getpid(), make), name="macrofleet-training", daemon=True
        )
        self._process.start()
        theirs.close()
        self._fresh: int | None = None

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def wait_until_ready(self) -> None:
        """Raises TrainingStopped: it did not start."""
        if self._fresh is None:
            _settle(self._answer(_START, lambda _: None, doing="a process did not start"))
            self._fresh = self._memory()

    def do(self, job: Any, told: Told, limits: Limits) -> Any:
        """Raises TrainingStopped: the process is of no use any more, or the work raised something."""
        with contextlib.suppress(OSError):  # it is dead, and the answer says how it died
            self._pipe.send(job)
        return _settle(self._answer(limits, told, doing="training was stopped"))

    def outgrown(self, limits: Limits) -> bool:
        assert self._fresh is not None
        return limits.outgrown(fresh=self._fresh, now=self._memory())

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def _answer(self, limits: Limits, told: Told, *, doing: str) -> _Done:
        began = time.monotonic()
        while True:
            left = began + limits.seconds - time.monotonic()
            if left <= 0:
                raise TrainingStopped(
                    f"{doing}: it took longer than {limits.seconds:g} s",
                    remedy="Run fewer processes." if limits is _START else "MACROFLEET_TRAINING_SECONDS is the limit.",
                )
            if self._memory() > limits.memory_bytes:
                raise TrainingStopped(
                    f"{doing}: it needed more than {limits.memory_bytes / 1024**2:.0f} MiB of memory",
                    remedy="MACROFLEET_TRAINING_MEMORY_BYTES is the limit.",
                )
            if not wait([self._pipe, self._process.sentinel], min(left, _LOOK_SECONDS)):
                continue
            try:
                # What it said before it died comes first.
                message = self._pipe.recv() if self._pipe.poll() else None
            except (EOFError, OSError):
                message = None
            if message is None:
                self._process.join()
                raise TrainingStopped(f"{doing}: {_ended(self._process.exitcode)}", remedy=_DIED_REMEDY)
            if isinstance(message, _Done):
                return message
            told(message)

    def _memory(self) -> int:
        """What it holds beside files; 0 once it is dead."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self._process.pid}/status").read_bytes().splitlines():
                if line.startswith(b"RssAnon:"):
                    return int(line.split()[1]) * 1024
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """The end of a job or of a start: its result, or a sentence of ours on what was raised."""

    result: Any = None
    problem: str = ""


_DIED_REMEDY = (
    "Where the kernel ended it for want of memory, run fewer processes (MACROFLEET_TRAINING_PROCESSES) or lower "
    "MACROFLEET_TRAINING_MEMORY_BYTES."
)


def _settle(done: _Done) -> Any:
    if done.problem:
        raise TrainingStopped(done.problem)
    return done.result


def _ended(code: int | None) -> str:
    """How a process ended, by its exit code."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with code {code}"


def _serve(pipe: Connection[Any, Any], parent: int, make: Callable[[], Work[Any, Any]]) -> None:
    """The life of a process."""
    # Ctrl-C goes to the whole group of processes; the pool ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # By the kernel, since a job that hangs in C keeps every thread of Python from noticing anything.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before the kernel knew
        os._exit(1)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the pool's process is about to end
        try:
            work = make()
        except MacrofleetError as problem:
            pipe.send(_Done(problem=f"a process did not start: {problem}"))
            return
        except Exception as problem:  # noqa: BLE001  # its text could be anything
            pipe.send(_Done(problem=f"a process did not start: {type(problem).__name__}"))
            return
        pipe.send(_Done())
        for job in _jobs(pipe):
            try:
                done = _Done(result=work(job, pipe.send))
            except Exception as problem:  # noqa: BLE001  # the same
                done = _Done(problem=f"training was stopped: {type(problem).__name__}")
            pipe.send(done)


def _jobs(pipe: Connection[Any, Any]) -> Iterator[Any]:
    while True:
        yield pipe.recv()
