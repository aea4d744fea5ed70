"""Who may come in: each tenant's share, and how many models are fetched for requests in a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from registry.errors import TenantThrottled, TooManyLoads
from registry.fleet.state import TenantLimits

_REMEDY = "Ask less often, or raise its limits (`macrofleet fleet limit`)."
_NO_LIMITS = TenantLimits()
_SMALL_BURST = 10.0
_BURST_SECONDS = 0.25
_ROUNDING_SECONDS = 1e-9


class Admission:
    """Bounds each tenant's requests under way and per second. Owned by one event loop.

    The rate is a virtual schedule (GCRA, ITU-T I.371), of which a tenant may be ahead by its burst, see `burst_of`.

    Args:
        concurrency: of a tenant whose limits do not say.
        requests_per_second: the same; None is no bound.
        clock: seconds, never backwards.
    """

    def __init__(
        self, *, concurrency: int, requests_per_second: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._concurrency = concurrency
        self._rate = requests_per_second
        self._clock = clock
        self._under_way: dict[str, int] = {}
        # By tenant, when its next request would be due if all had come evenly; only of tenants with a rate.
        self._due: dict[str, float] = {}

    def ask(self, tenant: str, limits: TenantLimits | None) -> None:
        """A request of a known tenant has come: count it against the rate. Nothing is under way yet.

        Raises:
            TenantThrottled: the tenant is over one of its limits.
        """
        limits = limits or _NO_LIMITS
        self._check_concurrency(tenant, limits)
        rate = limits.requests_per_second or self._rate
        if rate is not None:
            self._keep_to(tenant, rate)

    def enter(self, tenant: str, limits: TenantLimits | None) -> Admitted:
        """Count a request that was asked for as under way, until the context that is returned ends.

        Raises:
            TenantThrottled: others came first.
        """
        under_way = self._check_concurrency(tenant, limits or _NO_LIMITS)
        self._under_way[tenant] = under_way + 1
        return Admitted(self._under_way, tenant)

    def _check_concurrency(self, tenant: str, limits: TenantLimits) -> int:
        under_way = self._under_way.get(tenant, 0)
        if under_way >= (limits.concurrency or self._concurrency):
            raise TenantThrottled(
                f"{under_way} requests of tenant {tenant} are under way", bound="tenant_concurrency", remedy=_REMEDY
            )
        return under_way

    def forget_idle(self) -> None:
        """Drop what no longer matters: tenants that are not ahead of their rate."""
        now = self._clock()
        self._due = {tenant: due for tenant, due in self._due.items() if due > now}

    def _keep_to(self, tenant: str, rate: float) -> None:
        now = self._clock()
        burst = burst_of(rate)
        # No further ahead than this rate lets anybody be: what a lower one left behind when it was raised is over.
        due = min(max(self._due.get(tenant, now), now), now + burst / rate)
        # The first of a burst is due now.
        ahead = due - now - (burst - 1.0) / rate
        if ahead > _ROUNDING_SECONDS:
            self._due[tenant] = due
            raise TenantThrottled(
                f"tenant {tenant} asks more than {rate:g} times a second",
                bound="tenant_rate",
                retry_after_seconds=ahead,
                remedy=_REMEDY,
            )
        self._due[tenant] = due + 1.0 / rate


def burst_of(rate: float) -> float:
    """How many requests may come at once under a rate a second: its second's worth up to ten, then a quarter of that.

    People do not come evenly, and few of them a second less so. A tenant of hundreds a second that begins to rush would
    have the whole server for as long as it takes to answer its burst.
    """
    return max(1.0, min(rate, max(_SMALL_BURST, rate * _BURST_SECONDS)))


class Admitted:
    """A context: the request is under way until it ends. `contextlib` would make one for three times the time."""

    __slots__ = ("_tenant", "_under_way")

    def __init__(self, under_way: dict[str, int], tenant: str) -> None:
        self._under_way = under_way
        self._tenant = tenant

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        left = self._under_way[self._tenant] - 1
        if left:
            self._under_way[self._tenant] = left
        else:
            del self._under_way[self._tenant]


class Pacer:
    """Spaces out work that may come in bursts, first come, first served. Owned by one event loop.

    Args:
        per_second: how much may start in a second; a second's worth may start at once.
        longest_wait_seconds: whoever would wait longer is refused.
        clock: seconds, never backwards.
    """

    def __init__(
        self, *, per_second: float, longest_wait_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = 1.0 / per_second
        self._burst = max(1.0 - self._interval, 0.0)
        self._longest = longest_wait_seconds
        self._clock = clock
        self._due = clock()

    def reserve(self) -> float:
        """Seconds to wait before starting.

        Raises:
            TooManyLoads: more than the longest wait; nothing is reserved.
        """
        now = self._clock()
        due = max(self._due, now)
        wait = max(due - now - self._burst, 0.0)
        if wait > self._longest:
            raise TooManyLoads("too many models are being fetched from the store", remedy="Try again in a second.")
        self._due = due + self._interval
        return wait
