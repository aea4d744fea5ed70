"""Which replica a request goes to: the ring, and what happens at a bound.

Requests under way are the load. Three rules:

- `ring`: a tenant's replica, whatever its load.
- `walk`: at most ⌈(1 + ε)·mean⌉, the request itself counted; what is above goes on around the ring. Mirrokni, Thorup and
  Zadimoghaddam 2018, "Consistent Hashing with Bounded Loads", arXiv:1608.01350.
- `envoy`: as `BoundedLoadHashingLoadBalancer` of Envoy (source/extensions/load_balancing_policies/common/
  thread_aware_lb_impl.cc) does it: a replica above `factor` per cent of the mean is passed over for others in an order
  shuffled from the tenant's hash, and where all are above, the least loaded is taken. It looks before the request counts, so a
  replica may have one more than its slots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from serving.proxy.ring import Ring, replica_ring, tenant_hash

_ANCHOR = -1
Rule = Literal["ring", "walk", "envoy"]
#: A tenant's place among the names, its replica, requests under way by replica, and of all together, give the replica.
Choose = Callable[[int, int, list[int], int], int]


class Balancer:
    """Chooses replicas for requests; one is made anew whenever the set of replicas changes.

    Args:
        rule: see above.
        alive: places of the replicas that are there.
        keys: of all replicas on Envoy's ring, by place.
        names: of the tenants, by place.
        factor: per cent of the mean that a replica may have; 150 is an ε of a half.
        ring_places: None is the ring of our configuration, whose replicas keep their places (`serving.proxy.ring`); a number is
            plain Envoy's, with so many places of all together.

    Attributes:
        owners: of each tenant, its replica.
    """

    def __init__(
        self,
        rule: Rule,
        *,
        alive: Sequence[int],
        keys: Sequence[str],
        names: Sequence[str],
        factor: int,
        ring_places: int | None,
    ) -> None:
        self._alive = list(alive)
        self._names = names
        self._factor = factor
        self._weight = 1.0 / len(self._alive)
        self._place = {keys[replica]: replica for replica in self._alive}
        there = [keys[replica] for replica in self._alive]
        anchored = ring_places is None
        # Hosts as Envoy counts them: what it gives to the anchor goes on to a replica.
        self._hosts = [_ANCHOR, *self._alive] if anchored else self._alive
        self.ring = (
            replica_ring(there)
            if ring_places is None
            else Ring(there, least_places=ring_places, most_places=ring_places)
        )
        owners = self.ring.owners(names)
        self.owners: list[int] = [
            self._place[key] if key in self._place else next(self._walked(name))
            for key, name in zip(owners, names, strict=True)
        ]
        self._orders: dict[int, _Order] = {}
        rules: dict[Rule, Choose] = {"ring": self._ring, "walk": self._walk, "envoy": self._envoy}
        self.choose: Choose = rules[rule]

    def bound(self, total: int) -> int:
        """Requests that a replica may have under way after one more came, by the rule `walk`."""
        return -(-(total + 1) * self._factor // (100 * len(self._alive)))

    def slots(self, total: int) -> int:
        """Requests that a replica may have under way before Envoy passes it over."""
        all_slots = ((total + 1) * self._factor + 99) // 100
        return max(math.ceil(all_slots * self._weight), 1)

    def _walked(self, name: str) -> Iterator[int]:
        return (self._place[key] for key in self.ring.walk(name) if key in self._place)

    def _ring(self, tenant: int, owner: int, active: list[int], total: int) -> int:  # noqa: ARG002  # a rule's
        return owner

    def _walk(self, tenant: int, owner: int, active: list[int], total: int) -> int:
        bound = self.bound(total)
        if active[owner] < bound:
            return owner
        order = self._orders.get(tenant)
        if order is None:
            order = self._orders[tenant] = _Order(self._walked(self._names[tenant]))
        # There is room: were all at the bound, they would have more than the requests that are under way.
        return next(replica for replica in order if active[replica] < bound)

    def _envoy(self, tenant: int, owner: int, active: list[int], total: int) -> int:
        slots = self.slots(total)
        if active[owner] <= slots:
            return owner
        order = self._orders.get(tenant)
        if order is None:
            hosts = shuffled(self._hosts, tenant_hash(self._names[tenant]))
            order = self._orders[tenant] = _Order(host for host in hosts if host != _ANCHOR)
        least = owner
        for replica in order:
            if active[replica] <= slots:
                return replica
            if active[replica] < active[least]:
                least = replica
        return least


class _Order:
    """An order of replicas that is worked out only as far as somebody asks, and remembered."""

    __slots__ = ("_found", "_rest")

    def __init__(self, rest: Iterator[int]) -> None:
        self._found: list[int] = []
        self._rest = rest

    def __iter__(self) -> Iterator[int]:
        place = 0
        while True:
            if place == len(self._found):
                following = next(self._rest, None)
                if following is None:
                    return
                self._found.append(following)
            yield self._found[place]
            place += 1


def shuffled(alive: Sequence[int], seed: int) -> Iterator[int]:
    """Envoy's order of hosts for a hash: Fisher and Yates's shuffle by std::mt19937, a host at a time."""
    # A Mersenne twister seeded with one number, as the C++ standard has it, and its 32-bit numbers as they come.
    twister = np.random.RandomState(seed & 0xFFFFFFFF)

    def draw(below: int) -> int:
        width = 2**32 // below
        while True:
            found = int(twister.randint(0, 2**32, dtype=np.uint32)) // width
            if found < below:
                return found

    # Only the places that were swapped: seldom more than a few hosts of a thousand are asked for.
    swapped: dict[int, int] = {}
    for place in range(len(alive)):
        other = place + draw(len(alive) - place)
        found = swapped.get(other, other)
        swapped[other] = swapped.get(place, place)
        yield alive[found]
