"""`macrofleet bench scan`: a scan of the long tail beside a hot set."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.client import Operator, total
from benchmarks.fleets import serve, tenant_names, write_catalogues
from benchmarks.load import describe, interleaved, percentiles, poisson_arrivals, run_load, zipf_shares
from benchmarks.machine import describe_machine
from benchmarks.stage import TenantLoad, measured_capacity, staged
from benchmarks.verdicts import Bound, judge
from registry.console_output import Step
from registry.fleet.state import update_fleet

BOUNDS = {
    "hot_p99_ratio": Bound(at_most=2),
    "hot_evicted": Bound(at_most=0),
    "tail_answered": Bound(at_least=0.95),
    "tail_p99_ms": Bound(at_most=100),
}
# How full the hot set makes the memory tier.
_FULL = 0.9


def measure_scan(
    *, hot: int, tail: int, tail_rps: float, load_share: float, connections: int, quiet_seconds: float, step: Step
) -> dict[str, Any]:
    """A hot set that fills most of the memory budget, under load; then every tail tenant once beside it.

    The tail's models lie in the store, a local folder, and were never on the disk tier or in memory.

    Args:
        hot: tenants of the hot set, asked by Zipf(1).
        tail: tenants of the tail, each asked once.
        tail_rps: how many of them a second, independent of each other.
        load_share: load on the hot set, of the measured capacity.
        connections: of the closed loop that finds the capacity.
        quiet_seconds: of the hot set's load alone, before the scan.

    Returns:
        `hot_p99_ratio`: the hot set's p99 during the scan to that before; `hot_evicted`: loads of hot models after the
        first of each, by the server's log; `tail_answered`: share of the tail answered with 200; `tail_p99_ms`.
    """
    hot_names, tail_names = tenant_names(hot, "hot"), tenant_names(tail, "tail")
    names = [*hot_names, *tail_names]
    shares = np.concatenate([zipf_shares(hot), np.zeros(tail)])
    with staged(step, models_at_rest=2 * tail + hot) as stage:
        step(f"making {hot + tail} models", 0.05)
        fleet = stage.models(hot + tail)
        models = fleet.make((name, "m") for name in names)
        fleet.install(stage.disk, models[:hot])
        fleet.publish(stage.put, models[hot:])
        write_catalogues(stage.put, dict.fromkeys(names, fleet.catalogue(["m"])))
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models})
        os.sync()
        step("starting the server", 0.4)
        budget = int(hot * fleet.model_bytes / _FULL)
        with stage.server({"memory_bytes": budget, "preload": "none"}) as server:
            load = TenantLoad(server.url, names, core=stage.cores.load)
            step("warming the hot set", 0.45)
            run_load(load.plan(load.requests_of(np.arange(hot)), np.arange(hot) / 20))
            capacity = measured_capacity(load, shares, seconds=min(5.0, quiet_seconds), connections=connections)
            rate = load_share * capacity
            step("the hot set alone", 0.5)
            quiet = run_load(load.offered(shares, rate=rate, seconds=quiet_seconds))
            before = Operator(server.operator_url).metrics()
            step(f"scanning {tail} tail tenants", 0.6)
            rng = np.random.default_rng(1)
            hot_at = poisson_arrivals(rate, tail / tail_rps, rng=rng)
            hot_picks = load.draw(len(hot_at), shares)
            tail_at = np.sort(rng.uniform(0, tail / tail_rps, tail))
            tail_picks = load.requests_of(hot + rng.permutation(tail))
            at, (picks,) = interleaved([hot_at, tail_at], [[hot_picks, tail_picks]])
            scanned = run_load(load.plan(picks, at))
            after = Operator(server.operator_url).metrics()
            loads = _loads(server.log)
    is_hot = load.tenant_of(scanned) < hot
    beside, cold = scanned.where(is_hot), scanned.where(~is_hot)
    reached = cold.status == 200
    figures = {
        "hot_p99_ratio": round(percentiles(beside.latency)["p99_ms"] / percentiles(quiet.latency)["p99_ms"], 2),
        "hot_evicted": sum(loads[name] - 1 for name in hot_names if loads[name] > 1),
        "tail_answered": round(float(reached.mean()), 4),
        "tail_p99_ms": percentiles(cold.latency[reached])["p99_ms"],
    }
    void = [*stage.cores.void]
    if not (quiet.kept_schedule and scanned.kept_schedule):
        void.append("the generator was late")
    if not all(loads[name] for name in hot_names):
        void.append("the log does not tell of the hot set's first loads")
    evicted = "macrofleet_evictions_total"
    return {
        "bench": "scan",
        **figures,
        **judge(figures, BOUNDS, void=void),
        "hot_alone": describe(quiet),
        "hot_beside_the_scan": describe(beside),
        "tail": describe(cold),
        "memory_evictions_during_the_scan": total(after, evicted, tier="memory")
        - total(before, evicted, tier="memory"),
        "settings": {
            "hot": hot,
            "tail": tail,
            "tail_rps": tail_rps,
            "load_share": load_share,
            "capacity_rps": round(capacity, 1),
            "memory_bytes": budget,
            "model_bytes": fleet.model_bytes,
            "store": "local folder",
        },
        "machine": describe_machine(),
    }


def _loads(log: Path) -> Counter[str]:
    """How often each tenant's model was brought to memory, by the server's log."""
    loads: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # TensorFlow's own
        if isinstance(entry, dict) and entry.get("message") == "model loaded":
            loads[entry["tenant"]] += 1
    return loads
