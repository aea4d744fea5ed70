"""What became of one tenant in a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import LeaseHeld, MacrofleetError, NotEnoughData, TenantDeleted, TenantNotFound

if TYPE_CHECKING:
    from training.trainer import Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one tenant.

    Attributes:
        state: "trained"; "not_promoted" (trained and registered, but the gate refused it); "held" (the same, but a
            roll-back holds another version); "waiting" (passed, and waits for a person to promote it); "shadowed" (is
            compared with what serves); "halted" (passed, but its roll-out was halted); "fenced" (trained, but a later run has
            published another version, or the tenant was deleted); "busy" (another run works on it); "unchanged" (not
            trained: nothing asks for it); "not_eligible" (too little data); "unknown" (no such tenant); "failed".
        reason: why it was not trained, or does not serve. Never an exception's text that is not ours, which could quote a ticket.
        why: why it was trained (new, or what changed), or what an earlier training came to is used.
        program_reason: why that program; empty where nothing was to be chosen.
        top1, top3: None where there were no rows to judge on.
        lease_token: of the lease that it was trained under.
    """

    tenant: str
    state: str
    reason: str = ""
    why: str = ""
    examples: int = 0
    macros: int = 0
    top1: float | None = None
    top3: float | None = None
    fit_seconds: float = 0.0
    model_bytes: int = 0
    program: str = ""
    program_reason: str = ""
    version: str = ""
    manifest: str = ""
    seconds: float = 0.0
    lease_token: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)


def failure(tenant: str, problem: BaseException) -> Outcome:
    """The outcome of a tenant that could not be trained."""
    if not isinstance(problem, MacrofleetError):
        return Outcome(tenant=tenant, state="failed", reason=f"{type(problem).__name__}; where is in this run's log")
    states = {
        LeaseHeld: "busy",
        NotEnoughData: "not_eligible",
        TenantDeleted: "fenced",
        TenantNotFound: "unknown",
    }
    return Outcome(tenant=tenant, state=states.get(type(problem), "failed"), reason=str(problem))


def trained_outcome(trained: Trained, seconds: float, *, why: str) -> Outcome:
    """The outcome of a tenant that was trained because of `why`, in so many seconds, before anybody judges its model."""
    manifest = trained.manifest
    return Outcome(
        tenant=manifest.tenant,
        state="trained",
        why=why,
        examples=trained.examples,
        macros=trained.macros,
        top1=trained.evaluation.top1,
        top3=trained.evaluation.top3,
        fit_seconds=round(trained.fit_seconds, 3),
        model_bytes=sum(file.size for file in manifest.files.values()),
        program=trained.program,
        program_reason=trained.program_reason,
        version=manifest.version,
        manifest=manifest.digest,
        seconds=round(seconds, 3),
    )
