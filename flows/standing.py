"""How every tenant stands: eligible for a model or not, and why; what `macrofleet tenants list` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from flows.need import NO_WISH, read_tenant
from flows.settings import FlowSettings
from registry.errors import MacrofleetError, TenantNotFound
from registry.fleet.state import FleetEntry, in_threads, read_fleet
from registry.store import ObjectStore
from training.lake import Lake


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one tenant stands.

    Attributes:
        eligible: None where that cannot be judged.
        tickets, macros: what counts for it.
        version: that it serves, whether it is still eligible or not.
        reason: why it is not eligible, or cannot be judged.
    """

    tenant: str
    eligible: bool | None
    tickets: int = 0
    macros: int = 0
    version: str | None = None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)


def standings(store: ObjectStore, run: FlowSettings, *, now: datetime | None = None) -> list[Standing]:
    """Every tenant that has tickets or is in the fleet, by name.

    Raises:
        StoreError: the fleet or the list of tenants cannot be read.
    """
    when = now or datetime.now(UTC)
    entries: Mapping[str, FleetEntry] = read_fleet(store).entries

    def one(name: str) -> Standing:
        entry = entries.get(name)
        version = entry.version if entry else None
        try:
            found = read_tenant(store, name, run, NO_WISH).eligibility(when)
        except TenantNotFound:
            return Standing(tenant=name, eligible=False, version=version, reason="no tickets")
        except MacrofleetError as problem:
            return Standing(tenant=name, eligible=None, version=version, reason=problem.what)
        return Standing(
            tenant=name,
            eligible=found.eligible,
            tickets=found.tickets,
            macros=found.macros,
            version=version,
            reason=found.reason,
        )

    return in_threads(one, sorted({*Lake(store).tenants(), *entries}))
