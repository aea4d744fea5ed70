"""The load generator's process: reads a `benchmarks.load.Plan` on stdin, says when it begins, writes `Samples` at the end.

Both go to a pipe that nothing else writes to, and through a buffer: `sys.stdout.buffer` is none where PYTHONUNBUFFERED is
set, and what is written without one may be written in part, when the process is stopped and goes on.

Python, yet quick enough for one core to drive a server on the other: requests are bytes made beforehand, an answer is
looked at no further than its status and its length, and nothing is allocated that the collector would look for.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import re
import sys
import time
from array import array
from collections import deque
from typing import IO, Any
from urllib.parse import urlsplit

import numpy as np
import uvloop

from benchmarks.load import BROKEN, UNANSWERED, Plan, Samples
from benchmarks.precise_timer import make_timer

_NAN = float("nan")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_FOREVER = float("inf")
_now = time.monotonic


class _Connection(asyncio.Protocol):
    """One kept-alive connection; `index` is the request it is busy with."""

    __slots__ = ("_driver", "_part", "closed", "idle_since", "index", "transport")
    transport: asyncio.Transport

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self._part = b""
        self.index = -1
        self.idle_since = 0.0
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream's is a Transport

    def data_received(self, data: bytes) -> None:
        if self._part:
            data = self._part + data
            self._part = b""
        end = data.find(b"\r\n\r\n")
        if end > 0:
            place = data.find(b"\r\ncontent-length: ", 0, end)
            try:
                status = int(data[9:12])
                size = int(data[place + 18 : data.index(b"\r", place + 18)] if place > 0 else _length(data, end))
            except ValueError:  # chunked, say; no server measured here does that
                self.transport.abort()
                return
            missing = end + 4 + size - len(data)
            if not missing:
                self._driver.answered(self, status, data, end + 4)
                return
            if missing < 0:
                self.transport.abort()
                return
        self._part = data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why does not matter
        self.closed = True
        self._driver.lost(self)


def _length(data: bytes, end: int) -> bytes:
    found = _LENGTH.search(data, 0, end + 2)
    return found[1] if found else b""


class _Driver:
    """What open and closed loop have in common: connections, and the samples."""

    def __init__(self, plan: Plan, loop: asyncio.AbstractEventLoop) -> None:
        parts = urlsplit(plan.url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._loop = loop
        self.plan = plan
        self.finished = loop.create_future()
        self.answers: list[bytes] = []
        self._keep = plan.keep_answers
        self._requests = list(plan.requests)
        self._picks: list[int] = plan.picks.tolist()

    async def connect(self) -> _Connection:
        _, connection = await self._loop.create_connection(lambda: _Connection(self), self._host, self._port)
        return connection

    def answered(self, connection: _Connection, status: int, data: bytes, body_at: int) -> None:
        raise NotImplementedError

    def lost(self, connection: _Connection) -> None:
        raise NotImplementedError

    def start(self, connections: list[_Connection]) -> float:
        raise NotImplementedError

    def samples(self, began: float, processor_share: float) -> Samples:
        raise NotImplementedError

    def fail(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An event loop's exception handler: what went wrong in a callback ends the run."""
        if not self.finished.done():
            self.finished.set_exception(context.get("exception") or RuntimeError(context["message"]))

    def _finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)


class _ClosedLoop(_Driver):
    """Every connection sends its next request when it has the answer to the last."""

    def start(self, connections: list[_Connection]) -> float:
        began = _now()
        seconds = self.plan.seconds
        self._until = began + (_FOREVER if seconds is None else seconds)
        self._most = len(self._picks) if seconds is None else sys.maxsize
        self._sent, self._done = array("d"), array("d")
        self._status, self._picked = array("q"), array("q")
        self._out = len(connections)
        for connection in connections:
            self._send(connection)
        if seconds is not None:
            self._loop.call_later(seconds + self.plan.patience_seconds, self._finish)
        return began

    def _send(self, connection: _Connection) -> None:
        now = _now()
        index = len(self._sent)
        if now >= self._until or index >= self._most or connection.closed:
            connection.index = -1
            self._leave()
            return
        connection.index = index
        pick = self._picks[index % len(self._picks)]
        self._sent.append(now)
        self._done.append(_NAN)
        self._status.append(UNANSWERED)
        self._picked.append(pick)
        if self._keep:
            self.answers.append(b"")
        if index + 1 == self._most:
            self._loop.call_later(self.plan.patience_seconds, self._finish)
        connection.transport.write(self._requests[pick])

    def answered(self, connection: _Connection, status: int, data: bytes, body_at: int) -> None:
        index = connection.index
        self._done[index] = _now()
        self._status[index] = status
        if self._keep:
            self.answers[index] = data[body_at:]
        self._send(connection)

    def lost(self, connection: _Connection) -> None:
        if connection.index >= 0 and not self.finished.done():
            self._status[connection.index] = BROKEN
            self._leave()

    def _leave(self) -> None:
        self._out -= 1
        if not self._out:
            self._finish()

    def samples(self, began: float, processor_share: float) -> Samples:
        sent = np.array(self._sent)
        return Samples(
            began=began,
            seconds=_now() - began if self.plan.seconds is None else self.plan.seconds,
            picks=np.array(self._picked),
            intended=sent,
            fired=sent,
            sent=sent,
            done=np.array(self._done),
            status=np.array(self._status),
            answers=self.answers,
            processor_share=processor_share,
        )


