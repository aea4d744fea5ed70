"""Whether a staged roll-out goes on: who goes first, and whether the servers' figures speak against it. No I/O.

**Who.** A share of the tenants whose version changes, the ones whose names have the smallest hashes: the same on every
run. A tenant that served nothing before cannot tell whether it is worse off, so it never goes first.

**The test.** A share of requests (failed of all, abstained of answered) has risen when its interval under the new
version lies above that under the version before, by a tolerance and by what the share rose elsewhere in the same time.
The intervals are Wilson's at three standard deviations, so that looking at them again and again raises few false alarms:
two of equal shares lie apart once in about 700 times where one of them is narrow, and once in 90,000 where both are as wide.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from registry.fleet.promotion import was_taken_back
from registry.fleet.state import FleetEntry
from training.statistics import wilson_interval

OUTCOMES = ("suggested", "abstained", "failed")
HEARD = ("accepted", "declined")
DEVIATIONS = 3.0
# Fewer requests than this are no evidence of anything.
LEAST_REQUESTS = 20
# What may rise without harm. Another model may abstain a little more often, and still be the better one.
TOLERATED_FAILED, TOLERATED_ABSTAINED, TOLERATED_DECLINED = 0.005, 0.05, 0.05
# Where it is not known how the canaries were before, they are compared with other tenants, which differ by nature.
TOLERATED_AMONG_TENANTS = 0.25
# Of the versions on trial that servers have needed: above this, it is not single bundles that cannot be loaded.
TOLERATED_UNLOADABLE = 0.1


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests by how they ended; `OUTCOMES` names the fields."""

    suggested: int = 0
    abstained: int = 0
    failed: int = 0

    @property
    def answered(self) -> int:
        """Those with an answer."""
        return self.suggested + self.abstained

    @property
    def asked(self) -> int:
        """All."""
        return self.answered + self.failed

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.suggested + other.suggested, self.abstained + other.abstained, self.failed + other.failed)

    def __sub__(self, other: Counts) -> Counts:
        """What is more than in `other`; nothing is less than nothing."""
        return Counts(
            max(self.suggested - other.suggested, 0),
            max(self.abstained - other.abstained, 0),
            max(self.failed - other.failed, 0),
        )


