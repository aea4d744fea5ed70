"""`macrofleet bench soak`: load, evictions and swaps for a long while."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.client import Operator, total
from benchmarks.fleets import SyntheticModel, serve, tenant_names, write_catalogues
from benchmarks.load import Run, describe, running, zipf_shares
from benchmarks.machine import describe_machine
from benchmarks.processes import Usage, usage
from benchmarks.stage import Stage, TenantLoad, measured_capacity, staged
from benchmarks.verdicts import Bound, judge
from registry.console_output import Step
from registry.fleet.state import update_fleet

BOUNDS = {
    "rss_drift": Bound(at_most=0.03),
    "errors": Bound(at_most=0),
    "threads_growth": Bound(at_most=0),
    "descriptors_growth": Bound(at_most=0),
}
_LOOK_SECONDS = 1.0
# Less than the server keeps an idle connection.
_KEPT_SECONDS = 60.0


def measure_soak(
    *,
    minutes: float,
    tenants: int,
    swapped: int,
    swap_seconds: float,
    memory_share: float,
    load_share: float,
    connections: int,
    step: Step,
) -> dict[str, Any]:
    """Open-loop load by Zipf(1) over more models than memory holds, and a swap every few seconds.

    Args:
        minutes: how long.
        tenants: in the fleet; all models are on local disk at the start.
        swapped: how many of them have a second version; a swap goes from one version to the other, and back.
        swap_seconds: from one swap to the next.
        memory_share: the memory budget, of what all models together have.
        load_share: of the capacity measured at the start.
        connections: of the closed loop that finds the capacity, and of the load.

    Returns:
        `rss_drift`: mean resident memory in the last third of the time to that in the middle third, less 1, without its
        sign; `errors`: answers other than 200; `threads_growth` and `descriptors_growth`: median of the last third less
        median of the middle third.
    """
    names = tenant_names(tenants)
    shares = zipf_shares(tenants)
    with staged(step, models_at_rest=2 * (tenants + swapped)) as stage:
        step(f"publishing {tenants + swapped} models", 0.01)
        fleet = stage.models(tenants + swapped)
        first = fleet.make((name, "m") for name in names)
        second = fleet.make((name, "m") for name in names[:swapped])
        # In the store too, so that the disk tier may let go of a version that serves no more.
        fleet.publish(stage.put, [*first, *second])
        fleet.install(stage.disk, first)
        write_catalogues(stage.put, dict.fromkeys(names, fleet.catalogue(["m"])))
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in first})
        os.sync()
        step("starting the server", 0.02)
        budget = int(memory_share * tenants * fleet.model_bytes)
        with stage.server({"memory_bytes": budget}) as server:
            load = TenantLoad(server.url, names, core=stage.cores.load)
            load.touch_all()
            capacity = measured_capacity(load, shares, seconds=5, connections=connections)
            operator = Operator(server.operator_url)
            before = operator.metrics()
            # A fixed set of connections: the server's descriptors shall tell of the server, not of a burst of callers.
            fixed = {"connections": connections, "max_connections": connections, "idle_seconds": _KEPT_SECONDS}
            plan = load.offered(shares, rate=load_share * capacity, seconds=60 * minutes, **fixed)
            with running(plan) as run:
                pairs = list(zip(first, second, strict=False))
                seen, swaps = _watch(run, stage, server.pid, operator, pairs, 60 * minutes, swap_seconds, step)
                samples = run.result()
            after = operator.metrics()
    evicted = "macrofleet_evictions_total"
    evictions = total(after, evicted) - total(before, evicted)
    figures = {
        "rss_drift": round(abs(drift([look.rss for look in seen])), 4),
        "errors": int((samples.status != 200).sum()),
        "threads_growth": growth([look.threads for look in seen]),
        "descriptors_growth": growth([look.descriptors for look in seen]),
    }
    void = [*stage.cores.void, *([] if samples.kept_schedule else ["the generator was late"])]
    if not evictions or not swaps:
        void.append("there were no evictions, or no swaps")
    return {
        "bench": "soak",
        **figures,
        **judge(figures, BOUNDS, void=void),
        "rss_anon_drift": round(drift([look.anonymous for look in seen]), 4),
        "rss_mb_by_minute": [round(value / 1e6) for value in by_minute([look.rss for look in seen], minutes)],
        "rss_anon_mb_by_minute": [
            round(value / 1e6) for value in by_minute([look.anonymous for look in seen], minutes)
        ],
        "threads": seen[-1].threads,
        "descriptors": seen[-1].descriptors,
        "evictions": evictions,
        "swaps": swaps,
        "load": describe(samples),
        "settings": {
            "minutes": minutes,
            "tenants": tenants,
            "swapped_tenants": swapped,
            "swap_seconds": swap_seconds,
            "memory_bytes": budget,
            "model_bytes": fleet.model_bytes,
            "load_share": load_share,
            "capacity_rps": round(capacity, 1),
            "store": "local folder",
        },
        "machine": describe_machine(),
    }


def _watch(
    run: Run,
    stage: Stage,
    pid: int,
    operator: Operator,
    pairs: Sequence[tuple[SyntheticModel, SyntheticModel]],
    seconds: float,
    swap_seconds: float,
    step: Step,
) -> tuple[list[Usage], int]:
    """Look at the server every second and swap a model every few, until the run is over."""
    seen: list[Usage] = []
    swaps = 0
    while (elapsed := time.monotonic() - run.began) < seconds:
        seen.append(usage(pid))
        if pairs and elapsed >= (swaps + 1) * swap_seconds:
            model = pairs[swaps % len(pairs)][1 - (swaps // len(pairs)) % 2]
            update_fleet(stage.store, {model.tenant: serve(model.manifest)})
            operator.refresh_fleet()
            swaps += 1
        step(f"{elapsed / 60:.0f} of {seconds / 60:g} minutes, {swaps} swaps", elapsed / seconds)
        time.sleep(max(0.0, run.began + len(seen) * _LOOK_SECONDS - time.monotonic()))
    return seen, swaps


def drift(values: Sequence[float]) -> float:
    """Mean of the last third to the mean of the middle third, less 1."""
    middle, last = _thirds(values)
    return float(np.mean(last) / np.mean(middle) - 1)


def growth(values: Sequence[float]) -> float:
    """Median of the last third less the median of the middle third."""
    middle, last = _thirds(values)
    return float(np.median(last) - np.median(middle))


def by_minute(values: Sequence[float], minutes: float) -> list[float]:
    """Means, one a minute."""
    return [float(np.mean(part)) for part in np.array_split(np.array(values), max(1, round(minutes)))]


def _thirds(values: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    third = max(1, len(values) // 3)
    return values[third : 2 * third] or values, values[-third:]
