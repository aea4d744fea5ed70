"""What the parts of an answer took, by what the server itself says of its phases. Arithmetic only."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.client import total

# Of a request, in its order; `load_wait` has the next two in it.
_REQUEST = ("queue", "featurise", "score")
_LOAD = ("download", "map")


def phase_seconds(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What the phases took together between two readings of `/metrics`, in seconds, by name (`docs/metrics.md`)."""
    return {name: _sum(after, name) - _sum(before, name) for name in (*_REQUEST, "load_wait", *_LOAD)}


def parts_of_answers(phases: Mapping[str, float], *, seconds: float, answers: int) -> dict[str, float]:
    """The parts of which one answer's time is the sum, in seconds.

    Args:
        phases: of `phase_seconds`, all of these answers together.
        seconds: from the first request sent to the last answer read, the answers one after the other.
        answers: how many.

    Returns:
        `queue`, `featurise`, `score`, `download` and `map` as the server has them; `load wait` is what of its
        `load_wait` is neither download nor map (threads, the catalogue); `outside phases` is the
        rest: the connection, reading and checking a request, its catalogue, choosing and writing.
    """
    loading = sum(phases[name] for name in _LOAD)
    parts = {name: phases[name] for name in (*_REQUEST, *_LOAD)}
    parts["load wait"] = max(0.0, phases["load_wait"] - loading)
    parts["outside phases"] = seconds - sum(phases[name] for name in _REQUEST) - max(phases["load_wait"], loading)
    return {name: part / answers for name, part in parts.items()}


def parts_of_a_swap(phases: Mapping[str, float], *, seconds: float) -> dict[str, float]:
    """The parts of one swap, in seconds: its load, and the rest. Phases of requests meanwhile lie beside these, not between.

    Args:
        phases: of `phase_seconds`, from being told of a new version to its first answer.
        seconds: how long that took.
    """
    parts = {name: phases[name] for name in _LOAD}
    return {**parts, "outside phases": seconds - sum(parts.values())}


def _sum(metrics: Mapping[str, float], phase: str) -> float:
    return total(dict(metrics), "macrofleet_phase_seconds_sum", phase=phase)
