"""`macrofleet bench simulate-check`: the simulation held to real servers that are asked the same trace.

Three servers, each with a disk tier of its own, over one store, on this machine. A trace goes to all, by the ring in the
generator or through a real Envoy, and the same trace is simulated with what a fourth server, which is asked one thing at a time,
does meanwhile (`benchmarks.simulation.probe`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.client import Client, Operator, total
from benchmarks.fleets import serve, tenant_names, write_catalogues
from benchmarks.load import Plan, Samples, describe, percentiles, run_load
from benchmarks.machine import describe_machine
from benchmarks.refusals import refusals
from benchmarks.replay import Target, picks_of, watched
from benchmarks.simulation.engine import Outcome, simulate
from benchmarks.simulation.parameters import Sizes, described, replica_of
from benchmarks.simulation.probe import Probe, ahead_of_others, unload
from benchmarks.simulation.report import replica_keys, trace_scenario
from benchmarks.stage import Stage, load_bodies, staged
from benchmarks.trace import Trace, TraceSpec, make_trace
from benchmarks.verdicts import Bound, judge
from flows.local_server import LocalServer, store_environment
from registry.console_output import Step
from registry.fleet.state import update_fleet
from serving.proxy.ring import replica_ring

BOUNDS = {
    "hit_rate_difference": Bound(at_least=-0.03, at_most=0.03),
    "cold_loads_ratio": Bound(at_least=0.9, at_most=1.1),
    "p50_ratio": Bound(at_least=0.5, at_most=2),
    "p99_ratio": Bound(at_least=0.5, at_most=2),
}
_PROBED = 60
_WARM_UP = 50
_FACTOR = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSizes:
    """How large the check is.

    Attributes:
        replicas: real servers.
        tenants: that share the traffic.
        memory_models: that each server's memory tier holds.
        rate, seconds: of the traffic.
        through_envoy: whether a real Envoy spreads the requests; else the generator does, by the ring alone.
    """

    replicas: int = 3
    tenants: int = 90
    memory_models: int = 15
    rate: float = 40.0
    seconds: float = 30.0
    through_envoy: bool = False


def measure_check(sizes: CheckSizes, *, seed: int, step: Step) -> dict[str, Any]:
    """Run, simulate, compare.

    Returns:
        The real figure to the simulated one, for p50, p99 and cold loads; the difference of the hit rates; both sides whole.
    """
    trace = make_trace(TraceSpec(rate=sizes.rate, seconds=sizes.seconds, tenants=sizes.tenants, seed=seed))
    probed = tenant_names(_PROBED, "probed")
    models = sizes.tenants + _PROBED
    with staged(step, models_at_rest=2 * models) as stage, contextlib.ExitStack() as stack:
        step(f"making {models} models", 0.05)
        fleet = stage.models(models)
        made = fleet.make((name, "m") for name in [*trace.tenants, *probed])
        fleet.publish(stage.put, made)
        write_catalogues(stage.put, {model.tenant: fleet.catalogue(["m"]) for model in made})
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in made})
        os.sync()
        memory = (sizes.memory_models + 0.5) * fleet.model_bytes
        step(f"starting {sizes.replicas + 1} servers", 0.2)
        *servers, alone = [_server(stage, number, memory, stack) for number in range(sizes.replicas + 1)]
        step("warming them up", 0.3)
        rps = _warm_up([*servers, alone], probed[0])
        keys = replica_keys(sizes.replicas)
        front = stack.enter_context(_envoy(stage.folder, servers, keys)) if sizes.through_envoy else None
        before = [_counts(server) for server in servers]
        step("replaying", 0.4)
        probe = Probe(alone, probed[1:], load_bodies(), seconds=sizes.seconds)
        with probe.running():
            samples = _replay(trace, servers, keys, front, seed=seed, step=step)
        measured = probe.measured(model_bytes=fleet.model_bytes, rps=rps)
        counts = [
            {name: value - old[name] for name, value in _counts(server).items()}
            for server, old in zip(servers, before, strict=True)
        ]
    step("simulating", 0.9)
    replica = replica_of(measured, Sizes(memory=memory))
    rule = "envoy" if sizes.through_envoy else "ring"
    outcome = simulate(trace_scenario(trace, replica, keys, rule=rule, factor=_FACTOR, preload=False))
    return compared(trace, samples, counts, outcome, sizes) | {
        "replica": described(replica),
        "settings": {
            "replicas": sizes.replicas,
            "tenants": sizes.tenants,
            "memory_models": sizes.memory_models,
            "rate": sizes.rate,
            "seconds": sizes.seconds,
            "through": "envoy" if sizes.through_envoy else "the ring in the generator",
            "trace": trace.digest,
            "store": "local folder",
        },
        "machine": describe_machine(),
    }


def _server(stage: Stage, number: int, memory: float, stack: contextlib.ExitStack) -> LocalServer:
    folder = stage.folder / f"replica-{number}"
    folder.mkdir()
    settings = {
        "disk_folder": folder / "disk",
        "memory_bytes": int(memory),
        "preload": "none",
        "access": "open",
        "holdback_share": 0,
        "answer_bytes": 0,
    }
    environment = {f"MACROFLEET_{name.upper()}": str(value) for name, value in settings.items()}
    return stack.enter_context(LocalServer(folder, {**store_environment(stage.store_settings), **environment}))


def _warm_up(servers: Sequence[LocalServer], tenant: str) -> float:
    """Have all servers answer something, and the requests a second that fill the core of the last one."""
    bodies = load_bodies()
    for server in servers:
        with Client(server.url) as client:
            for place in range(_WARM_UP):
                client.suggest(tenant, bodies[place])
    requests = Target(url=servers[-1].url, bodies=bodies).requests([tenant])
    full = run_load(
        Plan(url=servers[-1].url, requests=requests, picks=np.arange(len(requests)), connections=16, seconds=2.0)
    )
    for server in servers:
        unload(server, tenant)
    return float((full.status == 200).sum() / full.seconds)


def _counts(server: LocalServer) -> dict[str, float]:
    metrics = Operator(server.operator_url).metrics()
    tiers = {tier: total(metrics, "macrofleet_cache_hits_total", tier=tier) for tier in ("memory", "disk", "store")}
    return {**tiers, "loads": total(metrics, "macrofleet_cold_loads_total")}


def _replay(
    trace: Trace, servers: Sequence[LocalServer], keys: Sequence[str], front: str | None, *, seed: int, step: Step
) -> Samples:
    requests = Target(url=front or servers[0].url, bodies=load_bodies()).requests(trace.tenants)
    places = {key: place for place, key in enumerate(keys)}
    # What is the anchor's goes to the first, as good as any.
    owners = np.array([places.get(key, 0) for key in replica_ring(keys).owners(trace.tenants)])
    plan = Plan(
        url=front or servers[0].url,
        more_urls=() if front else [server.url for server in servers[1:]],
        targets=None if front else owners[trace.places],
        requests=requests,
        picks=picks_of(trace, seed=seed),
        at=trace.at,
        connections=len(servers),
        keep_refusals=True,
    )
    with ahead_of_others():
        samples, interrupted = watched(plan, step)
    if interrupted:
        raise KeyboardInterrupt
    return samples


def compared(
    trace: Trace, samples: Samples, counts: Sequence[Mapping[str, float]], outcome: Outcome, sizes: CheckSizes
) -> dict[str, Any]:
    """The report: real servers beside the simulation.

    Args:
        counts: of each server, requests by the tier their model was in (`memory`, `disk`, `store`), and `loads`.
    """
    good = samples.status == 200
    real, simulated = percentiles(samples.latency[good]), percentiles(outcome.latency)
    hits = sum(each["memory"] for each in counts) / max(
        1.0, sum(each[tier] for each in counts for tier in ("memory", "disk", "store"))
    )
    loads = sum(each["loads"] for each in counts)
    predicted = float((outcome.kind == "h").mean())
    by_replica = np.bincount(outcome.replica, minlength=sizes.replicas).tolist()
    figures = {
        "hit_rate_difference": round(hits - predicted, 4),
        "cold_loads_ratio": round(loads / max(1, len(outcome.loads)), 3),
        "p50_ratio": round(real["p50_ms"] / simulated["p50_ms"], 3),
        "p99_ratio": round(real["p99_ms"] / simulated["p99_ms"], 3),
    }
    found = describe(samples)
    void = []
    if found["void"]:
        void.append(f"the generator was late: {found['lag_p99_ms']} ms in the 99th percentile")
    if not good.all():
        void.append(f"not every request was answered: {refusals(samples)[:3]}")
    return {
        "bench": "simulate-check",
        **figures,
        **judge(figures, BOUNDS, void=void),
        "real": {
            **real,
            "hit_rate": round(hits, 4),
            "cold_loads": loads,
            "requests_by_replica": [int(sum(each[tier] for tier in ("memory", "disk", "store"))) for each in counts],
        },
        "simulated": {
            **simulated,
            "hit_rate": round(predicted, 4),
            "cold_loads": len(outcome.loads),
            "requests_by_replica": by_replica,
        },
        "requests": len(trace.at),
    }


@contextlib.contextmanager
def _envoy(folder: Path, servers: Sequence[LocalServer], keys: Sequence[str]) -> Iterator[str]:
    """A real Envoy before the servers, in a thread with a loop of its own: its address.

    Args:
        keys: of the servers on its ring.
    """
    from serving.proxy.envoy import Proxy
    from serving.proxy.settings import Address, ProxySettings, Server

    place = folder / "envoy"
    place.mkdir()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="envoy")
    thread.start()

    async def begin() -> Proxy:
        proxy = Proxy(
            place,
            {"public": Address("127.0.0.1", 0)},
            ProxySettings(faces=(), admin=Address("127.0.0.1", 0), request_timeout_seconds=30, balance_percent=_FACTOR),
        )
        await proxy.start()
        proxy.tell(
            "public",
            [
                Server(address=Address.parse(urlsplit(server.url).netloc), key=key)
                for server, key in zip(servers, keys, strict=True)
            ],
        )
        ports = [urlsplit(server.url).port or 0 for server in servers]
        if not await proxy.settled("public", ports):
            raise RuntimeError("Envoy does not find the servers healthy")
        return proxy

    try:
        proxy = asyncio.run_coroutine_threadsafe(begin(), loop).result()
        try:
            yield proxy.url("public")
        finally:
            asyncio.run_coroutine_threadsafe(proxy.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
