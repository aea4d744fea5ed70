"""The simulation: a heap of events over requests, loads and batches.

A replica is what was measured of one: a core that takes everything that waits as one batch (up to 32 tickets, a fixed cost
and one for each ticket), a memory tier with a budget, a disk tier, and loads from local disk or the store. A load waits for
the disk or the store, and then shares the core with the batch and with other loads, so that each is slower the more there
are. Requests for a model that is being loaded wait for that load.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.load import Floats, Integers
from benchmarks.simulation.balancing import Balancer, Rule
from benchmarks.simulation.cache import SimulatedCache
from benchmarks.simulation.core import SharedCore

_FETCHED, _DONE, _LOST = 0, 1, 2
# Of the tasks on a core, the one that is no load of a tenant's.
_BATCH = -1
_TELL_REQUESTS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """What a replica is like; times in seconds.

    Attributes:
        batch_seconds: of its core, for a batch of any size.
        ticket_seconds: of its core, for each ticket in it.
        most_tickets: in a batch.
        outside_seconds: of a request, on the way and not on the core.
        disk_seconds: to load a model that is on its disk, the median.
        store_seconds: to fetch and load one that is not, the median.
        disk_spread, store_spread: standard deviation of the logarithm of those; loads are log-normal.
        disk_core_seconds, store_core_seconds: the part of those that is the core's, if it has nothing else to do.
        model_bytes: of every model.
        memory_models: that its memory tier holds.
        disk_models: that its disk tier holds; None is all.
    """

    batch_seconds: float
    ticket_seconds: float
    most_tickets: int = 32
    outside_seconds: float = 0.0
    disk_seconds: float
    store_seconds: float
    disk_spread: float = 0.0
    store_spread: float = 0.0
    disk_core_seconds: float = 0.0
    store_core_seconds: float = 0.0
    model_bytes: float
    memory_models: float
    disk_models: float | None = None

    @property
    def rps(self) -> float:
        """Requests a second that fill its core, in full batches."""
        return self.most_tickets / (self.batch_seconds + self.most_tickets * self.ticket_seconds)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is simulated.

    Attributes:
        replica: what each is like.
        keys: of the replicas on the ring.
        names: of the tenants.
        at, places: when requests arrive, rising, and of which tenant.
        rule, factor, ring_places: see `benchmarks.simulation.balancing`.
        copies: of each tenant, how many replicas its requests are spread over in turn; None is one each.
        machines: of each replica, the machine it is on: those of one share its disk tier. None is one each.
        preload: whether every replica begins with its own tenants, on disk and as many as fit in memory, the busiest
            first.
        busiest: tenants by traffic, for `preload`; None is by their arrivals.
        lose: places of the replicas that are lost.
        seed: of how long each load takes.
        lose_at: when; what they had under way is sent again, to others.
    """

    replica: Replica
    keys: Sequence[str]
    names: Sequence[str]
    at: Floats = field(repr=False)
    places: Integers = field(repr=False)
    rule: Rule = "envoy"
    factor: int = 150
    ring_places: int | None = None
    copies: Integers | None = None
    machines: Sequence[int] | None = None
    preload: bool = True
    busiest: Sequence[int] | None = None
    lose: Sequence[int] = ()
    lose_at: float = float("inf")
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of every request, in order of arrival.

    Attributes:
        latency: seconds; NaN where it was never answered.
        replica: that answered.
        kind: "h" its model was in memory, "w" it waited for another's load, "d" loaded from disk, "s" from the store.
        away: whether it went to another replica than its tenant's.
        sent: how often it was sent; more than once where its replica was lost.
        loads: when, where from ("d" or "s"), of which tenant, to which replica.
        most_over_bound: by how many requests a replica was above its bound at most, when it was chosen.
        owners_before, owners_after: of each tenant, its replica before and after the loss.
    """

    latency: Floats
    replica: Integers
    kind: NDArray[np.str_]
    away: NDArray[np.bool_]
    sent: Integers
    loads: Sequence[tuple[float, Literal["d", "s"], int, int]]
    most_over_bound: int
    owners_before: Integers
    owners_after: Integers


class _Server:
    """A replica at work."""

    __slots__ = ("alive", "batch", "cache", "core", "disk", "loading", "plan", "queue", "wanted")

    def __init__(self, replica: Replica, disk: OrderedDict[int, None]) -> None:
        self.alive = True
        self.cache = SimulatedCache(replica.memory_models)
        self.disk = disk
        self.loading: dict[int, list[int]] = {}
        self.queue: deque[int] = deque()
        self.batch: list[int] = []
        self.core = SharedCore()
        self.wanted: dict[int, float] = {}  # seconds of the core, of loads that wait for disk or store
        self.plan = 0  # which of the core's announced ends holds: each change of its tasks makes another


class Simulation:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._replica = scenario.replica
        disks: defaultdict[int, OrderedDict[int, None]] = defaultdict(OrderedDict)
        machines = scenario.machines or range(len(scenario.keys))
        self._servers = [_Server(scenario.replica, disks[machine]) for machine in machines]
        self._active = [0] * len(self._servers)
        self._total = 0
        self._heap: list[tuple[float, int, int, int]] = []
        count = len(scenario.at)
        self._latency = [float("nan")] * count
        self._where = [-1] * count
        self._kind = ["-"] * count
        self._away = [False] * count
        self._sent = [0] * count
        self._loads: list[tuple[float, Literal["d", "s"], int, int]] = []
        self._most_over = 0
        self._random = random.Random(scenario.seed)  # a simulation
        self._turns = [0] * len(scenario.names)
        self._balance()
        self._owners_before = list(self._balancer.owners)

    def run(self, told: Callable[[float], None]) -> Outcome:
        """Simulate to the last answer; `told` hears the finished share now and then."""
        scenario = self._scenario
        if scenario.preload:
            self._preload()
        if scenario.lose:
            heapq.heappush(self._heap, (scenario.lose_at, _LOST, -1, -1))
        heap = self._heap
        places = scenario.places.tolist()
        for request, now in enumerate(scenario.at.tolist()):
            if not request % _TELL_REQUESTS:
                told(request / len(places))
            while heap and heap[0][0] <= now:
                self._happen(*heapq.heappop(heap))
            self._send(request, places[request], now)
        while heap:
            self._happen(*heapq.heappop(heap))
        return Outcome(
            latency=np.array(self._latency),
            replica=np.array(self._where),
            kind=np.array(self._kind),
            away=np.array(self._away),
            sent=np.array(self._sent),
            loads=self._loads,
            most_over_bound=self._most_over,
            owners_before=np.array(self._owners_before),
            owners_after=np.array(self._balancer.owners),
        )

    def _balance(self) -> None:
        scenario = self._scenario
        given = {
            "alive": [place for place, server in enumerate(self._servers) if server.alive],
            "keys": scenario.keys,
            "factor": scenario.factor,
            "ring_places": scenario.ring_places,
        }
        self._balancer = Balancer(scenario.rule, names=scenario.names, **given)  # type: ignore[arg-type]
        self._others: dict[int, list[int]] = {}
        if scenario.copies is not None:
            several = np.flatnonzero(scenario.copies > 1).tolist()
            names = [f"{scenario.names[each]}#{copy}" for each in several for copy in range(1, scenario.copies[each])]
            found = iter(Balancer("ring", names=names, **given).owners if names else ())  # type: ignore[arg-type]
            for each in several:
                owners = [self._balancer.owners[each], *(next(found) for _ in range(1, scenario.copies[each]))]
                self._others[each] = list(dict.fromkeys(owners))

    def _preload(self) -> None:
        scenario = self._scenario
        ranked = scenario.busiest
        if ranked is None:
            counts = np.bincount(scenario.places, minlength=len(scenario.names))
            ranked = np.argsort(-counts, kind="stable").tolist()
        theirs: list[list[int]] = [[] for _ in self._servers]
        for tenant in ranked:
            for owner in self._others.get(tenant, [self._balancer.owners[tenant]]):
                theirs[owner].append(tenant)
        for server, tenants in zip(self._servers, theirs, strict=True):
            server.cache.preload(tenants)
            for tenant in tenants:
                self._put_on_disk(server, tenant)

    def _put_on_disk(self, server: _Server, tenant: int) -> None:
        most = self._replica.disk_models
        server.disk[tenant] = None
        if most is not None and len(server.disk) > most:
            server.disk.popitem(last=False)

    def _send(self, request: int, tenant: int, now: float) -> None:
        balancer, active = self._balancer, self._active
        owner = balancer.owners[tenant]
        others = self._others.get(tenant)
        if others is not None:
            turn = self._turns[tenant] = self._turns[tenant] + 1
            owner = others[turn % len(others)]
        place = balancer.choose(tenant, owner, active, self._total)
        if place != owner:
            self._away[request] = True
        active[place] += 1
        if self._scenario.rule == "walk":
            over = active[place] - balancer.bound(self._total)
            self._most_over = max(self._most_over, over)
        self._total += 1
        self._where[request] = place
        self._sent[request] += 1
        server = self._servers[place]
        if server.cache.hit(tenant, now):
            self._kind[request] = "h"
            server.queue.append(request)
            if not server.batch:
                self._work(place, server, now)
        elif tenant in server.loading:
            self._kind[request] = "w"
            server.loading[tenant].append(request)
        else:
            self._load(request, tenant, place, server, now)

    def _load(self, request: int, tenant: int, place: int, server: _Server, now: float) -> None:
        replica = self._replica
        source: Literal["d", "s"] = "d" if tenant in server.disk else "s"
        self._kind[request] = source
        self._loads.append((now, source, tenant, place))
        server.loading[tenant] = [request]
        near = source == "d"
        seconds, spread, core_seconds = (
            (replica.disk_seconds, replica.disk_spread, replica.disk_core_seconds)
            if near
            else (replica.store_seconds, replica.store_spread, replica.store_core_seconds)
        )
        factor = self._random.lognormvariate(0.0, spread) if spread else 1.0
        server.wanted[tenant] = factor * core_seconds
        heapq.heappush(self._heap, (now + factor * (seconds - core_seconds), _FETCHED, place, tenant))

    def _happen(self, now: float, what: int, place: int, which: int) -> None:
        if what == _LOST:
            self._lose(now)
            return
        server = self._servers[place]
        if not server.alive:
            return
        if what == _FETCHED:
            server.core.add(now, server.wanted.pop(which), which)
        elif which != server.plan:
            return  # announced before something else came to the core
        elif (task := server.core.finish(now)) == _BATCH:
            self._answer(place, server, now)
        else:
            waiting = server.loading.pop(task)
            self._put_on_disk(server, task)
            server.cache.loaded(task, len(waiting), now)
            server.queue.extend(waiting)
        if server.queue and not server.batch:
            self._work(place, server, now)
        else:
            self._announce(place, server)

    def _answer(self, place: int, server: _Server, now: float) -> None:
        at, outside = self._scenario.at, self._replica.outside_seconds
        for request in server.batch:
            self._latency[request] = now + outside - float(at[request])
        self._active[place] -= len(server.batch)
        self._total -= len(server.batch)
        server.batch = []

    def _work(self, place: int, server: _Server, now: float) -> None:
        """Take what waits as a batch."""
        replica, queue = self._replica, server.queue
        server.batch = [queue.popleft() for _ in range(min(len(queue), replica.most_tickets))]
        server.core.add(now, replica.batch_seconds + len(server.batch) * replica.ticket_seconds, _BATCH)
        self._announce(place, server)

    def _announce(self, place: int, server: _Server) -> None:
        """When the core's next task ends, as things are now."""
        server.plan += 1
        if len(server.core):
            heapq.heappush(self._heap, (server.core.next_at(), _DONE, place, server.plan))

    def _lose(self, now: float) -> None:
        left: list[int] = []
        for place in self._scenario.lose:
            server = self._servers[place]
            server.alive = False
            under_way = [
                *server.batch,
                *server.queue,
                *(each for waiting in server.loading.values() for each in waiting),
            ]
            left.extend(under_way)
            self._total -= len(under_way)
            self._active[place] = 0
        self._balance()
        for request in sorted(left):
            self._send(request, int(self._scenario.places[request]), now)


def simulate(scenario: Scenario, told: Callable[[float], None] = lambda _: None) -> Outcome:
    """Simulate a scenario to its last answer.

    Args:
        told: hears the finished share, between 0 and 1, now and then.
    """
    return Simulation(scenario).run(told)
