"""Envoy's ring: which replica a tenant's requests go to, computed as Envoy computes it.

The policy is `envoy.load_balancing_policies.ring_hash` ("ketama" with xxHash64). Every replica has a key, which is
`hash_key` in its endpoint's metadata `envoy.lb`, or `host:port` where it has none. It stands on the ring at the hashes of
`key_0`, `key_1` and so on, equally often as the others, and a tenant belongs to the first replica at or after the hash of
its name. Envoy 1.40, `source/extensions/load_balancing_policies/ring_hash/ring_hash_lb.cc`; `tests/serving/test_ring.py`
holds this to a real one.

**Places that stay.** Envoy's smallest ring is a number of places of all replicas together. When one of three leaves, each of the
others has half as many places again, and a sixth of *their* tenants move as well. So our configuration gives every replica
the weight `PLACES`, and has one more endpoint of weight 1, the anchor, which always counts as healthy: the least weight then
stands for one place, and a replica for `PLACES`, however many there are. `replica_ring` is that ring. What falls to the
anchor (one tenant in thousands, and some of what is above a bound) goes on to any replica.

A replica that is at its bound (`hash_balance_factor`) passes requests on to others, which this does not know of: it is
about load at that moment.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from registry.errors import InvalidInput

# Of each replica. The more, the more alike are their shares: these vary by 1.6 % (one over the root). Envoy makes the ring
# anew whenever a replica comes or goes.
PLACES = 4096
# Of all together at least, which counts where there is no anchor; and at most, which is Envoy's own bound.
LEAST_PLACES = PLACES
MOST_PLACES = 8_388_608
ANCHOR = "anchor"
# Places that a walk looks at together.
_STRIDE = 64


class Ring:
    """The ring of healthy replicas.

    Args:
        keys: of the replicas, in the order of Envoy's endpoints.
        weights: of them; None is the same for all.
        least_places: Envoy's `minimum_ring_size`, and `most_places` its `maximum_ring_size`.

    Raises:
        InvalidInput: two replicas have one key, there is an empty one, or the weights are not as many or not positive.
    """

    def __init__(
        self,
        keys: Sequence[str],
        *,
        weights: Sequence[int] | None = None,
        least_places: int = LEAST_PLACES,
        most_places: int = MOST_PLACES,
    ) -> None:
        self.keys = tuple(keys)
        if len(set(self.keys)) < len(self.keys) or "" in self.keys:
            raise InvalidInput("the keys of replicas are not different from each other", remedy="Name each one once.")
        given = [1] * len(self.keys) if weights is None else list(weights)
        if len(given) != len(self.keys) or any(weight < 1 for weight in given):
            raise InvalidInput("every replica has a weight of at least 1", remedy="Give as many as there are keys.")
        hashes, owners = _places(self.keys, given, least_places, most_places)
        order = np.argsort(hashes, kind="stable")
        self._hashes: NDArray[np.uint64] = hashes[order]
        self._owners: NDArray[np.int32] = owners[order]

    def owner(self, tenant: str) -> str:
        """The key of a tenant's replica. Raises InvalidInput where there is no replica."""
        return self.owners([tenant])[0]

    def owners(self, tenants: Collection[str]) -> list[str]:
        """The keys of several tenants' replicas, in their order. Raises InvalidInput where there is no replica."""
        if not self.keys:
            raise InvalidInput("there is no replica on the ring", remedy="Start one.")
        hashes = np.fromiter((tenant_hash(tenant) for tenant in tenants), np.uint64, len(tenants))
        # The first place at or after a hash; after the last one the ring begins again.
        places = np.searchsorted(self._hashes, hashes, side="left") % len(self._hashes)
        return [self.keys[owner] for owner in self._owners[places]]

    def walk(self, tenant: str) -> Iterator[str]:
        """The keys of all replicas in the order in which they stand on the ring from a tenant's hash on, each once."""
        first = int(np.searchsorted(self._hashes, np.uint64(tenant_hash(tenant)), side="left"))
        end = first + len(self._owners)
        seen: set[int] = set()
        for start in range(first, end, _STRIDE):  # mostly the first few are asked for, of millions of places
            places = np.arange(start, min(start + _STRIDE, end)) % len(self._owners)
            for owner in self._owners[places].tolist():
                if owner not in seen:
                    seen.add(owner)
                    yield self.keys[owner]

    def share(self, key: str, tenants: Iterable[str]) -> list[str]:
        """Those of the tenants that belong to a replica, in their order."""
        names = list(tenants)
        return [tenant for tenant, owner in zip(names, self.owners(names), strict=True) if owner == key]


def replica_ring(keys: Sequence[str]) -> Ring:
    """The ring of our configuration: every replica has `PLACES` places, whoever else is there, and the anchor has one.

    Args:
        keys: of the replicas. `ANCHOR` owns the few tenants that belong to nobody.
    """
    if not keys:
        return Ring([])
    return Ring([ANCHOR, *keys], weights=[1, *[PLACES] * len(keys)])


def tenant_hash(tenant: str) -> int:
    """What Envoy makes of the header value that its route's hash policy extracts: the tenant's name as it is in the path."""
    return xxhash.xxh64_intdigest(tenant.encode())


def _places(
    keys: Sequence[str], weights: Sequence[int], least: int, most: int
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    hashes: list[int] = []
    owners: list[int] = []
    if keys:
        parts = [weight * 1.0 / sum(weights) for weight in weights]
        smallest = min(1.0, *parts)
        scale = min(math.ceil(smallest * least) / smallest, float(most))
        # Envoy's running sum: where the places do not go up evenly, it decides who has one more.
        wanted = 0.0
        for owner, (key, part) in enumerate(zip(keys, parts, strict=True)):
            wanted += scale * part
            number = 0
            while len(hashes) < wanted:
                hashes.append(xxhash.xxh64_intdigest(f"{key}_{number}".encode()))
                owners.append(owner)
                number += 1
    return np.array(hashes, np.uint64), np.array(owners, np.int32)
