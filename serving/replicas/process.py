"""One replica's process: started, watched, and started again as `serving.replicas.states` says.

Its standard input is a pipe that the supervisor holds and never writes to: it ends with the supervisor, however that dies,
and `end_with_supervisor` watches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from serving.replicas.standing_back import ANSWERING, STARTING, set_group_nice
from serving.replicas.states import STOP_SECONDS, Action, Event, Phase, first_state, next_action

_SUPERVISED = "MACROFLEET_SUPERVISED"
_REFUSALS = {1, 2}
_POLL_SECONDS = 0.05
# So long a replica stands back at most while it starts: where the processors are full, it would never come otherwise, and
# those that answer need it.
_STAND_BACK_SECONDS = 30.0
_READY_POLL_SECONDS = 0.2
_LOG = logging.getLogger(__name__)


class Keeper:
    """One replica's process, and the loop that asks `next_action` what to do about it."""

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        ready_file: Path,
        on_change: Callable[[Action], None],
        *,
        others_answer: Callable[[], bool] = lambda: False,
    ) -> None:
        self.number = number
        self.urls: tuple[str, ...] = ()
        # Whether it shall get no more requests although it runs.
        self.held = False
        self._command = [*command, "--ready-file", str(ready_file)]
        self._environment = {**os.environ, **environment, _SUPERVISED: "1"}
        self._ready_file = ready_file
        self._on_change = on_change
        self._others_answer = others_answer
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._started = 0
        self._state = first_state(time.monotonic())

    @property
    def in_service(self) -> bool:
        """Whether it listens and may be asked."""
        return self._state.phase is Phase.RUNNING and not self.held

    @property
    def pid(self) -> int | None:
        """Of its process; None while there is none."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    def tell(self, event: Event) -> None:
        self._events.put_nowait(event)

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def run(self) -> None:
        """Until it has stopped for good."""
        try:
            await self._do(Action.SPAWN)
            while self._state.phase is not Phase.STOPPED:
                event = await self._next_event()
                now = time.monotonic()
                self._state, action = next_action(self._state, event, now)
                if self._state.phase is Phase.WAITING and event is not Event.TIME:
                    code, seconds = self._process and self._process.returncode, (self._state.due or now) - now
                    extra = {"replica": self.number, "exit_code": code, "next_start_seconds": seconds}
                    _LOG.error("a replica ended", extra=extra)
                await self._do(action)
                self._on_change(action)
        finally:
            if self._watching is not None:
                self._watching.cancel()

    async def is_prepared_for(self, replicas: int) -> bool:
        """Whether it has what the ring of so many replicas gives to it, or has tried; a plan that is no share needs nothing."""
        status, told = await _readiness(self.urls[0])
        return status == 200 and told.get("share_of") in {None, replicas}

    async def restart(self) -> None:
        """Replace the process, and return when the new one is ready for traffic."""
        before = self._started
        self.tell(Event.RESTART)
        while self._started == before or self._state.phase is not Phase.RUNNING or not await _is_ready(self.urls[0]):
            await asyncio.sleep(_READY_POLL_SECONDS)

    async def _next_event(self) -> Event:
        due = self._state.due
        try:
            async with asyncio.timeout(None if due is None else max(due - time.monotonic(), 0)):
                return await self._events.get()
        except TimeoutError:
            return Event.TIME

    async def _do(self, action: Action) -> None:
        match action:
            case Action.SPAWN:
                await self._spawn()
            case Action.TERMINATE if self._process is not None and self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()
            case Action.KILL:
                _LOG.warning("killing a replica that takes too long", extra={"replica": self.number})
                self.kill()

    async def _spawn(self) -> None:
        self._ready_file.unlink(missing_ok=True)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                # A terminal's signals are the supervisor's to handle.
                start_new_session=True,
            )
        except OSError as problem:
            _LOG.warning("a replica cannot be started", extra={"replica": self.number}, exc_info=problem)
            self.tell(Event.ENDED)
            return
        # Starting takes seconds of the processor, which those that answer need more.
        stands_back = self._others_answer() and await asyncio.to_thread(set_group_nice, self._process.pid, STARTING)
        self._started += 1
        _LOG.info("started a replica", extra={"replica": self.number, "pid": self._process.pid})
        self._watching = asyncio.create_task(self._watch(self._process, stands_back=stands_back))

    async def _watch(self, process: asyncio.subprocess.Process, *, stands_back: bool) -> None:
        ended = asyncio.create_task(process.wait())
        until = time.monotonic() + _STAND_BACK_SECONDS
        try:
            while not ended.done() and not self._ready_file.exists():
                await asyncio.wait({ended}, timeout=_POLL_SECONDS)
                if stands_back and time.monotonic() > until:
                    stands_back = await self._come_forth(process.pid)
            with contextlib.suppress(FileNotFoundError):  # it has ended, or takes the file away since it is about to
                self._learn(self._ready_file.read_text().split())
                self.tell(Event.LISTENING)
            if stands_back:
                while not ended.done() and time.monotonic() < until and not await _is_ready(self.urls[0]):
                    await asyncio.wait({ended}, timeout=_READY_POLL_SECONDS)
                await self._come_forth(process.pid)
            code = await ended
        finally:
            ended.cancel()
        self.tell(Event.REFUSED if code in _REFUSALS else Event.ENDED)

    async def _come_forth(self, pid: int) -> bool:
        """End its standing back; False, which is whether it still does."""
        await asyncio.to_thread(set_group_nice, pid, ANSWERING)
        return False

    def _learn(self, urls: list[str]) -> None:
        """Keep the ports that the system chose, so that callers find the next process where this one was."""
        self.urls = tuple(urls)
        for variable, url in zip(("MACROFLEET_PORT", "MACROFLEET_OPERATOR_PORT"), urls, strict=False):
            self._environment[variable] = str(urlsplit(url).port)


async def _is_ready(url: str) -> bool:
    return (await _readiness(url))[0] == 200


async def _readiness(url: str) -> tuple[int, dict[str, Any]]:
    """The status of a replica's `/readyz`, and what it says there; 0 and nothing while it does not answer."""
    place = urlsplit(url)
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        status, told = int(head.split(maxsplit=2)[1]), json.loads(body)
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0, {}
    return status, told


def end_with_supervisor() -> None:
    """In a process that `run_replicas` started: end when the supervisor does, as on SIGTERM, and by force if that hangs.

    A thread watches, so it works before there is an event loop and where one is stuck. Elsewhere this does nothing.
    """
    if os.environ.pop(_SUPERVISED, "") == "1":
        threading.Thread(target=_watch_supervisor, args=(sys.stdin.fileno(),), daemon=True, name="supervisor").start()


def _watch_supervisor(pipe: int) -> None:
    while os.read(pipe, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)
