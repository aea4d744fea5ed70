"""What the proxy's log tells: which replica each request went to, and whether its tenant's own could have taken it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.proxy.settings import BALANCE_PERCENT

# The log has times to the microsecond, but Envoy looks at its counts a moment after a request's beginning.
_TOLERANCE_SECONDS = 0.001
_PREFIX = "/v1/tenants/"


@dataclass(frozen=True, slots=True)
class Request:
    """One request for suggestions, as the proxy saw it. Times are seconds since the epoch."""

    tenant: str
    began: float
    ended: float
    status: int
    server: str
    tries: int


def read_log(path: Path) -> list[Request]:
    """Requests for suggestions, in the order in which they began. A line that is not whole yet is left out."""
    found = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        entry = json.loads(line)
        tenant = str(entry["path"]).removeprefix(_PREFIX).partition("/")[0]
        if not str(entry["path"]).startswith(_PREFIX):
            continue
        began = datetime.fromisoformat(entry["time"]).timestamp()
        ended = began + int(entry["microseconds"] or 0) / 1e6
        found.append(
            Request(tenant, began, ended, int(entry["status"]), str(entry["server"]), int(entry["tries"] or 0))
        )
    return sorted(found, key=lambda request: request.began)


@dataclass(frozen=True, slots=True)
class Affinity:
    """Requests whose tenant's replica was certainly under its bound, and how many of them went there."""

    under_bound: int
    kept: int

    @property
    def share(self) -> float | None:
        """Of the requests, which share went to the tenant's replica; None without requests."""
        return self.kept / self.under_bound if self.under_bound else None


def affinity(requests: Iterable[Request], owners: Mapping[str, str], *, servers: int) -> Affinity:
    """How well tenants kept to their replicas.

    The bound is Envoy's: of all requests under way, and one more, `BALANCE_PERCENT` of the mean of a replica. What was
    under way when a request began is counted to the replica's disadvantage within a millisecond.

    Args:
        requests: of a time in which nothing came or went.
        owners: the server of each tenant, as the log names it.
        servers: how many there are.
    """
    known = list(requests)
    began = np.array([request.began for request in known])
    ended = np.array([request.ended for request in known])
    server_of = np.array([request.server for request in known])
    least = _under_way(began + _TOLERANCE_SECONDS, ended - _TOLERANCE_SECONDS, began)
    slots = np.maximum(np.ceil(((least + 1) * BALANCE_PERCENT + 99) // 100 / servers), 1)
    most = {}
    for server in set(owners.values()):
        its = server_of == server
        most[server] = _under_way(began[its] - _TOLERANCE_SECONDS, ended[its] + _TOLERANCE_SECONDS, began)
    under_bound = kept = 0
    for place, request in enumerate(known):
        owner = owners[request.tenant]
        others = most[owner][place] - (request.server == owner)  # without itself
        if others <= slots[place]:
            under_bound += 1
            kept += request.server == owner
    return Affinity(under_bound, kept)


def _under_way(began: NDArray[np.float64], ended: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of these are under way at each of these times."""
    good = ended > began
    starts, ends = np.sort(began[good]), np.sort(ended[good])
    return np.searchsorted(starts, at, side="right") - np.searchsorted(ends, at, side="right")


def usual_server(requests: Iterable[Request]) -> dict[str, str]:
    """Where most of each tenant's requests went."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for request in requests:
        counts[request.tenant][request.server] += 1
    return {tenant: servers.most_common(1)[0][0] for tenant, servers in counts.items()}
