"""Whether a tenant has enough to be given a model, as its users know the rule; what fitting needs at least is the trainer's.

A pure function of its tickets, its macros, its settings and the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from registry.catalogue import Catalogue
from training.examples import Example
from training.settings import TrainingSettings

_MONTH = timedelta(days=365.25 / 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Eligibility:
    """What was found.

    Attributes:
        tickets: recent ones to which a shared macro was applied.
        macros: how many shared macros were applied to them.
        reason: why the tenant is not eligible, with figures; empty where it is.
    """

    tickets: int
    macros: int
    reason: str

    @property
    def eligible(self) -> bool:
        """Whether the tenant is to have a model."""
        return not self.reason


def judge_eligibility(
    examples: Iterable[Example], catalogue: Catalogue | None, settings: TrainingSettings, now: datetime
) -> Eligibility:
    """Count what a tenant's agents did lately, and compare it with what its settings ask for.

    Counted are tickets to which a macro was applied that is shared and still in use: one agent's own is not suggested to
    others, and one that was retired to nobody. Without a catalogue nothing is known to be either.

    A ticket without a time counts as recent. Whoever imports a file that has no times means these tickets to be learned
    from; taken as old, no such file would ever do.

    Args:
        now: with a time zone, like the tickets' times.
    """
    shared = None
    if catalogue is not None:
        shared = {macro.id for macro in catalogue.macros if macro.shared}
    since = now - settings.months * _MONTH
    tickets = older = 0
    used: set[str] = set()
    for example in examples:
        applied = set(example.macro_ids) if shared is None else shared.intersection(example.macro_ids)
        if not applied:
            continue
        if example.applied_at is not None and example.applied_at < since:
            older += 1
            continue
        tickets += 1
        used |= applied
    lacks = []
    if tickets < settings.least_tickets:
        more = f" ({older} more are older)" if older else ""
        lacks.append(
            f"{_count(tickets, 'ticket')} with a shared macro in the last {_count(settings.months, 'month')}{more}, "
            f"{settings.least_tickets} are needed"
        )
    if len(used) < settings.least_macros:
        lacks.append(f"{_count(len(used), 'shared macro')} used in that time, {settings.least_macros} are needed")
    return Eligibility(tickets=tickets, macros=len(used), reason="; ".join(lacks))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
