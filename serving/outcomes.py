"""What becomes of requests, told to whoever counts it: metrics, trials, and the tenants that an operator names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from registry.errors import (
    DeadlineExceeded,
    LoadBackingOff,
    MacrofleetError,
    NotReady,
    OutOfResources,
    Overloaded,
    TenantThrottled,
    TooManyLoads,
)
from serving.errors import problem_for
from serving.fleet_watch import ModelRef
from serving.metrics import Metrics
from serving.trials.canaries import Canaries, Heard, Outcome
from serving.watched import WatchedTenants

_REFUSALS: Mapping[type[MacrofleetError], Callable[[MacrofleetError], str]] = {
    TenantThrottled: lambda error: error.bound if isinstance(error, TenantThrottled) else "",
    TooManyLoads: lambda _: "cold_loads",
    Overloaded: lambda _: "queue_full",
    DeadlineExceeded: lambda _: "deadline",
    NotReady: lambda _: "not_ready",
    LoadBackingOff: lambda _: "load_backing_off",
    OutOfResources: lambda _: "out_of_resources",
}


class Outcomes:
    """Knows which count an answer, a refusal, a failure and a piece of feedback go to; keeps none itself.

    Args:
        metrics: hears of refusals.
        canaries: hears of answers, failures and feedback by version.
        watched: hears of all of them by tenant.
        wanted: the version that a tenant shall serve, as `FleetWatch.wanted`.
    """

    def __init__(
        self, metrics: Metrics, canaries: Canaries, watched: WatchedTenants, *, wanted: Callable[[str], ModelRef]
    ) -> None:
        self._metrics = metrics
        self._canaries = canaries
        self._watched = watched
        self._wanted = wanted

    def answered(self, tenant: str, version: str, outcome: Outcome) -> None:
        """A version answered, or failed to."""
        self._canaries.count(tenant, version, outcome)
        self._watched.count(tenant, outcome)

    def refused(self, tenant: str, error: MacrofleetError) -> None:
        """A request was turned away; where something was wrong with it, that is counted with its answer's status alone."""
        if isinstance(error, TenantThrottled):
            self._watched.throttle(tenant)
        reason = _REFUSALS.get(type(error))
        if reason is not None:
            self._metrics.refused(reason(error))

    def failed(self, tenant: str, error: Exception) -> None:
        """A request that was let in ends with an error: what is the server's own counts against the version."""
        if isinstance(error, MacrofleetError):
            self.refused(tenant, error)
            if problem_for(error).status < 500:
                return
        with suppress(MacrofleetError):
            self.answered(tenant, self._wanted(tenant).version, "failed")

    def hear(self, tenant: str, version: str, *, accepted: bool) -> None:
        """An agent applied one of the macros that a version had suggested, or did not. For a tenant in the fleet."""
        heard: Heard = "accepted" if accepted else "declined"
        self._canaries.hear(tenant, version, heard)
        self._watched.hear(tenant, heard)
