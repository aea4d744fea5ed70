"""Live figures from servers' `/metrics`: what happened between two readings, of all servers together. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_FACES = frozenset({"api", "v2", "sagemaker"})
_WANTED = (
    "macrofleet_request_seconds_bucket",
    "macrofleet_requests_total",
    "macrofleet_cache_hits_total",
    "macrofleet_cold_loads_total",
    "macrofleet_refusals_total",
    "macrofleet_models_loaded",
    "macrofleet_bytes",
    "macrofleet_budget_bytes",
    "macrofleet_queue_depth",
    "macrofleet_ready",
    "macrofleet_fleet_generation",
)
Counts = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one server's metrics said at a time.

    Attributes:
        at: seconds of a clock that only goes forward.
        counters: what only grows, by name and label.
        buckets: answers by the time they took: upper bound in seconds to how many took as long or less.
        gauges: what is so now.
    """

    at: float
    counters: Counts = field(default_factory=dict)
    buckets: Mapping[float, float] = field(default_factory=dict)
    gauges: Counts = field(default_factory=dict)


def read_metrics(text: str, *, at: float) -> Reading:
    """What a server's `/metrics` say. Raises ValueError: the text is not of Prometheus's format."""
    wanted = "".join(line for line in text.splitlines(keepends=True) if line.startswith(_WANTED))
    counters: dict[str, float] = {}
    buckets: dict[float, float] = {}
    gauges: dict[str, float] = {}
    for family in text_string_to_metric_families(wanted):
        for sample in family.samples:
            name, labels = sample.name.removeprefix("macrofleet_"), sample.labels
            if "face" in labels and labels["face"] not in _FACES:
                continue
            if name == "request_seconds_bucket":
                bound = float(labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + sample.value
            elif name.endswith("_total"):
                kind = labels.get("tier") or labels.get("reason") or labels.get("source") or "all"
                key = f"{name.removesuffix('_total')}.{kind}"
                counters[key] = counters.get(key, 0.0) + sample.value
            else:
                gauges[f"{name}.{labels['tier']}" if "tier" in labels else name] = sample.value
    return Reading(at=at, counters=counters, buckets=buckets, gauges=gauges)


def since(now: Reading, before: Reading | None) -> Reading:
    """What was counted between two readings of a server; one that began again since counts from its beginning."""
    if before is None or any(now.counters.get(name, 0) < value for name, value in before.counters.items()):
        return now
    return Reading(
        at=now.at - before.at,
        counters={name: value - before.counters.get(name, 0) for name, value in now.counters.items()},
        buckets={bound: value - before.buckets.get(bound, 0) for bound, value in now.buckets.items()},
        gauges=now.gauges,
    )


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """Seconds that this share of answers took at most, between two bounds in proportion; None where there were none."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0
    if total <= 0:
        return None
    rank, below, lower = share * total, 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / max(count - below, 1e-12)
        below, lower = count, bound
    return lower


def summarise(changes: Sequence[Reading], *, window_seconds: float | None) -> dict[str, Any]:
    """The figures of servers together.

    Args:
        changes: of each, as `since` gives them.
        window_seconds: between the readings; None where they count from the servers' beginning.

    Returns:
        For JSON; None stands for what cannot be said, because nobody asked.
    """

    def total(prefix: str) -> float:
        return sum(value for one in changes for name, value in one.counters.items() if name.startswith(prefix))

    buckets: dict[float, float] = {}
    for one in changes:
        for bound, count in one.buckets.items():
            buckets[bound] = buckets.get(bound, 0) + count
    hits, memory = total("cache_hits."), total("cache_hits.memory")
    answers = total("requests.")
    reasons: dict[str, float] = {}
    for one in changes:
        for name, value in one.counters.items():
            if name.startswith("refusals.") and value > 0:
                reason = name.removeprefix("refusals.")
                reasons[reason] = reasons.get(reason, 0) + value
    return {
        "window_seconds": None if window_seconds is None else round(window_seconds),
        "requests_per_second": None if not window_seconds else round(answers / window_seconds, 1),
        "requests": round(answers),
        "hit_rate": round(memory / hits, 4) if hits else None,
        "p50_ms": _milliseconds(quantile(0.5, buckets)),
        "p99_ms": _milliseconds(quantile(0.99, buckets)),
        "cold_loads": round(total("cold_loads.")),
        "refusals": round(sum(reasons.values())),
        "refusal_reasons": {reason: round(value) for reason, value in sorted(reasons.items(), key=lambda one: -one[1])},
        "models_loaded": round(sum(one.gauges.get("models_loaded", 0) for one in changes)),
        "queue_depth": round(sum(one.gauges.get("queue_depth", 0) for one in changes)),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)
