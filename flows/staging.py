"""From outcomes to the fleet: each tenant by its mode of promotion, and a run's new versions in stages.

Every stage is one write of the fleet. A run that ends between two of them leaves its canaries marked in there; a rerun
finds them and takes the trial up again. `docs/rollout.md` tells all of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from flows.rollout import ServerCounts, Stages, judge, plan_stages
from flows.rollout_settings import RolloutSettings
from registry.errors import InvalidInput
from registry.fleet.promotion import settles, shadows, takes_back, tries, waits
from registry.fleet.state import Change, FleetEdit, FleetEntry, edit_fleet, in_threads
from registry.store import ObjectStore

if TYPE_CHECKING:
    from flows.outcome import Outcome

Promotion: TypeAlias = Literal["auto", "manual", "shadow"]
_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 5.0
_HALTED = "the roll-out was halted"
# What callers of the API are told of a tenant without a model; the run's own report says more.
_REASONS = {
    "failed": "the last training run failed",
    "not_promoted": "the last trained model was not good enough to serve",
}
# Ends of a training that made a model.
_MADE = {"trained", "not_promoted"}
_UNSERVED = "the roll-out of its first model was halted"


class Servers(Protocol):
    """What a roll-out asks of the servers; `flows.servers` asks real ones."""

    def refresh(self) -> None:
        """Have them read the fleet now, as far as they can be asked."""

    def counts(self) -> Mapping[str, ServerCounts]:
        """What those that can be asked have counted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a run left in the fleet.

    Attributes:
        generation: the fleet's.
        outcomes: as they were given, with what became of each in the fleet.
    """

    generation: int
    outcomes: list[Outcome]


def always_auto(_: str) -> Promotion:
    """The mode of every tenant where none has one of its own."""
    return "auto"


class Staging:
    """Writes what a run made to the fleet.

    Args:
        store: holds the fleet.
        settings: of the stages.
        servers: that canaries are watched on.
        promotion_of: a tenant's mode: "auto" serves what passed the gate, "manual" has it wait for a person, "shadow"
            has it compared with what serves. Called from any thread; InvalidInput is that tenant's alone.
        last_token: of a tenant that the fleet does not know, the token above which its leases are, since it was deleted and
            brought back; None for one that is not there.
        clock: seconds, never backwards; `sleep` waits for some of them.
    """

    def __init__(
        self,
        store: ObjectStore,
        settings: RolloutSettings,
        *,
        servers: Servers,
        promotion_of: Callable[[str], Promotion] = always_auto,
        last_token: Callable[[str], int | None] = lambda _: 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._settings = settings
        self._servers = servers
        self._promotion_of = promotion_of
        self._last_token = last_token
        self._clock = clock
        self._sleep = sleep

    def serve(self, outcomes: Sequence[Outcome], *, force: bool = False) -> Served:
        """Have the fleet follow a run's outcomes; takes as long as its canaries are watched.

        Args:
            force: no stages, and what was taken back before serves. A tenant's mode of promotion stays what it is.

        Raises:
            StoreError, PublishConflict: the fleet cannot be read or written; a rerun goes on from where it is.
        """
        modes = self._modes(outcomes)
        run = {outcome.tenant: _checked(outcome, modes.get(outcome.tenant)) for outcome in outcomes}
        staged = {tenant: outcome for tenant, outcome in run.items() if modes.get(tenant) == "auto"}
        plain = {tenant: _change(outcome, modes.get(tenant)) for tenant, outcome in run.items()}
        stages = plan_stages(
            edit_fleet(self._store, run, lambda found: found, write=False).before,
            {tenant: outcome.version for tenant, outcome in staged.items()},
            share=self._settings.canary_share,
            force=force,
        )
        halted = {tenant: _refused(staged[tenant]) for tenant in stages.refused}
        if not stages.canaries:
            changes = plain | {tenant: _published(staged[tenant]) for tenant in staged.keys() - stages.refused}
            # Nobody watches what an earlier run left on trial.
            changes = {tenant: _then(change, settles) for tenant, change in changes.items()}
        elif not self._servers.counts():
            changes = plain
            why = f"{_HALTED} before it began: none of the servers can be asked"
            halted |= dict.fromkeys((stages.canaries & staged.keys()) | stages.rest, why)
        else:
            self._write(plain | {tenant: _tried(staged[tenant]) for tenant in stages.canaries & staged.keys()})
            changes = dict.fromkeys(run, _same)
            against = self._watch(stages)
            if against is None:
                changes |= dict.fromkeys(stages.canaries, _then(_same, settles))
                changes |= {tenant: _published(staged[tenant]) for tenant in stages.rest}
            else:
                changes |= dict.fromkeys(stages.canaries, _then(_same, takes_back))
                why = f"{_HALTED}: {against}; macrofleet train --force does it all the same"
                halted |= dict.fromkeys(stages.canaries | stages.rest, why)
        edited = self._write(changes | {tenant: _unserved(changes[tenant]) for tenant in halted.keys() & staged.keys()})
        if stages.canaries:
            self._servers.refresh()
        told = [self._told(outcome, edited.after[tenant], halted) for tenant, outcome in run.items()]
        return Served(generation=edited.generation, outcomes=told)

    def _write(self, changes: Mapping[str, Change]) -> FleetEdit:
        def edit(found: Mapping[str, FleetEntry | None]) -> dict[str, FleetEntry | None]:
            # Its training may have been hours ago: a tenant that was deleted since does not come back, and one that did
            # comes without what was trained before.
            new = [tenant for tenant, entry in found.items() if entry is None]
            tokens = dict(zip(new, in_threads(self._last_token, new), strict=True))
            known = {tenant: changes[tenant](entry) for tenant, entry in found.items() if entry is not None}
            return known | {tenant: _first(changes[tenant], token) for tenant, token in tokens.items()}

        return edit_fleet(self._store, changes, edit)

    def _watch(self, stages: Stages) -> str | None:
        """Watch the canaries; what speaks against going on, or None."""
        self._servers.refresh()
        start = self._servers.counts()
        ends = self._clock() + self._settings.canary_seconds
        _LOG.info("%d tenants go first, %d follow", len(stages.canaries), len(stages.rest))
        while True:
            self._sleep(min(_POLL_SECONDS, max(ends - self._clock(), 0.0)))
            verdict = judge(start, self._servers.counts())
            if verdict.reasons:
                return "; ".join(verdict.reasons)
            asked_enough = verdict.asked >= self._settings.canary_requests and verdict.missing is None
            if asked_enough or self._clock() >= ends:
                _LOG.info("the new versions were asked %d times; %s", verdict.asked, verdict.missing or "all is well")
                return verdict.missing

    def _modes(self, outcomes: Sequence[Outcome]) -> dict[str, Promotion | InvalidInput]:
        """How the new versions are promoted, by tenant, or why that cannot be known; asked side by side."""

        def mode(tenant: str) -> Promotion | InvalidInput:
            try:
                return self._promotion_of(tenant)
            except InvalidInput as problem:
                return problem

        trained = [outcome.tenant for outcome in outcomes if outcome.state == "trained"]
        return dict(zip(trained, in_threads(mode, trained), strict=True))

    def _told(  # noqa: PLR0911  # one for each end that it can have come to
        self, outcome: Outcome, entry: FleetEntry | None, halted: Mapping[str, str]
    ) -> Outcome:
        """The outcome, with what became of it in the fleet."""
        tenant, version = outcome.tenant, outcome.version
        if entry is None and outcome.state in _MADE:
            return replace(outcome, state="fenced", reason="the tenant was deleted meanwhile")
        if entry is None or (version and entry.version == version):
            return outcome
        if outcome.state in _MADE and entry.lease_token > outcome.lease_token:
            reason = f"a later run has published version {entry.version} meanwhile"
            return replace(outcome, state="fenced", reason=reason)
        if tenant in halted:
            return replace(outcome, state="halted", reason=halted[tenant])
        if outcome.state != "trained":
            return outcome
        if entry.candidate == version:
            reason = f"waits for a person: macrofleet fleet promote {tenant}"
            return replace(outcome, state="waiting", reason=_both(reason, outcome.reason))
        if entry.shadow == version:
            reason = f"is compared with version {entry.version}: macrofleet fleet promote {tenant} has it serve"
            return replace(outcome, state="shadowed", reason=_both(reason, outcome.reason))
        return replace(outcome, state="held", reason=held_reason(tenant, entry))


def held_reason(tenant: str, entry: FleetEntry) -> str:
    """Why a tenant's newer version does not serve."""
    return f"the fleet holds version {entry.version}: macrofleet fleet rollback {tenant} --release lifts that"


