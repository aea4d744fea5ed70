"""The outcomes of tenants for which nothing is trained this time: an earlier training is used, or nothing is to be done."""

from __future__ import annotations

from dataclasses import replace

from flows.need import Need
from flows.outcome import Outcome
from flows.staging import held_reason


def earlier(need: Need, *, force: bool) -> Outcome:
    """What an earlier training came to, as this run's outcome: only the fleet and the alias are left to do."""
    record = need.record
    forced = force and record.state == "not_promoted"
    return replace(
        _recorded(need),
        state="trained" if forced else record.state,
        reason=need.why.reason if forced else record.reason,
        why="" if forced else need.why.reason,
    )


def skipped(need: Need) -> Outcome:
    """The outcome of a tenant with nothing to do."""
    record = need.record
    if record.state == "not_eligible":
        return replace(_recorded(need), state=record.state, reason=record.reason)
    entry, reason = need.entry, need.why.reason
    if entry is not None and entry.hold_version and entry.manifest != record.manifest:
        reason = f"{reason}; {held_reason(need.tenant.name, entry)}"
    return replace(_recorded(need), state="unchanged", reason=reason)


def _recorded(need: Need) -> Outcome:
    record = need.record
    return Outcome(
        tenant=need.tenant.name,
        state=record.state,
        examples=record.examples,
        macros=record.macros,
        top1=record.top1,
        top3=record.top3,
        program=record.program,
        version=record.version or "",
        manifest=record.manifest or "",
    )
