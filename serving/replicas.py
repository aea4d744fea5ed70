"""Several server processes on one machine, and somebody who keeps them alive.

Each replica is a process of its own (`macrofleet serve`, with its ports in the environment). What becomes of one:

    starting ──listens──▶ running ──ended──▶ waiting ──its time has come──▶ starting
       │ ended: waiting      │                  │
       │ refused: stopped    │                  │
       └────── stop, restart ┴───▶ stopping     └── stop: stopped; restart: starting
                                      │ too slow: killed
                                      └── ended ──▶ starting (restart) or stopped (stop)

- The wait after an end that nobody asked for doubles with each one, up to 30 s; a minute of running forgets them.
- A process that ends with a refusal (exit code 1 or 2) before it ever listened tells of settings that cannot work, which
  no retry mends: the supervisor gives up and ends the others.
- One that does not listen within two minutes, or does not end within the time of its drain, is killed.

`next_action` is this picture as a pure function; `supervise` has the processes. Their standard input is a pipe that the
supervisor holds and never writes to: it ends with the supervisor, however that dies, and `end_with_supervisor` watches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from registry.errors import InvalidInput, NotReady
from serving.logs import configure_logs
from serving.ready_file import check_ready_file, write_ready_file
from serving.settings import ServingSettings

MAX_REPLICAS = 256
FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
START_SECONDS = 120.0
# A server cuts what is under way after ten seconds, and then has its store and threads to close.
STOP_SECONDS = 20.0
_SUPERVISED = "MACROFLEET_SUPERVISED"
_REFUSALS = {1, 2}
_POLL_SECONDS = 0.05
_READY_POLL_SECONDS = 0.2
_LOG = logging.getLogger(__name__)


class Phase(enum.Enum):
    """Where a replica is."""

    STARTING = enum.auto()
    RUNNING = enum.auto()
    STOPPING = enum.auto()
    WAITING = enum.auto()
    STOPPED = enum.auto()


class Event(enum.Enum):
    """What happened to one."""

    LISTENING = enum.auto()
    ENDED = enum.auto()
    REFUSED = enum.auto()  # ended, with an exit code that tells of a mistake in its settings
    TIME = enum.auto()  # nothing, but time has passed
    STOP = enum.auto()
    RESTART = enum.auto()


class Action(enum.Enum):
    """What is to be done about it."""

    NOTHING = enum.auto()
    SPAWN = enum.auto()
    TERMINATE = enum.auto()
    KILL = enum.auto()
    GIVE_UP = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """What is known of one.

    Attributes:
        phase: where it is.
        due: when `Event.TIME` has something to say; None is never.
        deaths: ends in a row that nobody asked for.
        proven: it has listened once, so its settings are good.
        wanted: whether it is started again once it has stopped.
    """

    phase: Phase
    due: float | None
    deaths: int = 0
    proven: bool = False
    wanted: bool = True


def first_state(now: float) -> Replica:
    """A replica that has just been started."""
    return Replica(phase=Phase.STARTING, due=now + START_SECONDS)


def wait_seconds(deaths: int) -> float:
    """How long to wait before the next start, after so many ends in a row."""
    return min(FIRST_WAIT_SECONDS * 2.0 ** min(deaths - 1, 16), MAX_WAIT_SECONDS)


def next_action(state: Replica, event: Event, now: float) -> tuple[Replica, Action]:
    """What comes of an event: the new state, and the one thing to do.

    Args:
        state: as this function or `first_state` made it.
        event: `ENDED` and `REFUSED` only come while there is a process.
        now: seconds of a clock that never goes back.
    """
    match event:
        case Event.ENDED | Event.REFUSED:
            return _ended(state, now, refused=event is Event.REFUSED)
        case Event.STOP | Event.RESTART:
            return _told(state, now, wanted=event is Event.RESTART)
        case Event.LISTENING if state.phase is Phase.STARTING:
            return replace(state, phase=Phase.RUNNING, due=now + HEALTHY_SECONDS, proven=True), Action.NOTHING
        case Event.TIME if state.due is not None and now >= state.due:
            return _late(state, now)
    return state, Action.NOTHING


def _ended(state: Replica, now: float, *, refused: bool) -> tuple[Replica, Action]:
    if state.phase is Phase.STOPPING:
        return _start(state, now) if state.wanted else (_stopped(state), Action.NOTHING)
    if refused and not state.proven:
        return _stopped(state), Action.GIVE_UP
    deaths = state.deaths + 1
    return replace(state, phase=Phase.WAITING, due=now + wait_seconds(deaths), deaths=deaths), Action.NOTHING


def _told(state: Replica, now: float, *, wanted: bool) -> tuple[Replica, Action]:
    match state.phase:
        case Phase.STARTING | Phase.RUNNING:
            state = replace(state, phase=Phase.STOPPING, due=now + STOP_SECONDS, deaths=0, wanted=wanted)
            return state, Action.TERMINATE
        case Phase.WAITING:
            return _start(replace(state, deaths=0), now) if wanted else (_stopped(state), Action.NOTHING)
        case Phase.STOPPING:
            # Who was told to stop for good is not started again by a restart that comes late.
            return replace(state, wanted=state.wanted and wanted), Action.NOTHING
    return state, Action.NOTHING


def _late(state: Replica, now: float) -> tuple[Replica, Action]:
    match state.phase:
        case Phase.WAITING:
            return _start(state, now)
        case Phase.RUNNING:
            return replace(state, due=None, deaths=0), Action.NOTHING
    return replace(state, due=None), Action.KILL  # starting or stopping


def _start(state: Replica, now: float) -> tuple[Replica, Action]:
    return replace(state, phase=Phase.STARTING, due=now + START_SECONDS, wanted=True), Action.SPAWN


def _stopped(state: Replica) -> Replica:
    return replace(state, phase=Phase.STOPPED, due=None, wanted=False)


def replica_environments(settings: ServingSettings, replicas: int) -> list[dict[str, str]]:
    """What each replica has in its environment beyond the supervisor's: addresses, its number, one key for all.

    Public ports are `port` and the next ones, operator ports `operator_port` and the next ones. Where nobody chose
    `operator_port` and its default lies among the public ports, the operator's begin after those.

    Raises:
        InvalidInput: there are not so many ports, or the two ranges overlap.
    """
    port, operator_port = settings.port, settings.operator_port
    overlap = port and operator_port and port < operator_port + replicas and operator_port < port + replicas
    if overlap and "operator_port" not in settings.model_fields_set:
        operator_port, overlap = port + replicas, False
    if overlap and settings.host == settings.operator_host:
        raise InvalidInput(
            f"{replicas} replicas from --port {port} and --operator-port {operator_port} on would share ports",
            remedy="Set them further apart.",
        )
    if max(port, operator_port) + replicas - 1 > 65_535:
        raise InvalidInput(
            f"there are no {replicas} ports from {max(port, operator_port)} on",
            remedy="Choose a lower --port or --operator-port, or fewer --replicas.",
        )
    return [
        {
            "MACROFLEET_HOST": settings.host,
            "MACROFLEET_PORT": str(port and port + number),
            "MACROFLEET_OPERATOR_HOST": settings.operator_host,
            "MACROFLEET_OPERATOR_PORT": str(operator_port and operator_port + number),
            "MACROFLEET_ACCESS": settings.access,
            "MACROFLEET_INSECURE": str(settings.insecure).lower(),
            "MACROFLEET_SIGNING_KEY": settings.signing_key.get_secret_value(),
            "MACROFLEET_REPLICA": str(number),
        }
        for number in range(replicas)
    ]


def run_replicas(settings: ServingSettings, replicas: int, *, ready_file: Path | None = None) -> None:
    """Run server processes until SIGTERM or SIGINT, and return when all have ended.

    SIGHUP restarts them one by one, each when the one before it is ready; a terminal's SIGHUP ends them.

    Args:
        settings: as for one server. The processes read the rest from the environment, as this one did.
        replicas: how many.
        ready_file: written once all accept connections, and removed at the end: a line for each replica, its public and
            its operator's URL with a space between them.

    Raises:
        InvalidInput: too many replicas, ports that cannot be, or a ready file that cannot be written where it shall be.
        NotReady: a process refused its settings at its first start; it said on standard error why.
        KeyboardInterrupt: SIGINT came twice; the processes were killed.
    """
    if not 1 <= replicas <= MAX_REPLICAS:
        raise InvalidInput(f"there can be 1 to {MAX_REPLICAS} replicas", remedy="Choose another --replicas.")
    if ready_file is not None:
        check_ready_file(ready_file)
    configure_logs()
    command = [sys.executable, "-m", "macrofleet", "serve"]
    asyncio.run(supervise(command, replica_environments(settings, replicas), ready_file=ready_file))


async def supervise(
    command: Sequence[str], environments: Sequence[Mapping[str, str]], *, ready_file: Path | None = None
) -> None:
    """Keep one process of the command alive for each environment. `run_replicas` says what signals do and what is raised.

    Args:
        command: gets `--ready-file PATH`, and writes two lines there once it listens.
        environments: on top of this process's own.
        ready_file: as for `run_replicas`.
    """
    with tempfile.TemporaryDirectory(prefix="macrofleet-replicas-") as folder:
        supervisor = _Supervisor(command, environments, Path(folder), ready_file)
        try:
            await supervisor.run()
        finally:
            supervisor.kill()
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)


class _Supervisor:
    def __init__(
        self,
        command: Sequence[str],
        environments: Sequence[Mapping[str, str]],
        folder: Path,
        ready_file: Path | None,
    ) -> None:
        self._ready_file = ready_file
        self._stopping = False
        self._forced = asyncio.Event()
        self._refused = False
        self._rolling: asyncio.Task[None] | None = None
        self._keepers = [
            _Keeper(number, command, environment, folder / str(number), self._on_change)
            for number, environment in enumerate(environments)
        ]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        # A terminal sends SIGHUP when it is closed; nobody would be there to end the processes.
        hang_up = self._stop if sys.stdin is not None and sys.stdin.isatty() else self._restart
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._interrupt, signal.SIGHUP: hang_up}
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        everyone = asyncio.gather(*(keeper.run() for keeper in self._keepers))
        forced = asyncio.create_task(self._forced.wait())
        ends: set[asyncio.Future[Any]] = {everyone, forced}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._forced.is_set():
                raise KeyboardInterrupt
            await everyone
        finally:
            everyone.cancel()
            forced.cancel()
            self._stop_rolling()
            await asyncio.gather(*ends, return_exceptions=True)
            for number in handlers:
                loop.remove_signal_handler(number)
        if self._refused:
            raise NotReady("a replica cannot start", remedy="What it wrote before tells why.")

    def kill(self) -> None:
        """Whatever is left, however the supervisor came to its end."""
        for keeper in self._keepers:
            keeper.kill()

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        _LOG.info("stopping the replicas")
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)
        self._stop_rolling()
        for keeper in self._keepers:
            keeper.tell(Event.STOP)

    def _interrupt(self) -> None:
        if self._stopping:
            self._forced.set()
        self._stop()

    def _restart(self) -> None:
        """Begin with the first, also where a former restart has not come to its end: what it should bring is newer."""
        if not self._stopping:
            self._stop_rolling()
            self._rolling = asyncio.create_task(self._roll())

    def _stop_rolling(self) -> None:
        if self._rolling is not None:
            self._rolling.cancel()

    async def _roll(self) -> None:
        for keeper in self._keepers:
            _LOG.info("restarting a replica", extra={"replica": keeper.number})
            await keeper.restart()
        _LOG.info("all replicas were restarted")

    def _on_change(self, action: Action) -> None:
        if action is Action.GIVE_UP:
            self._refused = True
            self._stop()
        elif self._ready_file is not None and not self._stopping and not self._ready_file.exists():
            urls = [keeper.urls for keeper in self._keepers]
            if all(urls):
                write_ready_file(self._ready_file, [" ".join(pair) for pair in urls])


class _Keeper:
    """One replica's process, and the loop that asks `next_action` what to do about it."""

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        ready_file: Path,
        on_change: Callable[[Action], None],
    ) -> None:
        self.number = number
        self.urls: tuple[str, ...] = ()
        self._command = [*command, "--ready-file", str(ready_file)]
        self._environment = {**os.environ, **environment, _SUPERVISED: "1"}
        self._ready_file = ready_file
        self._on_change = on_change
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._started = 0
        self._state = first_state(time.monotonic())

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
        self._started += 1
        _LOG.info("started a replica", extra={"replica": self.number, "pid": self._process.pid})
        self._watching = asyncio.create_task(self._watch(self._process))

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        ended = asyncio.create_task(process.wait())
        try:
            while not ended.done() and not self._ready_file.exists():
                await asyncio.wait({ended}, timeout=_POLL_SECONDS)
            with contextlib.suppress(FileNotFoundError):  # it has ended, or takes the file away since it is about to
                self._learn(self._ready_file.read_text().split())
                self.tell(Event.LISTENING)
            code = await ended
        finally:
            ended.cancel()
        self.tell(Event.REFUSED if code in _REFUSALS else Event.ENDED)

    def _learn(self, urls: list[str]) -> None:
        """Keep the ports that the system chose, so that callers find the next process where this one was."""
        self.urls = tuple(urls)
        for variable, url in zip(("MACROFLEET_PORT", "MACROFLEET_OPERATOR_PORT"), urls, strict=False):
            self._environment[variable] = str(urlsplit(url).port)


async def _is_ready(url: str) -> bool:
    place = urlsplit(url)
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return status.split()[1:2] == [b"200"]


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
