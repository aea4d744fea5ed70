"""`macrofleet bench simulate`: a scenario from a few numbers, and what came of it in figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.load import Floats, Integers, percentiles, zipf_shares
from benchmarks.simulation.balancing import Rule
from benchmarks.simulation.engine import Outcome, Replica, Scenario, simulate
from benchmarks.simulation.parameters import described
from benchmarks.trace import Trace, TraceSpec, make_trace
from registry.console_output import Step
from serving.replicas.addresses import ring_key

# After a loss: how long cold loads are counted, and what counts as having recovered.
_AFTER_SECONDS = 30.0
_RECOVERED_SHARE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is asked for.

    Attributes:
        replicas: how many.
        spec: of the traffic.
        rule, factor: of the balancer.
        ring_places: None is our ring, whose replicas keep their places; a number is plain Envoy's, of all replicas.
        processes: replicas on each machine, which share its disk tier and are lost together.
        lose: machines that are lost in the middle of the trace.
        copies_above: a tenant with more traffic than this share of a replica's capacity has a copy for each such share;
            None is one copy of each.
        preload: whether replicas begin with their tenants.
    """

    replicas: int
    spec: TraceSpec
    rule: Rule = "envoy"
    factor: int = 150
    ring_places: int | None = None
    processes: int = 1
    lose: int = 0
    copies_above: float | None = None
    preload: bool = True


