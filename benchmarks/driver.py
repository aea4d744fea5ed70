"""The load generator's process: reads a `benchmarks.load.Plan` on stdin, says when it begins, writes `Samples` at the end.

Both go to a pipe that nothing else writes to, and through a buffer: `sys.stdout.buffer` is none where PYTHONUNBUFFERED is
set, and what is written without one may be written in part, when the process is stopped and goes on.

Python, yet quick enough for one core to drive a server on the other: requests are bytes made beforehand, an answer is
looked at no further than its status and its length, and nothing is allocated that the collector would look for.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import signal
import sys
import time
from array import array
from collections import deque
from typing import IO, Any

import numpy as np
import uvloop

from benchmarks.http_connection import Connection, Target
from benchmarks.load import BROKEN, UNANSWERED, Plan, Samples
from benchmarks.precise_timer import make_timer

_NAN = float("nan")
# Either case of the first letter; no regular expression, since every answer is searched for it.
_CLOSING = b"onnection: close"
# Of a refusal, as much as tells its reason.
_REFUSAL_BYTES = 4096
_REFUSED = 300
_FOREVER = float("inf")
_now = time.monotonic


class _Driver:
    """What open and closed loop have in common: connections, and the samples."""

    def __init__(self, plan: Plan, loop: asyncio.AbstractEventLoop) -> None:
        self._targets = [Target.of(url) for url in (plan.url, *plan.more_urls)]
        self._loop = loop
        self.plan = plan
        self.finished = loop.create_future()
        self.answers: list[bytes] = []
        self.refusals: list[bytes] = []
        self._keep = plan.keep_answers
        self._keep_refusals = plan.keep_refusals
        self._requests = list(plan.requests)
        self._picks: list[int] = plan.picks.tolist()

    async def connect(self, target: int = 0) -> Connection:
        at = self._targets[target]
        _, connection = await self._loop.create_connection(
            lambda: Connection(self, target), at.host, at.port, ssl=at.tls
        )
        return connection

    def answered(self, connection: Connection, status: int, data: bytes, body_at: int) -> None:
        raise NotImplementedError

    def lost(self, connection: Connection) -> None:
        raise NotImplementedError

    def start(self, connections: list[Connection]) -> float:
        raise NotImplementedError

    def stop(self) -> None:
        """End the run now; the samples are of what was sent until here."""
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

    def _note(self, index: int, status: int, data: bytes, body_at: int) -> None:
        if self._keep:
            self.answers[index] = data[body_at:]
        if self._keep_refusals and status >= _REFUSED:
            self.refusals[index] = data[:_REFUSAL_BYTES]


class _ClosedLoop(_Driver):
    """Every connection sends its next request when it has the answer to the last."""

    def start(self, connections: list[Connection]) -> float:
        began = _now()
        seconds = self.plan.seconds
        self._stopped = False
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

    def _send(self, connection: Connection) -> None:
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
        if self._keep_refusals:
            self.refusals.append(b"")
        if index + 1 == self._most:
            self._loop.call_later(self.plan.patience_seconds, self._finish)
        connection.transport.write(self._requests[pick])

    def answered(self, connection: Connection, status: int, data: bytes, body_at: int) -> None:
        index = connection.index
        self._done[index] = _now()
        self._status[index] = status
        self._note(index, status, data, body_at)
        self._send(connection)

    def stop(self) -> None:
        self._stopped = True
        self._finish()

    def _seconds(self, began: float) -> float:
        return _now() - began if self.plan.seconds is None or self._stopped else self.plan.seconds

    def lost(self, connection: Connection) -> None:
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
            seconds=self._seconds(began),
            picks=np.array(self._picked),
            intended=sent,
            fired=sent,
            sent=sent,
            done=np.array(self._done),
            status=np.array(self._status),
            answers=self.answers,
            refusals=self.refusals,
            processor_share=processor_share,
        )


class _OpenLoop(_Driver):
    """Every request goes out when it is due, on an idle connection, a new one, or the next that comes free.

    Each target has connections of its own; what is kept of them is a list by target.
    """

    def __init__(self, plan: Plan, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(plan, loop)
        self._waiting: list[deque[int]] = [deque() for _ in self._targets]
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = [0] * len(self._targets)
        self._target_of: list[int] = [0] * len(self._picks) if plan.targets is None else plan.targets.tolist()

    def start(self, connections: list[Connection]) -> float:
        assert self.plan.at is not None
        self._idle: list[list[Connection]] = [[] for _ in self._targets]
        for connection in connections:
            if not connection.closed:
                self._idle[connection.target].append(connection)
                self._open[connection.target] += 1
        began = _now()
        for connection in connections:
            connection.idle_since = began
        self._due: list[float] = (self.plan.at + began).tolist()
        count = len(self._due)
        self._fired, self._sent, self._done = (array("d", [_NAN]) * count for _ in range(3))
        self._status = array("q", [UNANSWERED]) * count
        if self._keep:
            self.answers = [b""] * count
        if self._keep_refusals:
            self.refusals = [b""] * count
        self._next = 0
        self._left = count
        self._began = began
        self._stopped_after: float | None = None
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
        target = self._target_of[index]
        idle = self._idle[target]
        while idle:
            connection = idle.pop()
            if connection.closed:
                continue
            if now - connection.idle_since < self.plan.idle_seconds:
                self._send(connection, index, now)
                return
            connection.transport.abort()
        self._waiting[target].append(index)
        self._open_more(target)

    def _open_more(self, target: int) -> None:
        if self._open[target] < self.plan.max_connections:
            self._open[target] += 1
            task = self._loop.create_task(self._connect_more(target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect_more(self, target: int) -> None:
        try:
            connection = await self.connect(target)
        except OSError:
            self._open[target] -= 1
        else:
            if not connection.closed:
                self._free(connection, _now())
                return
        if self._waiting[target]:
            self._settle(self._waiting[target].popleft(), BROKEN)

    def _send(self, connection: Connection, index: int, now: float) -> None:
        connection.index = index
        self._sent[index] = now
        connection.transport.write(self._requests[self._picks[index]])

    def _free(self, connection: Connection, now: float) -> None:
        waiting = self._waiting[connection.target]
        if waiting:
            self._send(connection, waiting.popleft(), now)
        else:
            connection.index = -1
            connection.idle_since = now
            self._idle[connection.target].append(connection)

    def answered(self, connection: Connection, status: int, data: bytes, body_at: int) -> None:
        index = connection.index
        if index < 0:
            connection.transport.abort()  # an answer that nobody asked for
            return
        now = _now()
        self._done[index] = now
        self._note(index, status, data, body_at)
        if data.find(_CLOSING, 0, body_at) > 0:
            # It will be closed, perhaps under the next request; `lost` opens another where one waits.
            connection.index = -1
            connection.transport.abort()
        else:
            self._free(connection, now)
        self._settle(index, status)

    def lost(self, connection: Connection) -> None:
        target = connection.target
        self._open[target] -= 1
        if self.finished.done():
            return
        if connection.index >= 0:
            self._settle(connection.index, BROKEN)
        if self._waiting[target]:
            self._open_more(target)

    def _settle(self, index: int, status: int) -> None:
        self._status[index] = status
        self._left -= 1
        if not self._left:
            self._finish()

    def stop(self) -> None:
        if self._next < len(self._due):
            self._timer.close()
            self._stopped_after = _now() - self._began
        self._finish()

    def samples(self, began: float, processor_share: float) -> Samples:
        assert self.plan.at is not None
        count = self._next  # all, unless it was stopped
        at = self.plan.at[:count]
        seconds = self._stopped_after or (float(at[-1]) if count else 0.0)
        return Samples(
            began=began,
            seconds=seconds,
            picks=self.plan.picks[:count],
            intended=at + began,
            fired=np.array(self._fired[:count]),
            sent=np.array(self._sent[:count]),
            done=np.array(self._done[:count]),
            status=np.array(self._status[:count]),
            answers=self.answers[:count],
            refusals=self.refusals[:count],
            processor_share=processor_share,
        )


async def drive(plan: Plan, output: IO[bytes]) -> Samples:
    """Run a plan; the moment it begins goes to `output`, as a line of text."""
    loop = asyncio.get_running_loop()
    driver = (_ClosedLoop if plan.at is None else _OpenLoop)(plan, loop)
    loop.set_exception_handler(driver.fail)
    # What is due at all goes to the first target in a closed loop, and to any in an open one.
    count = 1 if plan.at is None else 1 + len(plan.more_urls)
    connections = [await driver.connect(number % count) for number in range(plan.connections)]
    gc.collect()
    gc.freeze()
    gc.disable()
    used = time.process_time()
    began = driver.start(connections)
    output.write(f"{began!r}\n".encode())
    output.flush()
    loop.add_signal_handler(signal.SIGTERM, driver.stop)
    await driver.finished
    loop.remove_signal_handler(signal.SIGTERM)
    return driver.samples(began, (time.process_time() - used) / (_now() - began))


def main() -> None:
    """Run the plan on stdin; the first argument is the descriptor to write to."""
    plan: Plan = pickle.load(sys.stdin.buffer)
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    if sys.platform == "linux":
        with contextlib.suppress(PermissionError):  # who may not is late, and the report says so
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    with open(int(sys.argv[1]), "wb") as output:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            samples = runner.run(drive(plan, output))
        pickle.dump(samples, output, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
