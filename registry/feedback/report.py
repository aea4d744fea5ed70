"""How suggestions did: what was shown, what agents applied, day by day, from the feedback in the store.

A **view** is one answer to one ticket, however often it was opened. It is *shown* where an agent saw macros, *held back*
where there were some that nobody saw, *abstained* where there were none. **Acceptance** is of the views that were shown
and that feedback came to: the first macro was applied (at 1), or one of the first three (at 3). Of views that were held
back the same figure says how good suggestions are where nothing prompted the agent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any

from registry.catalogue import Catalogue, read_catalogue
from registry.feedback.records import Feedback, Shown, read_feedback
from registry.fleet.state import FleetReader, in_threads
from registry.store import ObjectStore

# A macro that was applied so often by hand, and never suggested, is worth a look.
OFTEN = 5
_DAY = timedelta(days=1)
_AT_ONCE = 256

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]


@dataclass(slots=True)
class Figures:
    """Counts of views, and of what was done after them.

    Attributes:
        views: shown, held back and abstained ones.
        answered: shown, with feedback.
        accepted_at_1, accepted_at_3: of these, where the first macro was applied, or one of the first three.
        by_hand: applications of a macro that was not shown, after a view of any kind.
        unprompted: held back, with feedback.
        right_at_3: of these, where one of the first three was applied all the same.
    """

    views: int = 0
    shown: int = 0
    held_back: int = 0
    abstained: int = 0
    answered: int = 0
    accepted_at_1: int = 0
    accepted_at_3: int = 0
    by_hand: int = 0
    unprompted: int = 0
    right_at_3: int = 0

    def add(self, other: Figures) -> None:
        """Count what another has counted, too."""
        for each in fields(Figures):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def rates(self) -> dict[str, float | None]:
        """Coverage and abstention of views; acceptance of answered ones, prompted and not; None where there are none."""
        return {
            "coverage": _share(self.shown + self.held_back, self.views),
            "abstention": _share(self.abstained, self.views),
            "acceptance_at_1": _share(self.accepted_at_1, self.answered),
            "acceptance_at_3": _share(self.accepted_at_3, self.answered),
            "unprompted_at_3": _share(self.right_at_3, self.unprompted),
        }

    def as_dict(self) -> dict[str, Any]:
        """Counts and rates."""
        return {**asdict(self), **self.rates}


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantReport:
    """One tenant's.

    Attributes:
        total: of all days.
        days: by day, those without a view left out.
        versions: by model version.
        never_used: macros that may be suggested, and that no feedback says was applied.
        never_suggested: macros that were applied by hand at least `OFTEN` times and suggested in no view, and how often.
    """

    tenant: str
    total: Figures
    days: Mapping[date, Figures]
    versions: Mapping[str, Figures]
    never_used: Sequence[str]
    never_suggested: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "tenant": self.tenant,
            **self.total.as_dict(),
            "series": [{"day": day.isoformat(), **self.days[day].as_dict()} for day in sorted(self.days)],
            "versions": {version: figures.as_dict() for version, figures in self.versions.items()},
            "macros_never_used": list(self.never_used),
            "macros_applied_but_never_suggested": dict(self.never_suggested),
        }


@dataclass(slots=True)
class _View:
    at: float
    macros: tuple[str, ...]
    version: str
    held_back: bool = False
    abstained: bool = False
    feedback: Feedback | None = field(default=None, repr=False)


def report_tenant(store: ObjectStore, tenant: str, *, days: int, now: datetime | None = None) -> TenantReport:
    """A tenant's report of the last days, today included (UTC). Holds that tenant's views of those days in memory.

    Raises:
        StoreError: its feedback cannot be read.
    """
    since = _first_day(days, now)
    found = read_catalogue(store, tenant)
    # A segment that was begun the day before may go on past midnight.
    records = read_feedback(store, tenant, since=since - _DAY)
    return summarise(tenant, records, found[0] if found else None, since=since)


def report_fleet(
    store: ObjectStore, *, days: int, now: datetime | None = None, step: Step = lambda _text, _share: None
) -> tuple[Figures, dict[date, Figures], dict[str, Figures]]:
    """All tenants of the fleet together: in all, by day, and by tenant (those without a view left out).

    Args:
        step: told what is going on, and the finished share.
    """

    def one(tenant: str) -> TenantReport:
        return summarise(tenant, read_feedback(store, tenant, since=since - _DAY), None, since=since)

    since = _first_day(days, now)
    total, series, tenants = Figures(), defaultdict[date, Figures](Figures), dict[str, Figures]()
    names = sorted(FleetReader(store).refresh().entries)
    for start in range(0, len(names), _AT_ONCE):  # so that not every tenant's report is held at once
        step("reading feedback", start / len(names))
        for report in in_threads(one, names[start : start + _AT_ONCE]):
            if report.total.views:
                tenants[report.tenant] = report.total
                total.add(report.total)
                for day, figures in report.days.items():
                    series[day].add(figures)
    return total, dict(series), tenants


def summarise(
    tenant: str, records: Iterable[Shown | Feedback], catalogue: Catalogue | None, *, since: date
) -> TenantReport:
    """What records say.

    Args:
        records: of the tenant, in any order, each once.
        catalogue: today's; None where it is not known.
        since: leave out what came in earlier (UTC).
    """
    first = datetime(since.year, since.month, since.day, tzinfo=UTC).timestamp()
    views = _views(record for record in records if record.at >= first)
    days, versions = defaultdict[date, Figures](Figures), defaultdict[str, Figures](Figures)
    total, suggested, applied, by_hand = Figures(), set[str](), set[str](), Counter[str]()
    for view in views:
        counted = _counted(view)
        total.add(counted)
        days[datetime.fromtimestamp(view.at, UTC).date()].add(counted)
        versions[view.version].add(counted)
        suggested.update(view.macros)
        if view.feedback is not None and view.feedback.applied is not None:
            applied.add(view.feedback.applied)
            if counted.by_hand:
                by_hand[view.feedback.applied] += 1
    return TenantReport(
        tenant=tenant,
        total=total,
        days=dict(days),
        versions=dict(versions),
        never_used=sorted(catalogue.suggestible().keys() - applied) if catalogue else [],
        never_suggested={
            macro: count for macro, count in by_hand.most_common() if count >= OFTEN and macro not in suggested
        },
    )


def _views(records: Iterable[Shown | Feedback]) -> list[_View]:
    """Views with the last feedback to each; feedback whose impression was lost makes its own, if it says what was shown."""
    views: dict[str, _View] = {}
    told: dict[str, Feedback] = {}
    for record in records:
        if isinstance(record, Feedback):
            before = told.get(record.suggestion_id)
            if before is None or before.at <= record.at:
                told[record.suggestion_id] = record
        elif record.suggestion_id not in views or record.at < views[record.suggestion_id].at:
            version = record.model_version or ""
            views[record.suggestion_id] = _View(record.at, record.macros, version, record.held_back, record.abstained)
    for suggestion, feedback in told.items():
        view = views.get(suggestion)
        if view is None and feedback.shown is not None:
            view = views[suggestion] = _View(
                feedback.at, feedback.shown, feedback.model_version or "", abstained=not feedback.shown
            )
        if view is not None:
            view.feedback = feedback
    return list(views.values())


def _counted(view: _View) -> Figures:
    figures = Figures(views=1, held_back=int(view.held_back), abstained=int(view.abstained))
    figures.shown = int(not view.held_back and not view.abstained)
    if view.feedback is None:
        return figures
    applied = view.feedback.applied
    among = applied is not None and applied in view.macros[:3]
    if view.held_back:
        figures.unprompted, figures.right_at_3 = 1, int(among)
    elif not view.abstained:
        figures.answered, figures.accepted_at_3 = 1, int(among)
        figures.accepted_at_1 = int(applied in view.macros[:1])
    figures.by_hand = int(applied is not None and (view.held_back or applied not in view.macros))
    return figures


def _first_day(days: int, now: datetime | None) -> date:
    return (now or datetime.now(UTC)).date() - (days - 1) * _DAY


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
