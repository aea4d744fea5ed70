"""`macrofleet bench warm|cold`: a real server process, real HTTP, bundles at real size, one request at a time."""

from __future__ import annotations

import contextlib
import http.client
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

from benchmarks.fleets import publish_tenants
from benchmarks.machine import describe_machine
from flows.local_server import LocalServer, store_environment
from registry.documents import canonical_json
from registry.program import publish_program, read_spec
from registry.seaweedfs import LocalS3
from registry.settings import StoreSettings
from registry.store import open_store
from training.programs.release import built_folder
from training.synthetic import make_tenant

Step = Callable[[str, float], None]
_ZIPF = 1.1


class Client:
    """One kept-alive connection; as little of its own cost in a figure as Python allows."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def suggest(self, tenant: str, body: bytes) -> float:
        """Ask once; the seconds until the answer was read. Raises RuntimeError for anything but 200."""
        began = time.perf_counter()
        self._connection.request(
            "POST", f"/v1/tenants/{tenant}/suggestions", body, {"content-type": "application/json"}
        )
        response = self._connection.getresponse()
        answer = response.read()
        seconds = time.perf_counter() - began
        if response.status != http.client.OK:
            raise RuntimeError(f"{response.status} for {tenant}: {answer[:200]!r}")
        return seconds


def ticket_bodies(count: int, *, seed: int) -> list[bytes]:
    """Request bodies of made-up tickets, 40 words in the median."""
    tickets = make_tenant("bench", seed=seed, tickets=count).tickets
    return [
        canonical_json(
            {
                "ticket": {
                    "id": ticket.ticket_id,
                    "subject": ticket.subject,
                    "comments": [{"author": "customer", "public": True, "body": ticket.body}],
                }
            }
        )
        for ticket in tickets
    ]


@contextlib.contextmanager
def served_fleet(tenants: Sequence[str], *, s3: bool, preload: str, step: Step) -> Iterator[LocalServer]:
    """A ready server over a fleet of models at real size, in a temporary folder that is gone afterwards.

    Args:
        s3: behind a real S3 server instead of a folder.
        preload: the server's setting: "all" puts every model on local disk first, "none" none.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="macrofleet-bench-")))
        if s3:
            step("starting the S3 server", 0.0)
            settings = stack.enter_context(LocalS3(folder / "s3")).settings
        else:
            settings = StoreSettings(url=str(folder / "store"))
        store = open_store(settings)
        step("making the fleet", 0.05)
        with built_folder("bag") as program:
            digest = publish_program(store, program)
            spec = read_spec(program)
        publish_tenants(store, tenants, program=digest, spec=spec, macros=100)
        step("starting the server", 0.4)
        environment = {
            **store_environment(settings),
            "MACROFLEET_DISK_FOLDER": str(folder / "disk"),
            "MACROFLEET_PRELOAD": preload,
        }
        yield stack.enter_context(LocalServer(folder, environment))


def measure_warm(*, tenants: int, requests: int, step: Step) -> dict[str, Any]:
    """Answers from models in memory: Zipf over tenants, one client.

    Returns:
        `p50_ms`, `p90_ms`, `p99_ms`, `rps` (of one client), what was asked and the machine.
    """
    names = [f"tenant-{number:04d}" for number in range(tenants)]
    bodies = ticket_bodies(200, seed=1)
    with served_fleet(names, s3=False, preload="all", step=step) as server, Client(server.url) as client:
        step("measuring", 0.6)
        for place, name in enumerate(names):
            client.suggest(name, bodies[place % len(bodies)])
        rng = np.random.default_rng(1)
        ranks = np.minimum(rng.zipf(_ZIPF, requests) - 1, tenants - 1)
        began = time.perf_counter()
        seconds = [client.suggest(names[rank], bodies[place % len(bodies)]) for place, rank in enumerate(ranks)]
        elapsed = time.perf_counter() - began
    return {
        "tenants": tenants,
        "requests": requests,
        **percentiles(seconds),
        "rps": round(requests / elapsed, 1),
        "machine": describe_machine(),
    }


def measure_cold(*, tenants: int, step: Step) -> dict[str, Any]:
    """The first answer of tenants never loaded, and the second beside it.

    Returns:
        `disk` (bundles on local disk) and `s3` (bundles on a real S3 server on loopback): percentiles of first answers
        in ms; `warm_median_ms`; `disk_median_ratio_to_warm`; `s3_p99_ms`; the machine.
    """
    names = [f"tenant-{number:04d}" for number in range(tenants)]
    bodies = ticket_bodies(200, seed=2)
    first: dict[str, list[float]] = {}
    warm: list[float] = []
    for part, kind in enumerate(("disk", "s3")):

        def told(text: str, share: float, part: int = part) -> None:
            step(text, (part + share) / 2)

        preload = "all" if kind == "disk" else "none"
        with served_fleet(names, s3=kind == "s3", preload=preload, step=told) as server, Client(server.url) as client:
            told("measuring", 0.7)
            first[kind] = [client.suggest(name, bodies[place % 200]) for place, name in enumerate(names)]
            if kind == "disk":
                warm = [client.suggest(name, bodies[place % 200]) for place, name in enumerate(names)]
    warm_median = float(np.median(warm)) * 1000
    disk, s3 = percentiles(first["disk"]), percentiles(first["s3"])
    return {
        "tenants": tenants,
        "disk": disk,
        "s3": s3,
        "warm_median_ms": round(warm_median, 3),
        "disk_median_ratio_to_warm": round(disk["p50_ms"] / warm_median, 2),
        "s3_p99_ms": s3["p99_ms"],
        "machine": describe_machine(),
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 90th and 99th percentile in milliseconds."""
    found = np.percentile(np.asarray(seconds) * 1000, [50, 90, 99])
    return {name: round(float(value), 3) for name, value in zip(("p50_ms", "p90_ms", "p99_ms"), found, strict=True)}