@dataclass(frozen=True, slots=True)
class Heard:
    """Suggestions that were shown and that feedback came to; `HEARD` names the fields."""

    accepted: int = 0
    declined: int = 0

    @property
    def all(self) -> int:
        """Of both kinds."""
        return self.accepted + self.declined

    def __add__(self, other: Heard) -> Heard:
        return Heard(self.accepted + other.accepted, self.declined + other.declined)

    def __sub__(self, other: Heard) -> Heard:
        """What is more than in `other`; nothing is less than nothing."""
        return Heard(max(self.accepted - other.accepted, 0), max(self.declined - other.declined, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCounts:
    """What one server has counted since it began.

    Attributes:
        every: requests of all tenants.
        new: those of tenants on trial, under the version on trial; `before`: under the one that served before.
        every_heard, new_heard, before_heard: what agents did with suggestions, of the same three.
        serving: versions on trial that it has in memory.
        unloadable: those that it failed to load.
    """

    every: Counts = Counts()
    new: Counts = Counts()
    before: Counts = Counts()
    every_heard: Heard = Heard()
    new_heard: Heard = Heard()
    before_heard: Heard = Heard()
    serving: int = 0
    unloadable: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the figures say.

    Attributes:
        asked: requests of the tenants on trial under their new versions.
        reasons: against going on, in words.
        missing: that too many servers cannot be asked, where it is so. They may just be restarting, or be what the new
            versions did: whoever watches decides how long to wait for them.
    """

    asked: int
    reasons: tuple[str, ...]
    missing: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Who gets a new version when.

    Attributes:
        canaries: go first, or went first in a run that did not finish; none where there are no stages.
        rest: follow when the trial has ended well.
        refused: keep what they have, because this very version was taken back from them before.
    """

    canaries: frozenset[str]
    rest: frozenset[str]
    refused: frozenset[str]


def plan_stages(
    entries: Mapping[str, FleetEntry | None], versions: Mapping[str, str], *, share: float, force: bool = False
) -> Stages:
    """Cut a roll-out into stages.

    Args:
        entries: of all tenants of the run, as the fleet has them.
        versions: that shall serve, by tenant.
        share: of the tenants whose version changes, how many go first; at least one.
        force: no stages, and nothing is refused.
    """
    changing = {tenant for tenant, version in versions.items() if _changes(entries.get(tenant), version)}
    if force or share <= 0:
        return Stages(canaries=frozenset(), rest=frozenset(changing), refused=frozenset())
    refused = {tenant for tenant in changing if was_taken_back(entries.get(tenant), versions[tenant])}
    # Those of a run that did not finish; one that changes again begins anew.
    on_trial = {tenant for tenant, entry in entries.items() if entry is not None and entry.is_canary} - changing
    able = {tenant for tenant in changing - refused if (entry := entries.get(tenant)) is not None and entry.serves}
    canaries = on_trial
    if on_trial or len(changing - refused) > 1:
        more = math.ceil(share * len(able | on_trial)) - len(on_trial)
        canaries = on_trial | set(first_by_hash(able, max(more, 0)))
    return Stages(
        canaries=frozenset(canaries), rest=frozenset(changing - refused - canaries), refused=frozenset(refused)
    )


def first_by_hash(tenants: Iterable[str], count: int) -> list[str]:
    """So many tenants, the same ones every time."""
    return sorted(tenants, key=lambda tenant: hashlib.sha256(tenant.encode()).digest())[:count]


def judge(start: Mapping[str, ServerCounts], now: Mapping[str, ServerCounts]) -> Verdict:
    """What the servers' figures say of the versions on trial.

    Args:
        start: by server, when the trial began (or was taken up again).
        now: by server, of those that can be asked.
    """
    new = _total(each.new for each in now.values())
    before = _total(each.before for each in now.values())
    others = [_elsewhere(start.get(server, ServerCounts()), each) for server, each in now.items()]
    elsewhere_before, elsewhere = _total(one for one, _ in others), _total(one for _, one in others)
    found = [
        _unloadable(now),
        _risen(
            "failed requests",
            new=_Share(new.failed, new.asked),
            before=_Share(before.failed, before.asked),
            elsewhere_before=_Share(elsewhere_before.failed, elsewhere_before.asked),
            elsewhere=_Share(elsewhere.failed, elsewhere.asked),
            tolerated=TOLERATED_FAILED,
            tolerated_among_tenants=TOLERATED_FAILED,
        ),
        _risen(
            "abstentions",
            new=_Share(new.abstained, new.answered),
            before=_Share(before.abstained, before.answered),
            elsewhere_before=_Share(elsewhere_before.abstained, elsewhere_before.answered),
            elsewhere=_Share(elsewhere.abstained, elsewhere.answered),
            tolerated=TOLERATED_ABSTAINED,
            tolerated_among_tenants=TOLERATED_AMONG_TENANTS,
        ),
    ]
    found.append(_declined(start, now))
    reasons = tuple(reason for reason in found if reason is not None)
    return Verdict(asked=new.asked, reasons=reasons, missing=_missing(start, now))


def _declined(start: Mapping[str, ServerCounts], now: Mapping[str, ServerCounts]) -> str | None:
    """The same for suggestions that agents did not take. Where no feedback comes there is no evidence, and no reason."""
    new = sum((each.new_heard for each in now.values()), Heard())
    before = sum((each.before_heard for each in now.values()), Heard())
    until, since = Heard(), Heard()
    for server, each in now.items():
        first = start.get(server, ServerCounts())
        if each.every_heard.all < first.every_heard.all:
            first = ServerCounts()  # it began anew
        others_until = first.every_heard - first.new_heard - first.before_heard
        until += others_until
        since += each.every_heard - each.new_heard - each.before_heard - others_until
    return _risen(
        "suggestions that were not taken",
        new=_Share(new.declined, new.all),
        before=_Share(before.declined, before.all),
        elsewhere_before=_Share(until.declined, until.all),
        elsewhere=_Share(since.declined, since.all),
        tolerated=TOLERATED_DECLINED,
        tolerated_among_tenants=TOLERATED_AMONG_TENANTS,
    )


@dataclass(frozen=True, slots=True)
class _Share:
    part: int
    whole: int

    @property
    def share(self) -> float:
        return self.part / self.whole if self.whole else 0.0

    @property
    def is_evidence(self) -> bool:
        return self.whole >= LEAST_REQUESTS

    def interval(self) -> tuple[float, float]:
        low, high = wilson_interval(self.share, self.whole, z=DEVIATIONS)
        return float(low), float(high)

    def __str__(self) -> str:
        return f"{self.share:.1%} of {self.whole}"


def _risen(
    what: str,
    *,
    new: _Share,
    before: _Share,
    elsewhere_before: _Share,
    elsewhere: _Share,
    tolerated: float,
    tolerated_among_tenants: float,
) -> str | None:
    """The reason, where a share has risen beyond noise; see the module's docstring for the test."""
    if not new.is_evidence:
        return None
    if before.is_evidence:
        known = elsewhere_before.is_evidence and elsewhere.is_evidence
        allowed = max(elsewhere.share - elsewhere_before.share, 0.0) if known else 0.0
        reference, said = before, f"{before} under the versions before"
        allowed += tolerated
        if known:
            said += f", elsewhere from {elsewhere_before} to {elsewhere}"
    elif elsewhere.is_evidence:
        reference, said, allowed = elsewhere, f"{elsewhere} elsewhere", tolerated_among_tenants
    else:
        return None
    if new.interval()[0] <= reference.interval()[1] + allowed:
        return None
    return f"{what}: {new} under the new versions, {said}"


def _unloadable(now: Mapping[str, ServerCounts]) -> str | None:
    unloadable = sum(each.unloadable for each in now.values())
    needed = unloadable + sum(each.serving for each in now.values())
    if unloadable <= TOLERATED_UNLOADABLE * needed:
        return None
    return f"servers could not load {unloadable} of {needed} new versions"


def _missing(start: Mapping[str, ServerCounts], now: Mapping[str, ServerCounts]) -> str | None:
    left = len(now.keys() & start.keys())
    return None if now and 2 * left >= len(start) else f"only {left} of {len(start)} servers can still be asked"


def _elsewhere(start: ServerCounts, now: ServerCounts) -> tuple[Counts, Counts]:
    """What a server has counted of the tenants that are not on trial: until the trial began, and since."""
    if now.every.asked < start.every.asked:
        start = ServerCounts()  # it began anew
    # At the start it may not have known yet who is on trial.
    before = max(start.before, now.before, key=lambda counts: counts.asked) if start.every.asked else Counts()
    until = start.every - start.new - before
    return until, now.every - now.new - now.before - until


def _total(counts: Iterable[Counts]) -> Counts:
    return sum(counts, Counts())


def _changes(entry: FleetEntry | None, version: str) -> bool:
    return entry is None or (not entry.hold_version and entry.version != version)