class _OpenLoop(_Driver):
    """Every request goes out when it is due, on an idle connection, a new one, or the next that comes free."""

    def __init__(self, plan: Plan, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(plan, loop)
        self._waiting: deque[int] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0

    def start(self, connections: list[_Connection]) -> float:
        assert self.plan.at is not None
        self._idle = [connection for connection in connections if not connection.closed]
        self._open = len(self._idle)
        began = _now()
        for connection in connections:
            connection.idle_since = began
        self._due: list[float] = (self.plan.at + began).tolist()
        count = len(self._due)
        self._fired, self._sent, self._done = (array("d", [_NAN]) * count for _ in range(3))
        self._status = array("q", [UNANSWERED]) * count
        if self._keep:
            self.answers = [b""] * count
        self._next = 0
        self._left = count
        self._timer = make_timer(self._loop, self._tick)
        self._tick()
        return began

    def _tick(self) -> None:
        due, position, count = self._due, self._next, len(self._due)
        now = _now()
        while position < count and due[position] <= now:
            self._fired[position] = now
            self._fire(position, now)
            position += 1
            now = _now()
        self._next = position
        if position == count:
            self._timer.close()
            self._loop.call_later(self.plan.patience_seconds, self._finish)
        else:
            self._timer.start(due[position] - now)

    def _fire(self, index: int, now: float) -> None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.closed:
                continue
            if now - connection.idle_since < self.plan.idle_seconds:
                self._send(connection, index, now)
                return
            connection.transport.abort()
        self._waiting.append(index)
        self._open_more()

    def _open_more(self) -> None:
        if self._open < self.plan.max_connections:
            self._open += 1
            task = self._loop.create_task(self._connect_more())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect_more(self) -> None:
        try:
            connection = await self.connect()
        except OSError:
            self._open -= 1
        else:
            if not connection.closed:
                self._free(connection, _now())
                return
        if self._waiting:
            self._settle(self._waiting.popleft(), BROKEN)

    def _send(self, connection: _Connection, index: int, now: float) -> None:
        connection.index = index
        self._sent[index] = now
        connection.transport.write(self._requests[self._picks[index]])

    def _free(self, connection: _Connection, now: float) -> None:
        if self._waiting:
            self._send(connection, self._waiting.popleft(), now)
        else:
            connection.index = -1
            connection.idle_since = now
            self._idle.append(connection)

    def answered(self, connection: _Connection, status: int, data: bytes, body_at: int) -> None:
        index = connection.index
        if index < 0:
            connection.transport.abort()  # an answer that nobody asked for
            return
        now = _now()
        self._done[index] = now
        if self._keep:
            self.answers[index] = data[body_at:]
        self._free(connection, now)
        self._settle(index, status)

    def lost(self, connection: _Connection) -> None:
        self._open -= 1
        if self.finished.done():
            return
        if connection.index >= 0:
            self._settle(connection.index, BROKEN)
        if self._waiting:
            self._open_more()

    def _settle(self, index: int, status: int) -> None:
        self._status[index] = status
        self._left -= 1
        if not self._left:
            self._finish()

    def samples(self, began: float, processor_share: float) -> Samples:
        assert self.plan.at is not None
        at = self.plan.at
        return Samples(
            began=began,
            seconds=float(at[-1]) if len(at) else 0.0,
            picks=self.plan.picks,
            intended=at + began,
            fired=np.array(self._fired),
            sent=np.array(self._sent),
            done=np.array(self._done),
            status=np.array(self._status),
            answers=self.answers,
            processor_share=processor_share,
        )


async def drive(plan: Plan, output: IO[bytes]) -> Samples:
    """Run a plan; the moment it begins goes to `output`, as a line of text."""
    loop = asyncio.get_running_loop()
    driver = (_ClosedLoop if plan.at is None else _OpenLoop)(plan, loop)
    loop.set_exception_handler(driver.fail)
    connections = [await driver.connect() for _ in range(plan.connections)]
    gc.collect()
    gc.freeze()
    gc.disable()
    used = time.process_time()
    began = driver.start(connections)
    output.write(f"{began!r}\n".encode())
    output.flush()
    await driver.finished
    return driver.samples(began, (time.process_time() - used) / (_now() - began))


def main() -> None:
    """Run the plan on stdin; the first argument is the descriptor to write to."""
    plan: Plan = pickle.load(sys.stdin.buffer)
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    with open(int(sys.argv[1]), "wb") as output:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            samples = runner.run(drive(plan, output))
        pickle.dump(samples, output, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
