"""What agents did with suggestions, over time: a port, since where feedback is kept is not the console's affair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol

from registry.feedback.report import Figures, report_tenant
from registry.store import ObjectStore

DAYS = 90


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MacroUse:
    """What agents made of a tenant's macros in the last days.

    Attributes:
        never_used: ids of macros that may be suggested and were never applied.
        never_suggested: ids of macros that were often applied by hand and never suggested, and how often.
    """

    days: int
    never_used: Sequence[str]
    never_suggested: Mapping[str, int]


class AcceptanceSource(Protocol):
    """Reads what feedback says."""

    def macros(self, tenant: str) -> MacroUse | None:
        """What agents made of a tenant's macros; None where there is no feedback yet. Raises MacrofleetError."""
        ...

    def days(self, tenant: str) -> Sequence[AcceptanceDay]:
        """A tenant's days, the oldest first; none where there is no feedback yet. Raises MacrofleetError."""
        ...


class FeedbackReports:
    """What the feedback in the store says of the last days (`registry.feedback.report`)."""

    def __init__(self, store: ObjectStore, *, days: int = DAYS) -> None:
        self._store = store
        self._days = days

    def macros(self, tenant: str) -> MacroUse | None:
        """See `AcceptanceSource.macros`."""
        told = report_tenant(self._store, tenant, days=self._days)
        # Without feedback every macro would be one that nobody uses.
        if not (told.total.answered or told.total.unprompted or told.total.by_hand):
            return None
        return MacroUse(days=self._days, never_used=told.never_used, never_suggested=told.never_suggested)

    def days(self, tenant: str) -> Sequence[AcceptanceDay]:
        """From the first day with feedback to the last one, every one; a day without any is one of zeros."""
        told = report_tenant(self._store, tenant, days=self._days).days
        known = sorted(day for day, figures in told.items() if figures.answered)
        if not known:
            return ()
        every = (known[0] + timedelta(days=passed) for passed in range((known[-1] - known[0]).days + 1))
        return [_day(day, told.get(day, Figures())) for day in every]


def _day(day: date, figures: Figures) -> AcceptanceDay:
    return AcceptanceDay(
        day=day,
        shown=figures.answered,
        accepted_first=figures.accepted_at_1,
        accepted=figures.accepted_at_3,
    )


def curve(days: Sequence[AcceptanceDay], *, width: float, height: float) -> str:
    """The share that was accepted, as the points of an SVG polyline; days on which nothing was shown are passed over."""
    told = [(place, one.accepted / one.shown) for place, one in enumerate(days) if one.shown]
    last = max(1, len(days) - 1)
    return " ".join(f"{width * place / last:.1f},{height * (1 - share):.1f}" for place, share in told)
