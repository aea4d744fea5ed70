"""What agents did after suggestions, joined to the tickets that training reads.

Feedback has no text: it is joined by the ticket's id with what the help desk's import brought. A ticket that was not
imported is not trained on, whatever feedback says of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from registry.feedback.records import Feedback, Shown
from registry.feedback.report import Figures, summarise
from registry.fleet.state import FleetEntry
from training.examples import Example, digest
from training.record import TrainingRecord

# Views with feedback from which on acceptance says something.
LEAST_ANSWERED = 50
# Of a macro with fewer rows none is left out: what agents were shown is better than nothing.
LEAST_PROMPTED = 50
_PAUSE = timedelta(days=7)


@dataclass(slots=True)
class _Told:
    """What is known of one ticket."""

    views: int = 0
    shown: set[str] = field(default_factory=set)
    last: Feedback | None = None


def join_feedback(
    examples: Iterable[Example], records: Iterable[Shown | Feedback], *, known: Collection[str] | None = None
) -> list[Example]:
    """Examples with what feedback says of their tickets.

    - The macro that was applied last, as feedback says, is the label: it makes one where the import had none, and takes the
      place of one that the import had, unless that was among those applied anyway. That an agent applied none of what was
      shown is no label: it does not say that nothing fits.
    - A suggestion is one ticket's. Feedback that names another ticket than its view did is of no ticket: it would relabel
      one that nobody was asked about. Where no view is known (it may have been left out) its word is taken.
    - `prompted` is True where the label was among what was shown for the ticket, and False where the ticket was viewed and
      the label was not: nothing was good enough, the view was held back, or the agent chose something else. It stays None
      where no view is known.

    Args:
        records: of the tenant, each once, in any order.
        known: ids of the catalogue's macros, used or retired; feedback that an agent applied another one is no label: who
            sends titles instead of ids, say, would take away every label that the import had. None where there is none.
    """
    told: dict[str, _Told] = {}
    of_suggestion: dict[str, str] = {}
    early: list[Feedback] = []

    def hear(record: Feedback, seen_for: str | None) -> None:
        """Note an event of the ticket that its suggestion was for; what says another one is of none."""
        ticket = record.ticket_id or seen_for
        if ticket is not None and seen_for in (None, ticket):
            _hear(told.setdefault(ticket, _Told()), record)

    for record in records:
        if isinstance(record, Shown):
            if record.ticket_id is not None:
                of_suggestion[record.suggestion_id] = record.ticket_id
                one = told.setdefault(record.ticket_id, _Told())
                one.views += 1
                one.shown.update(() if record.held_back else record.macros)
        elif (ticket := of_suggestion.get(record.suggestion_id)) is not None:
            hear(record, ticket)
        else:
            early.append(record)
    for record in early:  # the view came after it, or is not known
        hear(record, of_suggestion.get(record.suggestion_id))
    return [_joined(example, told.get(example.ticket_id), known) for example in examples]


def limit_prompted(examples: Sequence[Example]) -> list[Example]:
    """Examples without the oldest of those that suggestions prompted, where they outnumber the others of their macro.

    A suggestion that was taken is as good a label as any, so it counts in full. But what is shown is taken more often
    than it would be chosen, and what is never shown gets no such labels at all: a model that learns from all of them
    learns from itself. So of each macro's rows at most as many are prompted as are not known to be, or `LEAST_PROMPTED`
    where that is more. Where nothing is known of views nothing is left out.
    """
    prompted: dict[str | None, list[int]] = {}
    others: dict[str | None, int] = {}
    for place, example in enumerate(examples):
        if example.prompted:
            prompted.setdefault(example.macro_id, []).append(place)
        else:
            others[example.macro_id] = others.get(example.macro_id, 0) + 1
    left_out: set[int] = set()
    for macro, places in prompted.items():
        newest = sorted(places, key=lambda place: _age(examples[place]), reverse=True)
        left_out.update(newest[max(LEAST_PROMPTED, others.get(macro, 0)) :])
    return [example for place, example in enumerate(examples) if place not in left_out]


def poor_acceptance(
    tenant: str,
    records: Iterable[Shown | Feedback],
    record: TrainingRecord | None,
    entry: FleetEntry | None,
    now: datetime,
    *,
    least: float,
) -> str | None:
    """Why a tenant's acceptance asks for another training; None where it does not.

    Counted is what agents did with the version that serves, since the last training: what was trained since then has been
    tried already. Fewer than `LEAST_ANSWERED` views with feedback say nothing, and neither does a training of less than a
    week ago, so that a tenant that no training helps is not trained every night.
    """
    if entry is None or entry.version is None or record is None or now - record.finished_at < _PAUSE:
        return None
    since = record.finished_at.date() + timedelta(days=1)
    figures = summarise(tenant, records, None, since=since).versions.get(entry.version, Figures())
    rate = figures.rates["acceptance_at_3"]
    if rate is None or figures.answered < LEAST_ANSWERED or rate >= least:
        return None
    return f"acceptance fell to {rate:.0%} of {figures.answered} suggestions, below {least:.0%}"


def _hear(one: _Told, feedback: Feedback) -> None:
    if feedback.shown is not None:
        one.views += 1
        one.shown.update(feedback.shown)
    if one.last is None or one.last.at <= feedback.at:
        one.last = feedback


def _joined(example: Example, told: _Told | None, known: Collection[str] | None) -> Example:
    if told is None:
        return example
    applied = None if told.last is None else told.last.applied
    if applied is not None and applied not in example.macro_ids and (known is None or applied in known):
        assert told.last is not None
        when = told.last.when if example.applied_at is None else example.applied_at
        example = replace(example, macro_id=applied, also=(), applied_at=when)
    if not told.views or not example.macro_ids:
        return example
    return replace(example, prompted=not told.shown.isdisjoint(example.macro_ids))


def _age(example: Example) -> tuple[float, str]:
    return (example.applied_at.timestamp() if example.applied_at else 0.0), digest(example.ticket_id)
