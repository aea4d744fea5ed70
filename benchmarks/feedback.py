"""`macrofleet bench feedback`: how much a server accepts, and what is left of it when servers are killed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.feedback_kills import kill_servers
from benchmarks.load import Plan, http_request, percentiles, run_load
from benchmarks.machine import describe_machine
from benchmarks.stage import Cores, choose_cores
from benchmarks.verdicts import Bound, judge
from flows.local_server import LocalServer, store_environment
from registry.console_output import Step
from registry.feedback.records import read_feedback
from registry.fleet.state import FleetEntry, update_fleet
from registry.seaweedfs import LocalS3
from registry.settings import StoreSettings
from registry.store import open_store

BOUNDS = {
    "accepted_rps": Bound(at_least=1000),
    "refused": Bound(at_most=0),
    "lost": Bound(at_most=0),
    "doubled": Bound(at_most=0),
}
_EVENTS = 5000


def measure_feedback(
    *, tenants: int, seconds: float, connections: int, kills: int, s3: bool, step: Step
) -> dict[str, Any]:
    """Feedback in a closed loop for a while, and then servers that are killed under load.

    Args:
        tenants: that the load is about.
        seconds: length of the load.
        connections: that it comes by.
        kills: servers to kill.
        s3: ship to an S3 server instead of a folder.

    Returns:
        `accepted_rps`: answers of 202 a second, each after a sync; `refused`: other answers; `lost` and `doubled`: of
        what servers answered for before they were killed, what readers do not find, and what they find twice.
    """
    cores = choose_cores()
    with tempfile.TemporaryDirectory(prefix="macrofleet-bench-") as name, _store(Path(name), s3, step) as settings:
        folder = Path(name)
        step(f"feedback from {connections} connections", 0.1)
        rate, described, refused, unread = _measure_rate(
            folder, settings, cores, tenants=tenants, seconds=seconds, connections=connections
        )
        beside = settings.model_copy(update={"url": f"{settings.url}/killed"})
        (folder / "killed").mkdir()
        survived = kill_servers(
            folder / "killed",
            beside,
            kills=kills,
            connections=min(connections, 32),
            step=lambda done: step(f"server {done + 1} of {kills + 1}", 0.3 + 0.7 * done / (kills + 1)),
        )
    figures = {
        "accepted_rps": round(rate, 1),
        "refused": refused,
        "lost": survived.lost + unread,
        "doubled": survived.doubled,
    }
    return {
        "bench": "feedback",
        **figures,
        **judge(figures, BOUNDS, void=cores.void),
        "load": described,
        "kills": asdict(survived),
        "settings": {"tenants": tenants, "seconds": seconds, "connections": connections, "kills": kills, "s3": s3},
        "machine": describe_machine(),
    }


@contextmanager
def _store(folder: Path, s3: bool, step: Step) -> Iterator[StoreSettings]:
    if not s3:
        yield StoreSettings(url=str(folder / "store"))
        return
    step("starting the S3 server", 0.0)
    with LocalS3(folder / "s3") as server:
        yield server.settings


def _measure_rate(
    folder: Path, settings: StoreSettings, cores: Cores, *, tenants: int, seconds: float, connections: int
) -> tuple[float, Mapping[str, Any], int, int]:
    """Answers of 202 a second; the load in figures; other answers; events that were accepted and are not in the store."""
    store = open_store(settings)
    names = [f"tenant-{number:05d}" for number in range(tenants)]
    update_fleet(store, {tenant: lambda _: FleetEntry(reason="too few examples") for tenant in names})
    environment = {
        **store_environment(settings),
        "MACROFLEET_DISK_FOLDER": str(folder / "disk"),
        "MACROFLEET_ACCESS": "open",
    }
    with LocalServer(folder, environment, cores=cores.server_cores) as server:
        requests = [
            http_request(server.url, f"/v1/tenants/{names[number % tenants]}/feedback", _body(number))
            for number in range(_EVENTS)
        ]
        plan = Plan(
            url=server.url,
            requests=requests,
            picks=np.random.default_rng(1).integers(0, _EVENTS, 20_000),
            core=cores.load,
            connections=connections,
            seconds=seconds,
        )
        samples = run_load(plan)
    # The server has ended in order, so that all is in the store.
    found = {record.ticket_id for tenant in names for record in read_feedback(store, tenant)}
    done = samples.status == 202
    sent = {str(pick) for pick in np.unique(samples.picks[done])}
    described = {"answers": len(done), **percentiles(samples.latency[done])}
    return float(done.sum() / samples.seconds), described, int((~done).sum()), len(sent - found)


def _body(number: int) -> bytes:
    told = {"suggestion_id": f"s{number}", "applied": "m1", "shown": ["m1", "m2", "m3"], "ticket_id": str(number)}
    return json.dumps(told).encode()
