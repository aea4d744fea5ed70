"""What MLflow says of a tenant's versions. MLflow takes seconds to import and may be away: pages show it by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from registry.tracking.listing import list_aliases, list_versions
from registry.tracking.models import Tracking
from registry.tracking.records import TrackedVersion

_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRow:
    """A version in MLflow: its number, the version of ours that it stands for, its aliases and its run's figures."""

    number: int
    version: str
    aliases: Sequence[str]
    run_id: str
    metrics: Mapping[str, float]


class TrackedSource(Protocol):
    """Reads what MLflow has of a tenant."""

    def rows(self, tenant: str) -> Sequence[TrackedRow]:
        """Its versions, the latest first. Raises TrackingUnavailable."""
        ...


class MlflowSource:
    """Asks MLflow."""

    def __init__(self, tracking: Tracking) -> None:
        self._connection = tracking.connection

    def rows(self, tenant: str) -> Sequence[TrackedRow]:
        """The last dozen versions. Raises TrackingUnavailable."""
        versions = [one for one in list_versions(self._connection, [tenant]) if one.ours][-_SHOWN:]
        aliases = list_aliases(self._connection, [tenant]).get(tenant, {}) if versions else {}
        return [self._row(one, aliases) for one in reversed(versions)]

    def _row(self, found: TrackedVersion, aliases: Mapping[str, int]) -> TrackedRow:
        def metrics(client: Any) -> dict[str, float]:
            return dict(client.get_run(found.run_id).data.metrics) if found.run_id else {}

        return TrackedRow(
            number=found.number,
            version=found.version,
            aliases=sorted(alias for alias, number in aliases.items() if number == found.number),
            run_id=found.run_id,
            metrics=self._connection.ask("cannot be read", metrics),
        )
