"""The few tenants whose metrics have a name; everybody else is in the sums only.

A label for each of thousands of tenants would be as many time series for each metric and replica, and put customers' names
where many people look. So an operator names the tenants of which a dashboard shall show more (`MACROFLEET_METRICS_TENANTS`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from serving.metrics import Metrics
from serving.trials.canaries import HEARD, OUTCOMES, Heard, Outcome

THROTTLED: Final = "throttled"


class WatchedTenants:
    """Counts of some tenants by name, since the process began. Owned by one event loop.

    Args:
        tenants: their names; nobody else is counted.
    """

    def __init__(self, tenants: Iterable[str]) -> None:
        names = sorted(set(tenants))
        self._answers = {name: dict.fromkeys((*OUTCOMES, THROTTLED), 0) for name in names}
        self._judged: dict[str, dict[Heard, int]] = {name: dict.fromkeys(HEARD, 0) for name in names}

    def count(self, tenant: str, outcome: Outcome) -> None:
        """A request was answered, or failed."""
        if tenant in self._answers:
            self._answers[tenant][outcome] += 1

    def throttle(self, tenant: str) -> None:
        """A request was refused because its tenant is over its limits."""
        if tenant in self._answers:
            self._answers[tenant][THROTTLED] += 1

    def hear(self, tenant: str, outcome: Heard) -> None:
        """An agent applied one of the macros that were suggested, or did not."""
        if tenant in self._judged:
            self._judged[tenant][outcome] += 1

    def answers(self) -> Mapping[tuple[str, ...], int]:
        """By tenant and outcome."""
        return {(name, outcome): count for name, counts in self._answers.items() for outcome, count in counts.items()}

    def judged(self) -> Mapping[tuple[str, ...], int]:
        """By tenant and what the agent did."""
        return {(name, heard): count for name, counts in self._judged.items() for heard, count in counts.items()}


def add_watched_metrics(metrics: Metrics, watched: WatchedTenants) -> None:
    """Have a server's metrics tell of them."""
    about = "Requests of the tenants that MACROFLEET_METRICS_TENANTS names"
    metrics.counters("macrofleet_tenant_answers_total", about, ("tenant", "outcome"), watched.answers)
    about = "Their suggestions, by whether the agent applied one of the macros"
    metrics.counters("macrofleet_tenant_judged_total", about, ("tenant", "outcome"), watched.judged)
