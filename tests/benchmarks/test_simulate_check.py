"""The comparison of real servers with the simulation: what agrees passes, what does not fails, what was refused voids it."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.load import Samples
from benchmarks.simulation.check import CheckSizes, compared
from benchmarks.simulation.engine import Replica, simulate
from benchmarks.simulation.report import replica_keys, trace_scenario
from benchmarks.trace import TraceSpec, make_trace
from benchmarks.verdicts import all_passed

REPLICA = Replica(
    batch_seconds=0.001,
    ticket_seconds=0.001,
    disk_seconds=0.004,
    store_seconds=0.05,
    model_bytes=1.0,
    memory_models=8,
)
SIZES = CheckSizes(replicas=3, tenants=40)
TRACE = make_trace(TraceSpec(rate=50, seconds=5, tenants=40))
OUTCOME = simulate(trace_scenario(TRACE, REPLICA, replica_keys(3), rule="ring", preload=False))


def real(slower: float = 1.0, *, status: int = 200, more_loads: int = 0) -> dict[str, Any]:
    """What servers would have to do to be as simulated, or `slower` times as slow, or with more loads."""
    count = len(TRACE.at)
    statuses = np.full(count, 200)
    statuses[0] = status
    samples = Samples(
        began=0.0,
        seconds=TRACE.seconds,
        picks=TRACE.places,
        intended=TRACE.at,
        fired=TRACE.at,
        sent=TRACE.at,
        done=TRACE.at + slower * OUTCOME.latency,
        status=statuses,
    )
    kinds = [OUTCOME.kind[OUTCOME.replica == place].tolist() for place in range(3)]
    counts = [
        {
            "memory": found.count("h"),
            "disk": found.count("d"),
            "store": found.count("s") + found.count("w"),
            "loads": found.count("d") + found.count("s"),
        }
        for found in kinds
    ]
    counts[0]["loads"] += more_loads
    return compared(TRACE, samples, counts, OUTCOME, SIZES)


def test_what_is_as_simulated_passes() -> None:
    report = real()
    assert all_passed(report)
    assert report["hit_rate_difference"] == 0
    assert report["cold_loads_ratio"] == report["p50_ratio"] == report["p99_ratio"] == 1
    assert report["real"]["requests_by_replica"] == report["simulated"]["requests_by_replica"]


def test_what_is_not_fails_where_it_differs() -> None:
    assert real(3.0)["passed"] == {
        "hit_rate_difference": True,
        "cold_loads_ratio": True,
        "p50_ratio": False,
        "p99_ratio": False,
    }
    assert not real(more_loads=30)["passed"]["cold_loads_ratio"]


def test_a_refusal_voids_the_comparison() -> None:
    assert any("not every request was answered" in reason for reason in real(status=503)["void"])