def _checked(outcome: Outcome, mode: Promotion | InvalidInput | None) -> Outcome:
    """The outcome; failed where it cannot be known how its version is promoted."""
    return replace(outcome, state="failed", reason=str(mode)) if isinstance(mode, InvalidInput) else outcome


def _change(outcome: Outcome, mode: Promotion | InvalidInput | None) -> Change:
    """What an outcome changes at once."""
    version, manifest = outcome.version, outcome.manifest
    if mode == "manual":
        return _fenced(outcome, lambda entry: waits(entry, version, manifest))
    if mode == "shadow":
        return _fenced(outcome, lambda entry: shadows(entry, version, manifest))
    if outcome.state == "not_eligible":
        return _not_serving(outcome.reason)
    return _not_serving(_REASONS[outcome.state]) if outcome.state in _REASONS else _same


def _both(first: str, second: str) -> str:
    return f"{first}; {second}" if second else first


def _refused(outcome: Outcome) -> str:
    return f"version {outcome.version} was taken back by a halted roll-out; --force serves it all the same"


def _same(entry: FleetEntry | None) -> FleetEntry | None:
    return entry


def _first(change: Change, token: int | None) -> FleetEntry | None:
    """The first entry of a tenant, unless it is not there, or nothing may come of what was trained under an earlier token."""
    if token is None:
        return None
    before = FleetEntry(lease_token=token) if token else None
    after = change(before)
    return None if after == before else after


