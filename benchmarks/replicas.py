"""`macrofleet bench replicas`: several servers behind Envoy, and what callers notice when one dies, comes or goes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.fleets import serve, tenant_names, write_catalogues
from benchmarks.hot_tenant import HOT, measure_hot_tenant, replica_parts
from benchmarks.load import Samples, describe, joined, percentiles, running
from benchmarks.machine import describe_machine
from benchmarks.proxy_log import Request, affinity, usual_server
from benchmarks.replica_group import SAMPLE_SECONDS, Group, Hits
from benchmarks.stage import Stage, TenantLoad, measured_capacity, staged
from benchmarks.verdicts import Bound, judge
from registry.console_output import Step
from registry.fleet.state import update_fleet

EVENTS = ("killed", "added", "drained")
BOUNDS = {
    "affinity": Bound(at_least=0.99),
    "failed": Bound(at_most=0),
    "moved_without_need": Bound(at_most=0),
    "slowest_recovery_seconds": Bound(at_most=30),
    "hot_replicas": Bound(at_least=2),
    "hot_p99_ratio": Bound(at_most=2),
    "deploy_p99_ratio": Bound(at_most=2),
}
# Of the requests of the busy tenant, what share a replica must have had to count.
_PART = 0.05
# The load at which a busy tenant need not spread, and its neighbours; `benchmarks.hot_tenant` has the one at which it must.
_NEIGHBOURS = 9
_LIGHT_LOAD = 0.5
_RECOVERED = 0.95
# The load goes on for so long before and after what happens.
_AROUND_SECONDS = 5.0


def measure_replicas(
    *, tenants: int, replicas: int, seconds: float, load_share: float, connections: int, step: Step
) -> dict[str, Any]:
    """One Envoy, `replicas` servers with a disk tier each and the preload plan `share`, and load on all tenants alike.

    While it goes on, one replica is killed, one is added, that one is drained, and all are restarted one by one.

    Args:
        tenants: in the fleet.
        replicas: at the beginning.
        seconds: of the quiet load, and of the busy tenant's.
        load_share: load, of the capacity that a closed loop finds.
        connections: of that closed loop.

    Returns:
        `affinity`: of the requests whose tenant's replica was under its bound, which share it had; `failed`: answers other
        than 200, whatever happened; `moved_without_need`: tenants that moved although the replica that went or came was
        none of theirs; `slowest_recovery_seconds`: from an event until the hit rate was at 95 % of what it was before;
        `hot_replicas`: how many had a part in the requests of a tenant with ten times the traffic of the others, at a load
        that one replica could not take alone; `hot_p99_ratio`: p99 meanwhile to p99 of the same load with all tenants alike;
        `deploy_p99_ratio`: p99 while all were restarted to p99 when nothing happened.
    """
    names = tenant_names(tenants)
    shares = np.full(tenants, 1 / tenants)
    with staged(step, models_at_rest=(replicas + 2) * tenants) as stage:
        step(f"publishing {tenants} models", 0.05)
        memory_bytes = 2 * publish_alike(stage, names)
        step("starting the replicas", 0.1)
        with _serving(stage, replicas, memory_bytes=memory_bytes) as group:
            load = TenantLoad(group.url, names, core=stage.cores.load)
            load.touch_all()
            step("finding the capacity", 0.2)
            capacity = measured_capacity(load, shares, seconds=min(5.0, seconds), connections=connections)
            rate = load_share * capacity
            step("quiet", 0.25)
            first, quiet = _during(group, load, rate, shares, lambda: time.sleep(seconds), around=0.0)
            owners = group.owners(names, range(replicas))
            affine = affinity(quiet, owners, servers=replicas)
            found: dict[str, _Event] = {}
            runs: dict[str, Samples] = {"quiet": first}
            happenings: dict[str, Callable[[], None]] = {
                "killed": lambda: group.kill(0),
                "added": group.add,
                "drained": group.drain,
            }
            for place, event in enumerate(EVENTS):
                step(f"one is {event}", 0.35 + 0.1 * place)
                with group.watched() as hits:
                    runs[event], requests = _during(group, load, rate, shares, happenings[event])
                found[event] = _Event(group.happened, group.settled, hits, requests)
            step("a busy tenant that need not spread", 0.65)
            weights = np.concatenate([[HOT], np.ones(_NEIGHBOURS), np.zeros(tenants - 1 - _NEIGHBOURS)])
            light = _LIGHT_LOAD * capacity
            runs["light"], lightly = _during(
                group, load, light, weights / weights.sum(), lambda: time.sleep(seconds), around=0.0
            )
            busy = measure_hot_tenant(
                group,
                names,
                replicas=replicas,
                core=stage.cores.load,
                seconds=seconds,
                connections=connections,
                step=step,
            )
            step("a rolling deploy", 0.8)
            runs["deploy"], _ = _during(group, load, rate, shares, group.deploy)
            step("quiet again", 0.95)
            again, _ = _during(group, load, rate, shares, lambda: time.sleep(seconds), around=0.0)
    runs["quiet"] = joined([first, again])
    p99 = {name: percentiles(run.latency[run.status == 200])["p99_ms"] for name, run in runs.items()}
    moves = {event: _moves(event, found[event], owners, group, names, replicas) for event in EVENTS}
    recoveries = {event: found[event].recovery_seconds() for event in EVENTS}
    slowest = (
        None if None in recoveries.values() else max(seconds for seconds in recoveries.values() if seconds is not None)
    )
    figures = {
        "affinity": None if affine.share is None else round(affine.share, 4),
        "failed": sum(int((run.status != 200).sum()) for run in runs.values())
        + (0 if busy.unmeasured else busy.failed),
        "moved_without_need": sum(len(moved) for moved, _ in moves.values()),
        "slowest_recovery_seconds": slowest,
        "hot_replicas": None if busy.unmeasured else sum(part >= _PART for part in busy.parts),
        "hot_p99_ratio": None if busy.unmeasured else busy.p99_ratio,
        "deploy_p99_ratio": round(p99["deploy"] / p99["quiet"], 2),
    }
    void = [*stage.cores.void]
    late = [name for name, run in {**runs, "even": busy.even, "hot": busy.hot}.items() if not run.kept_schedule]
    if late:
        void.append(f"the generator was late: {', '.join(late)}")
    return {
        "bench": "replicas",
        **figures,
        **judge(figures, BOUNDS, void=void),
        "under_bound": affine.under_bound,
        "events": {
            event: {
                "recovery_seconds": recoveries[event],
                "hit_rate_before": found[event].rate_before(),
                "least_hit_rate": found[event].least_rate(),
                "tenants_moved": moves[event][1],
                "settled_seconds": round(found[event].settled - found[event].happened, 2),
                "tried_again": sum(request.tries > 1 for request in found[event].requests),
            }
            for event in EVENTS
        },
        "hot_tenant": busy.describe(),
        "busiest": busy.busiest.describe(),
        "light_parts": [round(part, 3) for part in replica_parts(lightly, names[0])],
        "runs": {name: describe(run) for name, run in runs.items()},
        "settings": {
            "tenants": tenants,
            "replicas": replicas,
            "seconds": seconds,
            "load_share": load_share,
            "capacity_rps": round(capacity, 1),
        },
        "machine": describe_machine(),
    }


def publish_alike(stage: Stage, names: Sequence[str]) -> int:
    """Have each of these tenants served by a model of its own; the bytes of all models together."""
    fleet = stage.models(len(names))
    models = fleet.make((name, "m") for name in names)
    fleet.publish(stage.put, models)
    write_catalogues(stage.put, dict.fromkeys(names, fleet.catalogue(["m"])))
    update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models})
    os.sync()
    return len(names) * fleet.model_bytes


@dataclass(frozen=True, slots=True)
class _Event:
    """What happened when, and what came of it."""

    happened: float
    settled: float
    hits: Hits
    requests: Sequence[Request]

    def _rates(self, *, after: bool) -> list[tuple[float, float]]:
        return [
            (at, hits / (hits + misses))
            for at, hits, misses in self.hits.samples
            if hits + misses and (at >= self.happened) == after
        ]

    def rate_before(self) -> float | None:
        """The hit rate until it happened."""
        before = self._rates(after=False)
        return round(sum(rate for _, rate in before) / len(before), 4) if before else None

    def least_rate(self) -> float | None:
        """The lowest afterwards, of half a second."""
        after = self._rates(after=True)
        return round(min(rate for _, rate in after), 4) if after else None

    def recovery_seconds(self) -> float | None:
        """Until the hit rate was at 95 % of what it was before, and stayed there; None where it did not."""
        before, after = self.rate_before(), self._rates(after=True)
        if before is None or not after:
            return None
        low = [at for at, rate in after if rate < _RECOVERED * before]
        if low and low[-1] == after[-1][0]:
            return None
        return round(low[-1] + SAMPLE_SECONDS - self.happened, 2) if low else 0.0


@contextlib.contextmanager
def _serving(stage: Stage, replicas: int, *, memory_bytes: int) -> Iterator[Group]:
    log = stage.folder / "envoy.log"
    arguments = ["--replicas", f"{replicas}..{replicas + 1}", "--separate-disks", "--access-log", str(log)]
    settings = {
        "memory_bytes": memory_bytes,
        "preload": "share",
        "fleet_poll_seconds": 1,
        # A busy tenant is to fill its replica, and not to be refused for having had its part: of requests under way, and of
        # the queue, where a quarter is a tenant's (eight batches of the default, less than a tenth of a second's).
        "tenant_concurrency": 1024,
        "max_queue": 4096,
    }
    with stage.server(settings, arguments=arguments) as server:
        yield Group(server, log, replicas)


def _during(
    group: Group,
    load: TenantLoad,
    rate: float,
    shares: np.ndarray[Any, np.dtype[np.float64]],
    happen: Callable[[], None],
    *,
    around: float = _AROUND_SECONDS,
) -> tuple[Samples, list[Request]]:
    """Open-loop load while something happens, in pieces as long as it takes; and the proxy's log of that time."""
    began = time.time()
    failures: list[BaseException] = []
    done = threading.Event()

    def play() -> None:
        try:
            time.sleep(around)
            happen()
            time.sleep(around)
        except BaseException as problem:  # noqa: BLE001  # raised below, where the run is
            failures.append(problem)
        finally:
            done.set()

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    pieces = []
    while not done.is_set():
        with running(load.offered(shares, rate=rate, seconds=_AROUND_SECONDS)) as run:
            pieces.append(run.result())
    thread.join()
    if failures:
        raise failures[0]
    return joined(pieces), group.requests(began, time.time())


def _moves(
    event: str, found: _Event, owners: Mapping[str, str], group: Group, names: Sequence[str], replicas: int
) -> tuple[list[str], int]:
    """Tenants that moved although the replica that went or came was none of theirs; and how many moved."""
    before = usual_server(request for request in found.requests if request.began < found.happened)
    if event == "killed":
        # While it was away: it is not asked again before it is ready.
        after = usual_server(
            request for request in found.requests if found.happened + 1 <= request.began < found.settled
        )
        theirs = {name for name in names if owners[name] == group.server_of(0)}
    else:
        after = usual_server(request for request in found.requests if request.began >= found.settled + 1)
        larger = group.owners(names, range(replicas + 1))
        theirs = {name for name in names if larger[name] == group.server_of(replicas)}
    moved = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    return sorted(moved - theirs), len(moved)
