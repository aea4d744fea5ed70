"""What MLflow holds of ours, as plain data: the names and tags that things have there, versions and runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from registry.layout import models_prefix
from registry.names import check_tenant

PREFIX = "macrofleet."
MANIFEST_TAG = f"{PREFIX}manifest"
TENANT_TAG = f"{PREFIX}tenant"
VERSION_TAG = f"{PREFIX}version"
BUNDLE_TAG = f"{PREFIX}bundle"
FLEET_RUN_TAG = f"{PREFIX}fleet_run"
PARENT_TAG = "mlflow.parentRunId"


def registered_model(tenant: str) -> str:
    """MLflow's name for a tenant's models."""
    return f"{PREFIX}{check_tenant(tenant)}"


def bundle_address(store_url: str, tenant: str, version: str) -> str:
    """What MLflow is told of where a bundle lies."""
    return f"{store_url}/{models_prefix(tenant)}{version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedVersion:
    """A version of a registered model.

    Attributes:
        number: MLflow's.
        version, manifest, bundle: what it was registered with, as its tags say; empty where somebody else made it.
    """

    tenant: str
    number: int
    run_id: str
    version: str
    manifest: str
    bundle: str

    @property
    def ours(self) -> bool:
        """Whether it says of a bundle that it is its registration."""
        return bool(self.manifest) and self.version == self.manifest[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """A run of ours.

    Attributes:
        tenant, manifest: of a model's run; empty for a fleet's.
        fleet_run: of a fleet's run, its name; empty for a model's.
        parent: the fleet's run that a model's is nested in; empty where there is none.
        status: "RUNNING", "FINISHED", "FAILED" or "KILLED".
    """

    run_id: str
    experiment_id: str
    tenant: str
    manifest: str
    fleet_run: str
    parent: str
    status: str
    started_at: datetime
