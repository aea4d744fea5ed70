"""Whether a figure is what it must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a figure must be at least, at most, or both."""

    at_least: float = float("-inf")
    at_most: float = float("inf")

    def holds(self, value: float | None) -> bool:
        """Whether a figure is within the bound; one that could not be measured is not."""
        return value is not None and self.at_least <= value <= self.at_most

    def __str__(self) -> str:
        parts = [
            f"{sign} {bound:g}"
            for sign, bound in (("≥", self.at_least), ("≤", self.at_most))
            if abs(bound) != float("inf")
        ]
        return " and ".join(parts)


def judge(
    figures: Mapping[str, float | None], bounds: Mapping[str, Bound], *, void: Sequence[str] = ()
) -> dict[str, Any]:
    """`bounds` and `passed`, figure by figure, for a report.

    Args:
        void: reasons why this run says nothing of the server, whatever its figures are.
    """
    return {
        "bounds": {name: str(bound) for name, bound in bounds.items()},
        "passed": {name: bound.holds(figures[name]) for name, bound in bounds.items()},
        "void": list(void),
    }


def all_passed(report: Mapping[str, Any]) -> bool:
    """Whether every figure of a report is what it must be, and the run was a fair one."""
    return all(report["passed"].values()) and not report["void"]
