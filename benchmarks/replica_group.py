"""Envoy and its replicas, as a bench has them: started, killed, added, drained, restarted, and counted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.client import Operator, total
from benchmarks.proxy_log import Request, read_log
from flows.local_server import LocalServer
from serving.proxy.ring import ANCHOR, replica_ring
from serving.replicas.addresses import ring_key

SAMPLE_SECONDS = 0.5
_WAIT_SECONDS = 180.0
_POLL_SECONDS = 0.05


@dataclass(slots=True)
class Hits:
    """What all replicas together found in memory, and what not, since the sample before; times are of `time.time`."""

    samples: list[tuple[float, float, float]] = field(default_factory=list)


class Group:
    """Envoy and its replicas."""

    def __init__(self, server: LocalServer, log: Path, replicas: int) -> None:
        self.url = server.url
        self.happened = self.settled = 0.0
        self._server = server
        self._log = log
        self._least = replicas
        self._ports: dict[int, int] = {}
        self.wait_for(replicas)

    def owners(self, names: Sequence[str], numbers: Sequence[int] | range) -> dict[str, str]:
        """Each tenant's server by the ring of these replicas, as the log names it."""
        ring = replica_ring([ring_key(number) for number in numbers])
        servers = {ring_key(number): f"127.0.0.1:{self._ports[number]}" for number in numbers} | {ANCHOR: ""}
        return {name: servers[owner] for name, owner in zip(names, ring.owners(names), strict=True)}

    def server_of(self, number: int) -> str:
        """A replica, as the log names it."""
        return f"127.0.0.1:{self._ports[number]}"

    def pid_of(self, number: int) -> int:
        """A replica's process."""
        return self._started(number)[-1]

    def operator_of(self, number: int) -> str:
        """A replica's operator address."""
        return self._server.addresses[1 + number][1]

    def requests(self, since: float, until: float) -> list[Request]:
        """What the proxy's log has of a time; it is written once a second."""
        time.sleep(1.5)
        return [request for request in read_log(self._log) if since <= request.began < until]

    def wait_for(self, replicas: int) -> None:
        """Until so many are ready, and their addresses known."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            addresses = self._server.addresses[1:]
            if len(addresses) == replicas and all(_is_ready(operator) for _, operator in addresses):
                self._ports |= {number: int(public.rpartition(":")[2]) for number, (public, _) in enumerate(addresses)}
                return
            time.sleep(_POLL_SECONDS)
        raise RuntimeError(f"there are no {replicas} replicas that are ready; the log is {self._server.log}")

    def kill(self, number: int) -> None:
        """SIGKILL, and wait until another process has taken its place."""
        started = self._started(number)
        self.happened = time.time()
        os.kill(started[-1], signal.SIGKILL)
        self._until(lambda: len(self._started(number)) > len(started))
        self.wait_for(self._least)
        self.settled = time.time()

    def add(self) -> None:
        """One more than there were; it has come when it is ready, for it is asked from then on."""
        os.kill(self._server.pid, signal.SIGTTIN)
        self.wait_for(self._least + 1)
        self.happened = self.settled = time.time()

    def drain(self) -> None:
        """That one leaves again."""
        self.happened = time.time()
        os.kill(self._server.pid, signal.SIGTTOU)
        self._until(lambda: len(self._server.addresses[1:]) == self._least)
        self.settled = time.time()

    def deploy(self) -> None:
        """Restart all, one by one."""
        self.happened = time.time()
        os.kill(self._server.pid, signal.SIGHUP)
        self._until(lambda: bool(self._lines("all replicas were restarted")))
        self.settled = time.time()

    @contextlib.contextmanager
    def watched(self) -> Iterator[Hits]:
        """Count hits and misses of all replicas in a thread, twice a second."""
        found, stop = Hits(), threading.Event()

        def watch() -> None:
            known: dict[str, tuple[float, float]] = {}
            while not stop.wait(SAMPLE_SECONDS):
                hits = misses = 0.0
                for _, operator in self._server.addresses[1:]:
                    now = _counted(operator)
                    if now is None:
                        known.pop(operator, None)
                        continue
                    # A process that is new has counted from nothing.
                    before = known.get(operator, (0.0, 0.0) if known else now)
                    before = before if before[0] <= now[0] else (0.0, 0.0)
                    known[operator] = now
                    hits, misses = hits + now[0] - before[0], misses + now[1] - before[1]
                found.samples.append((time.time(), hits, misses))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            stop.set()
            thread.join()

    def _started(self, number: int) -> list[int]:
        return [int(line["pid"]) for line in self._lines("started a replica") if line["replica"] == number]

    def _lines(self, message: str) -> list[dict[str, Any]]:
        lines = self._server.log.read_text().splitlines()
        return [json.loads(line) for line in lines if f'"message": "{message}"' in line]

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the replicas did not do what they were told; the log is {self._server.log}")
            time.sleep(_POLL_SECONDS)


def _counted(operator: str) -> tuple[float, float] | None:
    """Requests whose model was in memory, and whose was not; None while nobody answers."""
    try:
        metrics = Operator(operator).metrics()
    except OSError:
        return None
    hits = total(metrics, "macrofleet_cache_hits_total", tier="memory")
    return hits, total(metrics, "macrofleet_cache_hits_total") - hits


def _is_ready(operator: str) -> bool:
    try:
        return total(Operator(operator).metrics(), "macrofleet_ready") == 1
    except OSError:
        return False
