"""Recent traffic by tenant: what preloading goes by, and what decides who stays in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Mapping

# Weights grow by two to this power before they are scaled down: far from the end of a double's range.
_MOST_HALF_LIVES = 200.0


class Traffic:
    """Requests by tenant, each worth half after a half-life.

    Exact, not a sketch: a fleet has thousands of tenants, not millions of keys. The decay runs forward (Cormode et al.
    2009, "Forward decay", ICDE): a newer request counts more and old ones are left alone, so that counting is one
    addition and comparing needs no arithmetic at all.

    Args:
        half_life_seconds: after which a request counts half.
        clock: seconds, never backwards.
    """

    def __init__(self, *, half_life_seconds: float = 600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._half_life = half_life_seconds
        self._clock = clock
        self._landmark = clock()
        self._weights: dict[str, float] = {}

    def count(self, tenant: str) -> None:
        """A request of a tenant."""
        growth = self._growth()  # first, since it may scale what is there
        self._weights[tenant] = self._weights.get(tenant, 0.0) + growth

    def weight(self, tenant: str) -> float:
        """For comparing tenants with each other now; 0 for one never seen."""
        return self._weights.get(tenant, 0.0)

    def requests(self) -> dict[str, float]:
        """Decayed requests by tenant, the busiest first; always above 0, since what has faded to nothing is left out."""
        growth = self._growth()
        ranked = sorted(self._weights.items(), key=lambda item: (-item[1], item[0]))
        return {tenant: left for tenant, weight in ranked if (left := weight / growth) > 0.0}

    def restore(self, requests: Mapping[str, float]) -> None:
        """Add what another process counted; what is not a positive number is left out."""
        growth = self._growth()
        for tenant, weight in requests.items():
            if math.isfinite(weight) and weight > 0:
                self._weights[tenant] = self._weights.get(tenant, 0.0) + weight * growth

    def forget_all_but(self, tenants: Container[str]) -> bool:
        """Drop tenants that are not in the fleet any more. Returns whether there were any."""
        before = len(self._weights)
        self._weights = {tenant: weight for tenant, weight in self._weights.items() if tenant in tenants}
        return len(self._weights) < before

    def _growth(self) -> float:
        """What a request of this moment weighs."""
        now = self._clock()
        half_lives = (now - self._landmark) / self._half_life
        if half_lives > _MOST_HALF_LIVES:
            shrink = 2.0**-half_lives
            self._weights = {tenant: weight * shrink for tenant, weight in self._weights.items()}
            self._landmark, half_lives = now, 0.0
        return float(2.0**half_lives)
