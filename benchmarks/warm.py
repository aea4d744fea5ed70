"""`macrofleet bench warm`: throughput and latency of models in memory, beside a bare FastAPI echo."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.echo import served_echo
from benchmarks.fleets import serve, tenant_names, write_catalogues
from benchmarks.latency import encoded
from benchmarks.load import Floats, Samples, describe, joined, run_load, zipf_shares
from benchmarks.machine import describe_machine
from benchmarks.processes import processor_seconds
from benchmarks.stage import TenantLoad, staged
from benchmarks.verdicts import Bound, judge
from registry.console_output import Step
from registry.fleet.state import update_fleet

BOUNDS = {
    "throughput_ratio_to_echo": Bound(at_least=0.35),
    "p99_ms_at_half_capacity": Bound(at_most=10),
    "p99_ratio_to_echo": Bound(at_most=5),
}
# The generator must drive the echo so many times as fast as it drives us, or it is what was measured. Against an echo
# that is not so much quicker than we are, it must have had as much of its core to spare.
_GENERATOR_MARGIN = 2.0


def measure_warm(
    *, tenants: int, seconds: float, rounds: int, connections: int, with_keys: bool = False, step: Step
) -> dict[str, Any]:
    """Capacity of the server and of the echo in turn, then the latency of each at half of its own capacity.

    Args:
        tenants: in the fleet, all loaded before; asked for by Zipf(1).
        seconds: length of one measurement.
        rounds: measurements of each kind; capacities are medians, latencies are over all samples.
        connections: of the closed loop that finds a capacity.
        with_keys: whether every tenant has an API key, and is asked for it.
    """
    names = tenant_names(tenants)
    shares = zipf_shares(tenants)
    with staged(step, models_at_rest=tenants) as stage:
        step(f"making {tenants} models", 0.05)
        fleet = stage.models(tenants)
        models = fleet.make((name, "m") for name in names)
        fleet.install(stage.disk, models)
        write_catalogues(stage.put, dict.fromkeys(names, fleet.catalogue(["m"])))
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models})
        os.sync()  # its writing is not to be measured with what comes after
        step("starting the servers", 0.4)
        keys = stage.publish_keys(names) if with_keys else None
        given = {"memory_bytes": 2 * tenants * fleet.model_bytes, "access": "keys" if with_keys else "open"}
        with (
            stage.server(given) as server,
            served_echo(stage.cores.server) as echo_url,
        ):
            ours = TenantLoad(server.url, names, core=stage.cores.load, keys=keys)
            echo = TenantLoad(echo_url, names, core=stage.cores.load)
            step("touching every model", 0.45)
            touched = ours.touch_all()
            for load in (echo, ours):
                load.saturate(shares, seconds=min(2.0, seconds), connections=connections)
            found: dict[str, list[Samples]] = {"echo": [], "ours": []}
            used = 0.0
            for part in range(rounds):
                step(f"capacity, {part + 1} of {rounds}", 0.5 + 0.25 * part / rounds)
                found["echo"].append(echo.saturate(shares, seconds=seconds, connections=connections))
                before = processor_seconds(server.pid)
                found["ours"].append(ours.saturate(shares, seconds=seconds, connections=connections))
                used += processor_seconds(server.pid) - before
            capacity = {name: float(np.median([_rate(samples) for samples in runs])) for name, runs in found.items()}
            half: dict[str, list[Samples]] = {"echo": [], "ours": []}
            for part in range(rounds):
                step(f"latency, {part + 1} of {rounds}", 0.75 + 0.25 * part / rounds)
                for name, load in (("echo", echo), ("ours", ours)):
                    half[name].append(run_load(load.offered(shares, rate=capacity[name] / 2, seconds=seconds)))
    latency = {name: describe(joined(runs)) for name, runs in half.items()}
    figures = {
        "throughput_ratio_to_echo": round(capacity["ours"] / capacity["echo"], 3),
        "p99_ms_at_half_capacity": latency["ours"]["p99_ms"],
        "p99_ratio_to_echo": round(latency["ours"]["p99_ms"] / latency["echo"]["p99_ms"], 2),
        "rps": round(capacity["ours"], 1),
        "generator_rps": round(capacity["echo"], 1),
    }
    generator = max(samples.processor_share for samples in found["echo"])
    answered = sum(len(samples.status) for samples in found["ours"])
    return {
        "bench": "warm",
        **figures,
        **judge(
            figures, BOUNDS, void=[*stage.cores.void, *_void(figures, generator, latency, [touched, *found["ours"]])]
        ),
        "generator_processor_share": round(generator, 2),
        "processor_us_per_request": round(used / answered * 1e6, 1),
        "capacity_rounds": {name: [round(_rate(samples), 1) for samples in runs] for name, runs in found.items()},
        "at_half_capacity": latency,
        "hdr": encoded(_latency(half["ours"])),
        "settings": {
            "tenants": tenants,
            "model_bytes": fleet.model_bytes,
            "seconds": seconds,
            "rounds": rounds,
            "connections": connections,
            "keys": with_keys,
            "words": 50,
        },
        "machine": describe_machine(),
    }


def _latency(runs: Sequence[Samples]) -> Floats:
    whole = joined(runs)
    found: Floats = whole.latency[whole.status == 200]
    return found


def _rate(samples: Samples) -> float:
    return float((samples.status == 200).sum() / samples.seconds)


def _void(
    figures: Mapping[str, float], generator: float, latency: Mapping[str, dict[str, Any]], ours: Sequence[Samples]
) -> list[str]:
    reasons = [f"the generator was late at half of the capacity ({name})" for name in latency if latency[name]["void"]]
    if figures["generator_rps"] < _GENERATOR_MARGIN * figures["rps"] and generator > 1 / _GENERATOR_MARGIN:
        reasons.append(f"the generator cannot be shown to reach {_GENERATOR_MARGIN:g} times our rate against the echo")
    if any((samples.status != 200).any() for samples in ours) or set(latency["ours"]["statuses"]) != {"200"}:
        reasons.append("not every request was answered with 200")
    return reasons