def _then(change: Change, step: Callable[[FleetEntry], FleetEntry]) -> Change:
    """A change, and then a step of an entry that there is."""

    def both(entry: FleetEntry | None) -> FleetEntry | None:
        after = change(entry)
        return after if after is None else step(after)

    return both


def _published(outcome: Outcome) -> Change:
    version, manifest, token = outcome.version, outcome.manifest, outcome.lease_token
    return lambda entry: (entry or FleetEntry()).published(version, manifest, token=token)


def _tried(outcome: Outcome) -> Change:
    version, manifest, token = outcome.version, outcome.manifest, outcome.lease_token
    return lambda entry: tries(entry or FleetEntry(), version, manifest, token=token)


def _fenced(outcome: Outcome, change: Callable[[FleetEntry | None], FleetEntry]) -> Change:
    """A change that is left out where something was published under a later lease."""

    def fenced(entry: FleetEntry | None) -> FleetEntry:
        before = entry or FleetEntry()
        if outcome.lease_token < before.lease_token:
            return before
        return change(entry).fenced(outcome.lease_token)

    return fenced


def _unserved(change: Change) -> Change:
    """A change, and the reason where the tenant has no model after it."""
    return lambda entry: _not_serving(_UNSERVED)(change(entry))


def _not_serving(reason: str) -> Change:
    def change(entry: FleetEntry | None) -> FleetEntry:
        # A model that serves goes on serving: too little new data is no reason to take it away.
        before = entry or FleetEntry()
        return before if before.serves else before.model_copy(update={"reason": reason})

    return change
