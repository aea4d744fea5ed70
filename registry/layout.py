"""Where things lie in the object store; the only module that spells keys."""

from __future__ import annotations

import hashlib

from registry.names import check_tenant

WEIGHTS = "weights.safetensors"
LABELS = "macros.json"
MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
PROGRAM_FILES = "files.json"
FLEET_ROOT = "fleet/root.json"


def model_key(tenant: str, version: str, name: str) -> str:
    """The key of one file of a model version."""
    return f"{models_prefix(tenant)}{version}/{name}"


def models_prefix(tenant: str) -> str:
    """The prefix of all model versions of a tenant."""
    return f"tenants/{check_tenant(tenant)}/models/"


def catalogue_key(tenant: str) -> str:
    """The key of a tenant's live macro catalogue."""
    return f"tenants/{check_tenant(tenant)}/macros.json"


def lease_key(tenant: str) -> str:
    """The key of a tenant's lease: who works on it now."""
    return f"tenants/{check_tenant(tenant)}/lease.json"


def tenant_settings_key(tenant: str) -> str:
    """The key of a tenant's own settings of training."""
    return f"tenants/{check_tenant(tenant)}/settings.json"


def program_key(digest: str, name: str) -> str:
    """The key of one file of a program."""
    return f"programs/{digest}/{name}"


def examples_key(tenant: str) -> str:
    """The key of a tenant's labelled tickets in the lake."""
    return f"lake/tenants/{check_tenant(tenant)}/examples.parquet"


def training_record_key(tenant: str) -> str:
    """The key of the record of a tenant's last training."""
    return f"lake/tenants/{check_tenant(tenant)}/training.json"


LAKE_PREFIX = "lake/tenants/"


def fleet_shard(tenant: str) -> str:
    """The two hex digits of the fleet shard that holds a tenant."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:2]


def fleet_shard_key(shard: str, number: int) -> str:
    """The key of one immutable state of a fleet shard."""
    return f"fleet/shards/{shard}/{number}.json"