def measure_simulation(shape: Shape, replica: Replica, *, step: Step) -> dict[str, Any]:
    """Draw the traffic, simulate, and describe what came of it."""
    step("drawing the traffic", 0.0)
    trace = make_trace(shape.spec)
    copies = None if shape.copies_above is None else _copies(shape, replica)
    machines = [place // shape.processes for place in range(shape.replicas)]
    gone = set(np.random.default_rng(shape.spec.seed).permutation(machines[-1] + 1)[: shape.lose].tolist())
    lost = [place for place, machine in enumerate(machines) if machine in gone]
    scenario = Scenario(
        replica=replica,
        keys=replica_keys(shape.replicas),
        names=trace.tenants,
        at=trace.at,
        places=trace.places,
        rule=shape.rule,
        factor=shape.factor,
        ring_places=shape.ring_places,
        copies=copies,
        machines=machines,
        preload=shape.preload,
        busiest=range(len(trace.tenants)),  # by their shares, which is what yesterday's traffic would say
        lose=lost,
        seed=shape.spec.seed,
        lose_at=shape.spec.seconds / 2 if lost else float("inf"),
    )
    began = time.monotonic()
    text = f"simulating {len(trace.at):,} requests"
    outcome = simulate(scenario, lambda share: step(text, 0.1 + 0.8 * share))
    step("counting", 0.9)
    return {
        "bench": "simulate",
        **figures(scenario, outcome, seconds=trace.seconds),
        "replica": described(replica),
        "settings": {
            "replicas": shape.replicas,
            "processes_a_machine": shape.processes,
            "tenants": shape.spec.tenants,
            "trace": trace.describe()["made"],
            "rule": shape.rule,
            "factor": shape.factor,
            "ring_places": shape.ring_places,
            "lose": shape.lose,
            "lost_at_seconds": scenario.lose_at if lost else None,
            "copies": None if copies is None else int(copies.sum() - len(copies)),
            "copies_above": shape.copies_above,
            "preload": shape.preload,
        },
        "simulated_in_seconds": round(time.monotonic() - began, 1),
    }


def replica_keys(count: int) -> list[str]:
    """Of replicas on the ring: those that `serve --replicas` gives them, and that Envoy reads as their `hash_key`."""
    return [ring_key(place) for place in range(count)]


def _copies(shape: Shape, replica: Replica) -> Integers:
    assert shape.copies_above is not None
    rates = zipf_shares(shape.spec.tenants, shape.spec.zipf) * shape.spec.rate
    wanted = np.ceil(rates / (shape.copies_above * replica.rps))
    tail = np.ones(shape.spec.tail)
    return np.concatenate([np.clip(wanted, 1, shape.replicas), tail]).astype(np.int64)


def figures(scenario: Scenario, outcome: Outcome, *, seconds: float) -> dict[str, Any]:
    """What came of a scenario, over all, and before and after a loss."""
    at = scenario.at
    after = at >= scenario.lose_at
    loads = np.array([moment for moment, *_ in outcome.loads])
    fetched = sum(1 for _, source, *_ in outcome.loads if source == "s")
    busiest = np.bincount(outcome.replica, minlength=len(scenario.keys))
    found = {
        "requests": len(at),
        "answered": int(np.isfinite(outcome.latency).sum()),
        "sent_again": int((outcome.sent > 1).sum()),
        **_part(outcome, np.ones(len(at), bool)),
        "cold_loads": len(loads),
        "bytes_fetched": fetched * scenario.replica.model_bytes,
        "utilisation": round(len(at) / seconds / (len(scenario.keys) * scenario.replica.rps), 4),
        "busiest_replica_to_mean": round(float(busiest.max() / busiest.mean()), 3),
        "tenants_of_fullest_replica_to_mean": _fullest(outcome.owners_before, len(scenario.keys)),
    }
    if scenario.lose:
        found |= {
            "before_loss": _part(outcome, ~after),
            "after_loss": _part(outcome, after),
            **_loss(scenario, outcome, loads, seconds),
        }
    return found


def _part(outcome: Outcome, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    kind = outcome.kind[chosen]
    return {
        "hit_rate": round(float((kind == "h").mean()), 5) if len(kind) else None,
        "affinity": round(float(1 - outcome.away[chosen].mean()), 5) if len(kind) else None,
        **{name: value for name, value in percentiles(outcome.latency[chosen]).items() if name != "p90_ms"},
    }


def _fullest(owners: Integers, replicas: int) -> float:
    counts = np.bincount(owners, minlength=replicas)
    return round(float(counts.max() / counts.mean()), 3)


def _loss(scenario: Scenario, outcome: Outcome, loads: Floats, seconds: float) -> dict[str, Any]:
    lost = np.isin(outcome.owners_before, scenario.lose)
    moved = outcome.owners_before != outcome.owners_after
    window = min(_AFTER_SECONDS, seconds - scenario.lose_at)
    since = loads - scenario.lose_at
    return {
        "lost_share_of_tenants": round(float(lost.mean()), 5),
        "moved_share_of_tenants": round(float(moved.mean()), 5),
        "moved_beyond_lost": round(float((moved & ~lost).mean()), 5),
        "cold_loads_after_loss": int(((since >= 0) & (since < window)).sum()),
        "cold_loads_before_loss": int(((since < 0) & (since >= -window)).sum()),
        "counted_over_seconds": window,
        "recovered_after_seconds": recovered(scenario.at - scenario.lose_at, outcome.kind == "h"),
    }


def recovered(since: Floats, hits: NDArray[np.bool_]) -> float | None:
    """The first moment after which the hit rate of every second is 95 % of before; None if that never comes.

    Args:
        since: when requests arrived, in seconds after the loss.
        hits: whether their model was in memory.
    """
    before = hits[since < 0]
    if not len(before):
        return None
    places = np.floor(since[since >= 0]).astype(np.int64)
    counts = np.bincount(places)
    rates = np.bincount(places, weights=hits[since >= 0]) / np.maximum(counts, 1)
    low: Sequence[int] = np.flatnonzero((rates < _RECOVERED_SHARE * before.mean()) & (counts > 0)).tolist()
    if not low:
        return 0.0
    return float(low[-1] + 1) if low[-1] + 1 < len(counts) else None


def trace_scenario(trace: Trace, replica: Replica, keys: Sequence[str], **more: Any) -> Scenario:
    """A scenario of a trace on given replicas, as a real run has them."""
    return Scenario(replica=replica, keys=keys, names=trace.tenants, at=trace.at, places=trace.places, **more)
