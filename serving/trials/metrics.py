"""Metrics of what is on trial: a roll-out's canaries, and shadows."""

from __future__ import annotations

from collections.abc import Callable

from serving.engine.model_status import ModelStatus
from serving.fleet_watch import ModelRef
from serving.metrics import Metrics
from serving.trials.canaries import HEARD, OUTCOMES, WHICH, Canaries
from serving.trials.shadows import Shadows

_STATES = ("serving", "failed", "waiting")


def add_trial_metrics(
    metrics: Metrics, canaries: Canaries, shadows: Shadows, status: Callable[[ModelRef], ModelStatus]
) -> None:
    """Have a server's metrics tell of its canaries and shadows.

    Args:
        status: what the cache knows of a version that the fleet names.
    """
    metrics.counters("macrofleet_answers_total", "Requests that were let in", ("outcome",), canaries.all_answers)
    about = "Suggestions that were shown, by whether the agent applied one of the macros"
    metrics.counters("macrofleet_suggestions_judged_total", about, ("outcome",), canaries.all_heard)
    for which in WHICH:
        for heard in HEARD:
            metrics.gauge(
                "macrofleet_canary_judged",
                "Suggestions to tenants on trial that feedback came to, since the process began",
                lambda which=which, heard=heard: canaries.heard(which, heard),  # type: ignore[misc]
                labels={"version": which, "outcome": heard},
            )
        for outcome in OUTCOMES:
            metrics.gauge(
                "macrofleet_canary_answers",
                "Requests of tenants on trial, since the process began",
                lambda which=which, outcome=outcome: canaries.answers(which, outcome),  # type: ignore[misc]
                labels={"version": which, "outcome": outcome},
            )

    def states() -> list[str]:
        """Of every version on trial: it serves here, could not be loaded, or nobody has needed it yet."""
        found = []
        for ref in canaries.on_trial():
            told = status(ref)
            serves = told.serving_version == ref.version
            found.append("serving" if serves else "waiting" if told.error is None else "failed")
        return found

    for state in _STATES:
        metrics.gauge(
            "macrofleet_canary_models",
            "Versions on trial",
            lambda state=state: states().count(state),  # type: ignore[misc]
            labels={"state": state},
        )
    metrics.counters(
        "macrofleet_shadow_requests_total", "Answers of tenants with a shadow", ("outcome",), shadows.requests
    )
    metrics.counters(
        "macrofleet_shadow_comparisons_total",
        "What shadows and the versions that serve said of the same tickets",
        ("tenant", "result"),
        shadows.comparisons,
    )
