"""`macrofleet bench neighbour`: what one tenant's rush does to the others."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from benchmarks.client import Operator
from benchmarks.fleets import limit, serve, tenant_names, write_catalogues
from benchmarks.load import Samples, describe, interleaved, joined, percentiles, poisson_arrivals, run_load
from benchmarks.machine import describe_machine
from benchmarks.stage import TenantLoad, changed_speed, measured_capacity, staged
from benchmarks.verdicts import Bound, judge
from registry.console_output import Step
from registry.fleet.state import TenantLimits, update_fleet

BOUNDS = {
    "p99_ratio": Bound(at_most=2),
    "refused": Bound(at_least=1),
    "others_refused": Bound(at_most=0),
}
_RUSH = 10
# What a tenant may use, of its share: room for the burst that chance makes, far below the rush.
_ALLOWED = 2.0


def measure_neighbour(
    *, tenants: int, seconds: float, rounds: int, load_share: float, connections: int, step: Step
) -> dict[str, Any]:
    """All tenants at their share, then the first at ten times its own while the rest go on as before.

    Each tenant's limit is twice its share, written to the fleet while the server runs.

    Args:
        tenants: with equal shares.
        seconds: length of one measurement.
        rounds: of each kind, in turn.
        load_share: what all shares together are of the measured capacity.
        connections: of the closed loop that finds the capacity.

    Returns:
        `p99_ratio`: p99 of the others while the first rushes, to what it is when it does not; `refused` and
        `others_refused`: 429s of the first, and answers other than 200 of the others.
    """
    names = tenant_names(tenants)
    shares = np.full(tenants, 1 / tenants)
    with staged(step, models_at_rest=tenants) as stage:
        step(f"making {tenants} models", 0.1)
        fleet = stage.models(tenants)
        models = fleet.make((name, "m") for name in names)
        fleet.install(stage.disk, models)
        write_catalogues(stage.put, dict.fromkeys(names, fleet.catalogue(["m"])))
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models})
        os.sync()
        step("starting the server", 0.2)
        with stage.server({"memory_bytes": 2 * tenants * fleet.model_bytes}) as server:
            load = TenantLoad(server.url, names, core=stage.cores.load)
            load.touch_all()
            step("finding the capacity", 0.3)
            capacity = measured_capacity(load, shares, seconds=min(5.0, seconds), connections=connections)
            share = load_share * capacity / tenants
            limits = TenantLimits(requests_per_second=_ALLOWED * share)
            update_fleet(stage.store, {name: limit(limits) for name in names})
            Operator(server.operator_url).refresh_fleet()
            found: dict[str, list[Samples]] = {"quiet": [], "rush": []}
            for part in range(2 * rounds):
                kind, times = (("quiet", 1), ("rush", _RUSH))[part % 2]
                step(kind, 0.4 + 0.6 * part / (2 * rounds))
                found[kind].append(_run(load, share, times=times, seconds=seconds, seed=part // 2))
            step("finding the capacity again", 0.99)
            update_fleet(stage.store, {name: limit(None) for name in names})
            Operator(server.operator_url).refresh_fleet()
            later = measured_capacity(load, shares, seconds=min(5.0, seconds), connections=connections)
    quiet, rush = (joined(found[kind]) for kind in ("quiet", "rush"))
    others = {name: run.where(load.tenant_of(run) != 0) for name, run in (("quiet", quiet), ("rush", rush))}
    first = rush.where(load.tenant_of(rush) == 0)
    p99 = {name: percentiles(run.latency[run.status == 200])["p99_ms"] for name, run in others.items()}
    figures = {
        "p99_ratio": round(p99["rush"] / p99["quiet"], 2),
        "refused": int((first.status == 429).sum()),
        "others_refused": int((others["rush"].status != 200).sum()),
    }
    void = [*stage.cores.void, *changed_speed([capacity, later])]
    if not (quiet.kept_schedule and rush.kept_schedule):
        void.append("the generator was late")
    if not (quiet.status == 200).all():
        void.append("there were refusals without a rush")
    return {
        "bench": "neighbour",
        **figures,
        **judge(figures, BOUNDS, void=void),
        "others_quiet": describe(others["quiet"]),
        "others_in_the_rush": describe(others["rush"]),
        "first_in_its_rush": describe(first),
        "settings": {
            "tenants": tenants,
            "seconds": seconds,
            "rounds": rounds,
            "load_share": load_share,
            "capacity_rps": round(capacity, 1),
            "share_rps": round(share, 2),
            "rush": _RUSH,
            "limit_rps": round(_ALLOWED * share, 2),
        },
        "machine": describe_machine(),
    }


def _run(load: TenantLoad, share: float, *, times: int, seconds: float, seed: int) -> Samples:
    """The first tenant at `times` its share; the others' arrivals are the same whatever it does."""
    rng = np.random.default_rng(seed)
    others = poisson_arrivals(share * (len(load.tenants) - 1), seconds, rng=rng)
    places = rng.integers(1, len(load.tenants), len(others))
    first = poisson_arrivals(share * times, seconds, rng=rng)
    at, (chosen,) = interleaved([others, first], [[places, np.zeros(len(first), np.int64)]])
    return run_load(load.plan(load.requests_of(chosen), at))
