"""Keeps replicas alive, restarts them one by one, and has as many as their load asks for.

Whoever is to end is taken out of the proxy's list first, and Envoy has followed before it is told: requests that are under
way are finished, and no new one comes. Whoever has started is in the list once it listens, and is asked once it is healthy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from registry.errors import NotReady
from serving.proxy.gateway import Gateway
from serving.ready_file import write_ready_file
from serving.replicas.load import ReplicaLoad
from serving.replicas.process import Keeper
from serving.replicas.scaling import ScalePlan, ScaleState, next_count
from serving.replicas.states import Action, Event

# How long Envoy may take to follow; a restart goes on after that, for health checks bring it the same.
_FOLLOW_SECONDS = 10.0
# How long the others may take to have the tenants of one that leaves; what is missing then is fetched when asked for.
_HAND_OVER_SECONDS = 120.0
_PREPARED_POLL_SECONDS = 0.2
_SAMPLE_SECONDS = 1.0
_LOG = logging.getLogger(__name__)


class Supervisor:
    """One process for each of several environments. Owned by one event loop.

    Args:
        command: gets `--ready-file PATH`, and writes two lines there once it listens.
        environments: on top of this process's own, of as many replicas as there may be.
        folder: for the processes' ready files.
        ready_file: written once all listen, and when their number has changed: the proxy's addresses, where there is
            one, and each replica's.
        gateway: the proxy; None where callers find the replicas by themselves.
        scaling: how many there shall be, with a gateway; None is one for each environment.
    """

    def __init__(
        self,
        command: Sequence[str],
        environments: Sequence[Mapping[str, str]],
        folder: Path,
        ready_file: Path | None,
        *,
        gateway: Gateway | None = None,
        scaling: ScalePlan | None = None,
    ) -> None:
        self._command = command
        self._environments = environments
        self._folder = folder
        self._ready_file = ready_file
        self._gateway = gateway
        self._scaling = scaling
        self._load = ReplicaLoad()
        self._stopping = False
        self._forced = asyncio.Event()
        self._refused = False
        self._changing = asyncio.Lock()
        self._keepers: dict[int, Keeper] = {}
        self._lives: dict[int, asyncio.Task[None]] = {}
        self._rolling: asyncio.Task[None] | None = None
        self._helpers: list[asyncio.Task[None]] = []
        self._written: list[str] = []

    async def run(self) -> None:
        """Until all have stopped. `serving.replicas.group.run_replicas` says what signals do and what is raised."""
        loop = asyncio.get_running_loop()
        # A terminal sends SIGHUP when it is closed; nobody would be there to end the processes.
        hang_up = self._stop if sys.stdin is not None and sys.stdin.isatty() else self._restart
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._interrupt, signal.SIGHUP: hang_up}
        if self._scaling is not None:
            handlers |= {signal.SIGTTIN: lambda: self._ask_for(+1), signal.SIGTTOU: lambda: self._ask_for(-1)}
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        ended = asyncio.create_task(self._live())
        forced = asyncio.create_task(self._forced.wait())
        try:
            await asyncio.wait({ended, forced}, return_when=asyncio.FIRST_COMPLETED)
            if self._forced.is_set():
                raise KeyboardInterrupt
            await ended
        finally:
            self._stop_rolling()
            tasks = [ended, forced, *self._helpers, *self._lives.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for number in handlers:
                loop.remove_signal_handler(number)
        if self._refused:
            raise NotReady("a replica cannot start", remedy="What it wrote before tells why.")

    def kill(self) -> None:
        """Whatever is left, however the supervisor came to its end."""
        for keeper in self._keepers.values():
            keeper.kill()
        if self._gateway is not None:
            self._gateway.proxy.kill()

    async def _live(self) -> None:
        if self._gateway is not None:
            await self._gateway.proxy.start()
            self._helpers.append(asyncio.create_task(self._gateway.proxy.run()))
        if not self._stopping:
            self._begin(range(len(self._environments) if self._scaling is None else self._scaling.least))
            if self._scaling is not None and self._scaling.least < self._scaling.most:
                self._helpers.append(asyncio.create_task(self._scale(self._scaling)))
        while self._lives:
            # Those that begin later are waited for in the next turn.
            done, _ = await asyncio.wait(self._lives.values(), timeout=1, return_when=asyncio.FIRST_COMPLETED)
            for number in [number for number, life in self._lives.items() if life in done]:
                await self._lives.pop(number)
        for helper in self._helpers:
            if helper.done():
                await helper

    def _begin(self, numbers: Sequence[int]) -> None:
        """Start these replicas as well."""
        if self._gateway is not None:
            self._gateway.place({*self._keepers, *numbers})
        for number in numbers:
            path = self._folder / str(number)
            keeper = Keeper(
                number,
                self._command,
                self._environments[number],
                path,
                self._on_change,
                others_answer=lambda: any(keeper.in_service for keeper in self._keepers.values()),
            )
            self._keepers[number] = keeper
            self._lives[number] = asyncio.create_task(keeper.run())

    # Ending

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        _LOG.info("stopping the replicas")
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)
        self._stop_rolling()
        if self._gateway is None:
            self._tell_all(Event.STOP)
        else:
            self._helpers.append(asyncio.create_task(self._stop_after(self._gateway)))

    async def _stop_after(self, gateway: Gateway) -> None:
        """The proxy first: nobody asks the replicas after it."""
        try:
            await gateway.proxy.stop()
        finally:
            self._tell_all(Event.STOP)

    def _tell_all(self, event: Event) -> None:
        for keeper in self._keepers.values():
            keeper.tell(event)

    def _interrupt(self) -> None:
        if self._stopping:
            self._forced.set()
        self._stop()

    # Restarting

    def _restart(self) -> None:
        """Begin with the first, also where a former restart has not come to its end: what it should bring is newer."""
        if not self._stopping:
            self._stop_rolling()
            self._rolling = asyncio.create_task(self._roll())

    def _stop_rolling(self) -> None:
        if self._rolling is not None:
            self._rolling.cancel()

    async def _roll(self) -> None:
        async with self._changing:
            for keeper in list(self._keepers.values()):
                _LOG.info("restarting a replica", extra={"replica": keeper.number})
                try:
                    await self._hand_over(keeper)
                    await self._take_out(keeper)
                    await keeper.restart()
                finally:
                    self._bring_in(keeper)
                    self._place_all()
                await self._followed()
        _LOG.info("all replicas were restarted")

    async def _hand_over(self, keeper: Keeper) -> None:
        """Have the others preload a replica's tenants before they are asked for them, each of which would wait for its model."""
        if self._gateway is None:
            return
        self._gateway.place(self._keepers.keys() - {keeper.number})
        others = [other for other in self._keepers.values() if other is not keeper and other.in_service]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HAND_OVER_SECONDS):
                for other in others:
                    while other.in_service and not await other.is_prepared_for(len(self._keepers) - 1):
                        await asyncio.sleep(_PREPARED_POLL_SECONDS)

    def _place_all(self) -> None:
        if self._gateway is not None:
            self._gateway.place(self._keepers)

    async def _take_out(self, keeper: Keeper) -> None:
        """Have the proxy send a replica nothing more."""
        keeper.held = True
        self._show()
        await self._followed()

    def _bring_in(self, keeper: Keeper) -> None:
        keeper.held = False
        self._show()

    def _show(self) -> None:
        if self._gateway is not None and not self._stopping:
            self._gateway.show({keeper.number: keeper.urls for keeper in self._keepers.values() if keeper.in_service})

    async def _followed(self) -> None:
        if self._gateway is None:
            return
        urls = [keeper.urls for keeper in self._keepers.values() if keeper.in_service]
        if not await self._gateway.follows(urls, seconds=_FOLLOW_SECONDS):
            _LOG.warning("Envoy does not ask the replicas that it should", extra={"replicas": len(urls)})

    # How many

    def _ask_for(self, more: int) -> None:
        """One more or one fewer, by hand; the load decides again afterwards."""
        if not self._stopping:
            _LOG.info("told to have one replica %s", "more" if more > 0 else "fewer")
            self._helpers.append(asyncio.create_task(self._change_by(more)))

    async def _change_by(self, more: int) -> None:
        assert self._scaling is not None
        async with self._changing:
            await self._change_to(min(max(len(self._keepers) + more, self._scaling.least), self._scaling.most))

    async def _scale(self, plan: ScalePlan) -> None:
        state = ScaleState()
        while not self._stopping:
            await asyncio.sleep(_SAMPLE_SECONDS)
            try:
                state = await self._follow_load(plan, state)
            except Exception:  # noqa: BLE001  # the loop must outlive it
                _LOG.exception("following the load failed")

    async def _follow_load(self, plan: ScalePlan, state: ScaleState) -> ScaleState:
        load = await self._measured()
        if load is None:
            return ScaleState()
        count, now = len(self._keepers), asyncio.get_running_loop().time()
        state, wanted = next_count(plan, state, count=count, load=load, now=now)
        if wanted != count:
            extra = {"replicas": count, "wanted": wanted, "load": round(load, 2)}
            _LOG.info("changing the number of replicas", extra=extra)
            async with self._changing:
                await self._change_to(wanted)
        return state

    async def _measured(self) -> float | None:
        """The load in replicas; None while one of them is not asked, or is being restarted."""
        assert self._gateway is not None
        if self._changing.locked() or not all(keeper.in_service for keeper in self._keepers.values()):
            return None
        urls = [keeper.urls for keeper in self._keepers.values()]
        if not await self._gateway.follows(urls, seconds=0.1):
            return None
        requests = await self._gateway.proxy.under_way("public")
        pids = [keeper.pid for keeper in self._keepers.values() if keeper.pid is not None]
        return self._load.sample(pids, requests=requests or 0)

    async def _change_to(self, wanted: int) -> None:
        self._begin(range(len(self._keepers), wanted))
        while len(self._keepers) > wanted and not self._stopping:
            number = max(self._keepers)
            keeper = self._keepers[number]
            await self._hand_over(keeper)
            await self._take_out(keeper)
            keeper.tell(Event.STOP)
            with contextlib.suppress(KeyError):
                await asyncio.wait({self._lives[number]})
            self._keepers.pop(number)
        self._write_ready_file()

    def _on_change(self, action: Action) -> None:
        if action is Action.GIVE_UP:
            self._refused = True
            self._stop()
            return
        self._show()
        self._write_ready_file()

    def _write_ready_file(self) -> None:
        addresses = [keeper.urls for keeper in self._keepers.values()]
        if self._ready_file is None or self._stopping or not all(addresses):
            return
        first = [] if self._gateway is None else [self._gateway.urls]
        lines = [" ".join(pair) for pair in (*first, *addresses)]
        if lines != self._written:
            write_ready_file(self._ready_file, lines)
            self._written = lines
