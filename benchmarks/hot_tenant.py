"""A tenant with ten times its neighbours' traffic, at a load that fills the replica that the ring gives it.

Envoy passes on what is above 150 % of the mean of what is under way, rounded up, so that three requests under way are still
within the bound of one replica of three. A quick replica that is not full has seldom more, whoever asks: there is nothing
that would have to spread, and nothing does. So the load is chosen by what one replica can take, which is measured in the
same run by asking it alone. Requests are batches: their work is the servers', and little of it Envoy's or the generator's,
who share the cores.

A machine with fewer cores than replicas, Envoy and generator is full before any replica is. There the kernel gives each
replica a part of a core for as long as this takes (`benchmarks.processor_limit`): the tenant's own is full then, and the
machine is not.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.client import Operator, total
from benchmarks.load import Floats, Samples, describe, percentiles, run_load
from benchmarks.processes import processor_seconds
from benchmarks.processor_limit import limited
from benchmarks.proxy_log import Request
from benchmarks.replica_group import SAMPLE_SECONDS, Group
from benchmarks.stage import TenantLoad
from registry.console_output import Step

# Of a batch.
TICKETS = 16
HOT = 10
# Of what its own replica can take, the load of the busy tenant alone.
FILL = 1.0
# Where the load would be more of the capacity of all, it is the machine that is full, and not one replica.
_MOST_OF_ALL = 0.85
_ANSWERED = b'"status":200'
# Envoy's and the generator's; without them and a core for each replica the replicas have this part of all cores together.
_OTHERS_CORES = 2
_REPLICAS_PART = 0.45


@dataclass(slots=True)
class Busiest:
    """The busy tenant's own replica while it was busy: what the autoscaler's targets are about."""

    queue_depths: list[float] = field(default_factory=list)
    processor_share: float | None = None

    def describe(self) -> dict[str, float | None]:
        """For a report: tickets in its queue, and the share of a core that it used."""
        depths = self.queue_depths
        return {
            "queue_depth_mean": round(sum(depths) / len(depths), 2) if depths else None,
            "queue_depth_max": max(depths, default=None),
            "processor_share": self.processor_share,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HotTenant:
    """What came of it.

    Attributes:
        one_rps, all_rps: batches a second that one replica takes, and all of them behind Envoy.
        rate: batches a second that were offered, of all tenants.
        even, hot: the same load with all tenants alike, and with the busy one.
        parts: the replicas' parts in the busy tenant's requests, the largest first.
        failed: batches that were not answered with 200, and tickets of others that were not.
        busiest: its own replica meanwhile.
        replica_cores: what the kernel gave each replica; None is all that it took.
    """

    one_rps: float
    all_rps: float
    rate: float
    even: Samples
    hot: Samples
    parts: list[float]
    failed: int
    busiest: Busiest
    replica_cores: float | None

    @property
    def unmeasured(self) -> list[str]:
        """Why it says nothing, on a machine that all replicas together fill."""
        if self.rate <= _MOST_OF_ALL * self.all_rps:
            return []
        reason = (
            f"the load that fills one replica, {self.rate:.0f} batches a second, is more than {_MOST_OF_ALL:.0%} of what "
            f"all take here, {self.all_rps:.0f}: that does not tell a full replica from a full machine of {os.cpu_count()} cores"
        )
        return [reason]

    @property
    def p99_ratio(self) -> float | None:
        """p99 of all tenants with the busy one, to p99 of the same load with all alike."""
        even, hot = (percentiles(run.latency[run.status == 200])["p99_ms"] for run in (self.even, self.hot))
        return round(hot / even, 2) if even and hot else None

    def describe(self) -> dict[str, Any]:
        """For a report."""
        return {
            "tickets_a_batch": TICKETS,
            "replica_cores": self.replica_cores,
            "one_replica_rps": round(self.one_rps, 1),
            "all_replicas_rps": round(self.all_rps, 1),
            "offered_rps": round(self.rate, 1),
            "parts": [round(part, 3) for part in self.parts],
            "failed": self.failed,
            "even": describe(self.even),
            "hot": describe(self.hot),
            "unmeasured": self.unmeasured,
        }


def measure_hot_tenant(
    group: Group, names: Sequence[str], *, replicas: int, core: int | None, seconds: float, connections: int, step: Step
) -> HotTenant:
    """Load that one replica could not take alone, most of it one tenant's.

    Where there is no core for each replica, and two more, each is held to a part of one meanwhile.

    Args:
        group: with all replicas ready.
        names: of the tenants; the first is the busy one, and of each other replica one tenant is its neighbour.
        replicas: how many there are.
        core: for the generator.
        seconds: of each run.
        connections: of the closed loops that find capacities.
    """
    owners = group.owners(names, range(replicas))
    own = owners[names[0]]
    number = next(number for number in range(replicas) if group.server_of(number) == own)
    neighbours = {owners[name]: name for name in reversed(names) if owners[name] not in {own, ""}}
    tenants = [names[0], *neighbours.values()]
    alike = np.full(len(tenants), 1 / len(tenants))
    weights = np.array([HOT, *[1.0] * len(neighbours)])
    weights /= weights.sum()
    alone = TenantLoad(f"http://{own}", tenants[:1], core=core, tickets=TICKETS)
    load = TenantLoad(group.url, tenants, core=core, tickets=TICKETS)
    load.touch_all()
    cores, pids = replica_cores(replicas), [group.pid_of(number) for number in range(replicas)]
    with contextlib.nullcontext(False) if cores is None else limited(pids, cores) as held:
        step("what one replica can take", 0.7)
        one = _capacity(alone, np.ones(1), seconds, connections)
        everything = _capacity(load, alike, seconds, connections)
        rate = FILL * one / float(weights[0])
        step("as much load, all tenants alike", 0.73)
        even = run_load(load.offered(alike, rate=rate, seconds=seconds, keep_answers=True))
        step("one tenant with ten times the traffic of the others", 0.76)
        began = time.time()
        with _watched(group, number) as busiest:
            hot = run_load(load.offered(weights, rate=rate, seconds=seconds, keep_answers=True))
    requests = group.requests(began, time.time())
    return HotTenant(
        one_rps=one,
        all_rps=everything,
        rate=rate,
        even=even,
        hot=hot,
        parts=replica_parts(requests, names[0]),
        failed=sum(not_answered(run) for run in (even, hot)),
        busiest=busiest,
        replica_cores=cores if held else None,
    )


def replica_cores(replicas: int) -> float | None:
    """What each replica shall have of a core; None where each can have one, and Envoy and the generator too."""
    cores = os.cpu_count() or 1
    return None if cores >= replicas + _OTHERS_CORES else round(_REPLICAS_PART * cores / replicas, 2)


def replica_parts(requests: Sequence[Request], tenant: str) -> list[float]:
    """The replicas' parts in a tenant's requests, the largest first."""
    servers = [request.server for request in requests if request.tenant == tenant]
    return sorted((servers.count(server) / len(servers) for server in set(servers)), reverse=True)


def not_answered(run: Samples) -> int:
    """Batches that were not answered with 200, and tickets within others that were not."""
    whole = [answer for answer, status in zip(run.answers, run.status, strict=True) if status == 200]
    return len(run.status) - len(whole) + sum(TICKETS - answer.count(_ANSWERED) for answer in whole)


def _capacity(load: TenantLoad, shares: Floats, seconds: float, connections: int) -> float:
    samples = load.saturate(shares, seconds=min(5.0, seconds), connections=connections)
    return float((samples.status == 200).sum() / samples.seconds)


@contextlib.contextmanager
def _watched(group: Group, number: int) -> Iterator[Busiest]:
    """Look at a replica twice a second in a thread."""
    found, stop = Busiest(), threading.Event()
    pid, operator = group.pid_of(number), Operator(group.operator_of(number))
    before, began = processor_seconds(pid), time.monotonic()

    def watch() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            with contextlib.suppress(OSError):
                found.queue_depths.append(total(operator.metrics(), "macrofleet_queue_depth"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        found.processor_share = round((processor_seconds(pid) - before) / (time.monotonic() - began), 2)
