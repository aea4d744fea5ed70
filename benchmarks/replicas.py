"""`macrofleet bench replicas`: several servers behind Envoy, and what callers notice when one dies, comes or goes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.client import Operator, total
from benchmarks.fleets import serve, tenant_names, write_catalogues
from benchmarks.load import Samples, describe, joined, percentiles, running
from benchmarks.machine import describe_machine
from benchmarks.proxy_log import Request, affinity, read_log, usual_server
from benchmarks.stage import Stage, TenantLoad, measured_capacity, staged
from benchmarks.verdicts import Bound, judge
from flows.local_server import LocalServer
from registry.console_output import Step
from registry.fleet import update_fleet
from serving.replica_addresses import ring_key
from serving.ring import ANCHOR, replica_ring

EVENTS = ("killed", "added", "drained")
BOUNDS = {
    "affinity": Bound(at_least=0.99),
    "failed": Bound(at_most=0),
    "moved_without_need": Bound(at_most=0),
    "slowest_recovery_seconds": Bound(at_most=30),
    "hot_replicas": Bound(at_least=2),
    "deploy_p99_ratio": Bound(at_most=2),
}
# Of the requests of the busy tenant, what share a replica must have had to count.
_PART = 0.05
_HOT, _NEIGHBOURS = 10, 9
_HOT_LOAD = 0.5
_RECOVERED = 0.95
_SAMPLE_SECONDS = 0.5
_WAIT_SECONDS = 180.0
_POLL_SECONDS = 0.05
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
        `hot_replicas`: how many had a part in the requests of a tenant with ten times the traffic of the others;
        `deploy_p99_ratio`: p99 while all were restarted to p99 when nothing happened.
    """
    names = tenant_names(tenants)
    shares = np.full(tenants, 1 / tenants)
    with staged(step, models_at_rest=(replicas + 2) * tenants) as stage:
        step(f"publishing {tenants} models", 0.05)
        fleet = stage.models(tenants)
        models = fleet.make((name, "m") for name in names)
        fleet.publish(stage.put, models)
        write_catalogues(stage.put, dict.fromkeys(names, fleet.catalogue(["m"])))
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models})
        os.sync()
        step("starting the replicas", 0.1)
        with _serving(stage, replicas, memory_bytes=2 * tenants * fleet.model_bytes) as group:
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
            step("one tenant with ten times the traffic of the others", 0.7)
            # Of ten tenants the busy one has half of the requests, and its replica two thirds: more than its bound.
            weights = np.concatenate([[_HOT], np.ones(_NEIGHBOURS), np.zeros(tenants - 1 - _NEIGHBOURS)])
            busy = _HOT_LOAD * capacity
            runs["hot"], hot = _during(
                group, load, busy, weights / weights.sum(), lambda: time.sleep(seconds), around=0.0
            )
            step("a rolling deploy", 0.8)
            runs["deploy"], _ = _during(group, load, rate, shares, group.deploy)
            step("quiet again", 0.95)
            again, _ = _during(group, load, rate, shares, lambda: time.sleep(seconds), around=0.0)
    runs["quiet"] = joined([first, again])
    p99 = {name: percentiles(run.latency[run.status == 200])["p99_ms"] for name, run in runs.items()}
    moves = {event: _moves(event, found[event], owners, group, names, replicas) for event in EVENTS}
    recoveries = {event: found[event].recovery_seconds() for event in EVENTS}
    parts = _parts(hot, names[0])
    slowest = (
        None if None in recoveries.values() else max(seconds for seconds in recoveries.values() if seconds is not None)
    )
    figures = {
        "affinity": None if affine.share is None else round(affine.share, 4),
        "failed": sum(int((run.status != 200).sum()) for run in runs.values()),
        "moved_without_need": sum(len(moved) for moved, _ in moves.values()),
        "slowest_recovery_seconds": slowest,
        "hot_replicas": sum(part >= _PART for part in parts),
        "deploy_p99_ratio": round(p99["deploy"] / p99["quiet"], 2),
    }
    void = [*stage.cores.void]
    if not all(run.kept_schedule for run in runs.values()):
        void.append("the generator was late")
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
        "hot_parts": [round(part, 3) for part in parts],
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


@dataclass(slots=True)
class _Hits:
    """What all replicas together found in memory, and what not, since the sample before; times are of `time.time`."""

    samples: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Event:
    """What happened when, and what came of it."""

    happened: float
    settled: float
    hits: _Hits
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
        return round(low[-1] + _SAMPLE_SECONDS - self.happened, 2) if low else 0.0


