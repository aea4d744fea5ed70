"""Several server processes on one machine, and somebody who keeps them alive.

Each replica is a process of its own (`macrofleet serve`, with its ports in the environment): `serving.replica_process` has
it, and `serving.replica_states` says what becomes of it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from registry.errors import InvalidInput, NotReady
from serving.logs import configure_logs
from serving.ready_file import check_ready_file, write_ready_file
from serving.replica_process import Keeper
from serving.replica_states import Action, Event
from serving.settings import ServingSettings

MAX_REPLICAS = 256
_LOG = logging.getLogger(__name__)


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
            Keeper(number, command, environment, folder / str(number), self._on_change)
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
