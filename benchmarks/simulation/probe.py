"""What one replica does that nobody else asks, measured while others are under load on the same machine.

Each request is sent a while after the last: one that follows at once finds the processor's caches full of what it needs, and
takes a third of the time.

Beside the run and not before it, since a machine's speed is another a minute later, and processes that share its cores and
its disk slow each other down: the probe has that in its figures, and what is left for the simulation to say is what
requests of one replica do to each other.
"""

from __future__ import annotations

import contextlib
import os
import threading
import urllib.request
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.client import Client
from benchmarks.cost.measured import Measured
from benchmarks.processes import processor_seconds
from flows.local_server import LocalServer

# Of a turn: a first answer from the store, two later ones, a first one from disk.
_STEPS = 4


def unload(server: LocalServer, tenant: str) -> None:
    """Have a server forget a model, but for its disk."""
    request = urllib.request.Request(f"{server.operator_url}/admin/models/{tenant}/unload", method="POST")
    with urllib.request.urlopen(request, timeout=30):
        pass


@contextlib.contextmanager
def ahead_of_others() -> Iterator[None]:
    """What this thread does, and starts, comes first on any core: it stands for callers on other machines.

    Where that is not allowed (it is root's), nothing happens, and the report's `void` says whether it mattered.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


class Probe:
    """First and later answers of one server, one request at a time, spread over a while.

    Args:
        server: asked by nobody else.
        tenants: never asked before; one a turn.
        bodies: of requests.
        seconds: over which the turns are spread.
    """

    def __init__(self, server: LocalServer, tenants: Sequence[str], bodies: Sequence[bytes], *, seconds: float) -> None:
        self._server = server
        self._tenants = tenants
        self._bodies = bodies
        self._pause = seconds / len(tenants) / _STEPS
        self._warm: list[float] = []
        self._from_store: list[float] = []
        self._from_disk: list[float] = []
        self._warm_core = self._store_core = self._disk_core = 0.0  # seconds, of the process
        self._ended = threading.Event()
        self._error: Exception | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Probe while the context lasts. Raises what went wrong, at its end."""
        thread = threading.Thread(target=self._run, name="probe")
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
        if self._error is not None:
            raise self._error

    def measured(self, *, model_bytes: int, rps: float) -> Measured:
        """What came of it.

        Args:
            rps: requests a second that fill the core, measured apart.
        """
        warm_core = self._warm_core / len(self._warm)
        return Measured(
            model_bytes=model_bytes,
            tenant_bytes=0.0,
            process_bytes=0.0,
            rps=rps,
            warm_seconds=float(np.median(self._warm)),
            disk_seconds=float(np.median(self._from_disk)),
            store_seconds=float(np.median(self._from_store)),
            disk_p99_seconds=float(np.percentile(self._from_disk, 99)),
            store_p99_seconds=float(np.percentile(self._from_store, 99)),
            sources=(),
            disk_core_seconds=max(0.0, self._disk_core / len(self._from_disk) - warm_core),
            store_core_seconds=max(0.0, self._store_core / len(self._from_store) - warm_core),
        )

    def _run(self) -> None:
        try:
            with ahead_of_others(), Client(self._server.url) as client:
                for tenant in self._tenants:
                    if not self._turn(client, tenant):
                        break
        except Exception as error:  # noqa: BLE001  # it is raised where the probe ends
            self._error = error

    def _turn(self, client: Client, tenant: str) -> bool:
        """One tenant; whether there was time for all of it."""
        asked = [
            self._asked(client, tenant, into) for into in (self._from_store, self._warm, self._warm) if not self._over()
        ]
        unload(self._server, tenant)
        if len(asked) < _STEPS - 1 or self._over():
            return False
        self._store_core += asked[0]
        self._warm_core += asked[1] + asked[2]
        self._disk_core += self._asked(client, tenant, self._from_disk)
        unload(self._server, tenant)
        return True

    def _over(self) -> bool:
        return self._ended.wait(self._pause)

    def _asked(self, client: Client, tenant: str, into: list[float]) -> float:
        """Ask once; what the server used of the processor."""
        before = processor_seconds(self._server.pid)
        into.append(client.suggest(tenant, self._bodies[len(into) % len(self._bodies)]))
        return processor_seconds(self._server.pid) - before