class _Group:
    """Envoy and its replicas."""

    def __init__(self, server: LocalServer, log: Path, replicas: int) -> None:
        self.url = server.url
        self.happened = self.settled = 0.0
        self._server = server
        self._log = log
        self._least = replicas
        self._ports: dict[int, int] = {}
        self.wait_for(replicas)

    def owners(self, names: Sequence[str], numbers: Sequence[int] | range) -> dict[str, str]:
        """Each tenant's server by the ring of these replicas, as the log names it."""
        ring = replica_ring([ring_key(number) for number in numbers])
        servers = {ring_key(number): f"127.0.0.1:{self._ports[number]}" for number in numbers} | {ANCHOR: ""}
        return {name: servers[owner] for name, owner in zip(names, ring.owners(names), strict=True)}

    def server_of(self, number: int) -> str:
        """A replica, as the log names it."""
        return f"127.0.0.1:{self._ports[number]}"

    def requests(self, since: float, until: float) -> list[Request]:
        """What the proxy's log has of a time; it is written once a second."""
        time.sleep(1.5)
        return [request for request in read_log(self._log) if since <= request.began < until]

    def wait_for(self, replicas: int) -> None:
        """Until so many are ready, and their addresses known."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            addresses = self._server.addresses[1:]
            if len(addresses) == replicas and all(_is_ready(operator) for _, operator in addresses):
                self._ports |= {number: int(public.rpartition(":")[2]) for number, (public, _) in enumerate(addresses)}
                return
            time.sleep(_POLL_SECONDS)
        raise RuntimeError(f"there are no {replicas} replicas that are ready; the log is {self._server.log}")

    def kill(self, number: int) -> None:
        """SIGKILL, and wait until another process has taken its place."""
        started = self._started(number)
        self.happened = time.time()
        os.kill(started[-1], signal.SIGKILL)
        self._until(lambda: len(self._started(number)) > len(started))
        self.wait_for(self._least)
        self.settled = time.time()

    def add(self) -> None:
        """One more than there were; it has come when it is ready, for it is asked from then on."""
        os.kill(self._server.pid, signal.SIGTTIN)
        self.wait_for(self._least + 1)
        self.happened = self.settled = time.time()

    def drain(self) -> None:
        """That one leaves again."""
        self.happened = time.time()
        os.kill(self._server.pid, signal.SIGTTOU)
        self._until(lambda: len(self._server.addresses[1:]) == self._least)
        self.settled = time.time()

    def deploy(self) -> None:
        """Restart all, one by one."""
        self.happened = time.time()
        os.kill(self._server.pid, signal.SIGHUP)
        self._until(lambda: bool(self._lines("all replicas were restarted")))
        self.settled = time.time()

    @contextlib.contextmanager
    def watched(self) -> Iterator[_Hits]:
        """Count hits and misses of all replicas in a thread, twice a second."""
        found, stop = _Hits(), threading.Event()

        def watch() -> None:
            known: dict[str, tuple[float, float]] = {}
            while not stop.wait(_SAMPLE_SECONDS):
                hits = misses = 0.0
                for _, operator in self._server.addresses[1:]:
                    now = _counted(operator)
                    if now is None:
                        known.pop(operator, None)
                        continue
                    # A process that is new has counted from nothing.
                    before = known.get(operator, (0.0, 0.0) if known else now)
                    before = before if before[0] <= now[0] else (0.0, 0.0)
                    known[operator] = now
                    hits, misses = hits + now[0] - before[0], misses + now[1] - before[1]
                found.samples.append((time.time(), hits, misses))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            stop.set()
            thread.join()

    def _started(self, number: int) -> list[int]:
        return [int(line["pid"]) for line in self._lines("started a replica") if line["replica"] == number]

    def _lines(self, message: str) -> list[dict[str, Any]]:
        lines = self._server.log.read_text().splitlines()
        return [json.loads(line) for line in lines if f'"message": "{message}"' in line]

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the replicas did not do what they were told; the log is {self._server.log}")
            time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _serving(stage: Stage, replicas: int, *, memory_bytes: int) -> Iterator[_Group]:
    log = stage.folder / "envoy.log"
    arguments = ["--replicas", f"{replicas}..{replicas + 1}", "--separate-disks", "--access-log", str(log)]
    settings = {"memory_bytes": memory_bytes, "preload": "share", "fleet_poll_seconds": 1}
    with stage.server(settings, arguments=arguments) as server:
        yield _Group(server, log, replicas)


def _during(
    group: _Group,
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
    event: str, found: _Event, owners: Mapping[str, str], group: _Group, names: Sequence[str], replicas: int
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


def _parts(requests: Sequence[Request], tenant: str) -> list[float]:
    """The replicas' parts in a tenant's requests, the largest first."""
    servers = [request.server for request in requests if request.tenant == tenant]
    return sorted((servers.count(server) / len(servers) for server in set(servers)), reverse=True)


def _counted(operator: str) -> tuple[float, float] | None:
    """Requests whose model was in memory, and whose was not; None while nobody answers."""
    try:
        metrics = Operator(operator).metrics()
    except OSError:
        return None
    hits = total(metrics, "macrofleet_cache_hits_total", tier="memory")
    return hits, total(metrics, "macrofleet_cache_hits_total") - hits


def _is_ready(operator: str) -> bool:
    try:
        return total(Operator(operator).metrics(), "macrofleet_ready") == 1
    except OSError:
        return False
