"""Several server processes on one machine, behind Envoy or each on ports of its own, and somebody who keeps them alive.

Each replica is a process of its own (`macrofleet serve`, with its ports in the environment): `serving.replicas.process` has
it, `serving.replicas.states` says what becomes of it, `serving.replicas.supervisor` has all of them, and
`serving.proxy.gateway` the proxy.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.errors import InvalidInput
from serving.logs import configure_logs
from serving.proxy.gateway import Gateway
from serving.ready_file import check_ready_file
from serving.replicas.addresses import proxied_environments, replica_environments
from serving.replicas.scaling import ScalePlan
from serving.replicas.supervisor import Supervisor
from serving.settings import ServingSettings

MAX_REPLICAS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many, and how.

    Attributes:
        least: at the start, and when there is little to do; more than `least` need a proxy.
        most: however much there is to do.
        proxy: Envoy stands before them, and has the addresses.
        separate_disks: each has a disk tier of its own, below the one of the settings.
        access_log: where the proxy writes a line for each request; None is nowhere.
    """

    least: int
    most: int
    proxy: bool = True
    separate_disks: bool = False
    access_log: str | None = None


def run_replicas(settings: ServingSettings, replicas: Replicas, *, ready_file: Path | None = None) -> None:
    """Run server processes until SIGTERM or SIGINT, and return when all have ended.

    SIGHUP restarts them one by one, each when the one before it is ready; a terminal's SIGHUP ends them. Between `least`
    and `most`, SIGTTIN asks for one more and SIGTTOU for one fewer.

    Args:
        settings: as for one server. The processes read the rest from the environment, as this one did.
        replicas: how many.
        ready_file: written once all accept connections, again when their number has changed, and removed at the end: the
            proxy's public and operator's URL with a space between them, and the same of each replica, a line for each.

    Raises:
        InvalidInput: too many replicas, ports that cannot be, no Envoy, or a ready file that cannot be written where it
            shall be.
        NotReady: a process refused its settings at its first start, or Envoy did; it said on standard error why.
        KeyboardInterrupt: SIGINT came twice; the processes were killed.
    """
    if not 1 <= replicas.least <= replicas.most <= MAX_REPLICAS:
        raise InvalidInput(f"there can be 1 to {MAX_REPLICAS} replicas", remedy="Choose another --replicas.")
    if not replicas.proxy and replicas.least != replicas.most:
        raise InvalidInput(
            "replicas whose number changes need a proxy that knows of them",
            remedy="Leave --no-proxy out, or give --replicas one number.",
        )
    if ready_file is not None:
        check_ready_file(ready_file)
    configure_logs()
    command = [sys.executable, "-m", "macrofleet", "serve"]
    if not replicas.proxy:
        environments = replica_environments(settings, replicas.most, separate_disks=replicas.separate_disks)
        asyncio.run(supervise(command, environments, ready_file=ready_file))
        return
    with tempfile.TemporaryDirectory(prefix="macrofleet-envoy-") as folder:
        gateway = Gateway(settings, Path(folder), access_log=replicas.access_log)
        environments = proxied_environments(
            settings, replicas.most, ring_file=gateway.ring_file, separate_disks=replicas.separate_disks
        )
        plan = ScalePlan(least=replicas.least, most=replicas.most)
        asyncio.run(supervise(command, environments, ready_file=ready_file, gateway=gateway, scaling=plan))


async def supervise(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    *,
    ready_file: Path | None = None,
    gateway: Gateway | None = None,
    scaling: ScalePlan | None = None,
) -> None:
    """Keep processes of the command alive. `run_replicas` says what signals do and what is raised.

    Args:
        command, environments, ready_file, gateway, scaling: see `Supervisor`.
    """
    with tempfile.TemporaryDirectory(prefix="macrofleet-replicas-") as folder:
        supervisor = Supervisor(command, environments, Path(folder), ready_file, gateway=gateway, scaling=scaling)
        try:
            await supervisor.run()
        finally:
            supervisor.kill()
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)
