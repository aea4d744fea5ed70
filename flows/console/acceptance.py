"""What agents did with suggestions, over time: a port, since where feedback is kept is not the console's affair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceDay:
    """One day of a tenant.

    Attributes:
        shown: suggestions that were shown and of which it is known what the agent did.
        accepted_first: where the first macro was applied.
        accepted: where any that was shown was applied.
    """

    day: date
    shown: int
    accepted_first: int
    accepted: int


class AcceptanceSource(Protocol):
    """Reads what feedback says."""

    def days(self, tenant: str) -> Sequence[AcceptanceDay]:
        """A tenant's days, the oldest first; none where there is no feedback yet. Raises MacrofleetError."""
        ...


class NoFeedback:
    """Nothing is known of what agents did."""

    def days(self, tenant: str) -> Sequence[AcceptanceDay]:  # noqa: ARG002  # the port's
        """None."""
        return ()


def curve(days: Sequence[AcceptanceDay], *, width: float, height: float) -> str:
    """The share that was accepted, as the points of an SVG polyline; days on which nothing was shown are passed over."""
    told = [(place, one.accepted / one.shown) for place, one in enumerate(days) if one.shown]
    last = max(1, len(days) - 1)
    return " ".join(f"{width * place / last:.1f},{height * (1 - share):.1f}" for place, share in told)
