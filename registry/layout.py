"""Where things lie in the object store; the only module that spells keys."""

from __future__ import annotations

import hashlib

from registry.names import check_run, check_tenant

WEIGHTS = "weights.safetensors"
LABELS = "macros.json"
MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
PROGRAM_FILES = "files.json"
FLEET_ROOT = "fleet/root.json"
FLEET_PREFIX = "fleet/"
ACCESS_KEYS = "access/keys.json"
TENANTS_PREFIX = "tenants/"
PROGRAMS_PREFIX = "programs/"
COLLECTION = "garbage/run.json"
# In a copy of a store only.
COPY_MARK = "copy/mark.json"
COPY_DOCUMENTS = "copy/documents.json"


def never_changes(key: str) -> bool:
    """Whether what lies under a key is the same wherever it lies: models, programs, states of the fleet's shards."""
    parts = key.split("/")
    return (
        parts[0] == "programs"
        or key.startswith("fleet/shards/")
        or (parts[0] == "tenants" and parts[2:3] == ["models"])
    )


def model_key(tenant: str, version: str, name: str) -> str:
    """The key of one file of a model version."""
    return f"{models_prefix(tenant)}{version}/{name}"


def models_prefix(tenant: str) -> str:
    """The prefix of all model versions of a tenant."""
    return f"tenants/{check_tenant(tenant)}/models/"


def collecting_key(tenant: str) -> str:
    """The key of the notice that versions of a tenant are being deleted."""
    return f"{tenant_prefix(tenant)}collecting.json"


def tenant_prefix(tenant: str) -> str:
    """The prefix of all that is a tenant's, but for its tickets."""
    return f"{TENANTS_PREFIX}{check_tenant(tenant)}/"


def lake_prefix(tenant: str) -> str:
    """The prefix of a tenant's tickets and all that comes of them but models."""
    return f"{LAKE_PREFIX}{check_tenant(tenant)}/"


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
    return f"{PROGRAMS_PREFIX}{digest}/{name}"


def examples_key(tenant: str) -> str:
    """The key of a tenant's labelled tickets in the lake."""
    return f"lake/tenants/{check_tenant(tenant)}/examples.parquet"


def sync_prefix(tenant: str, source: str) -> str:
    """The prefix of what a synchronisation of a tenant with a help desk has read and not yet brought to the lake."""
    return f"{lake_prefix(tenant)}sync/{source}/"


def training_record_key(tenant: str) -> str:
    """The key of the record of a tenant's last training."""
    return f"lake/tenants/{check_tenant(tenant)}/training.json"


def tombstone_key(tenant: str) -> str:
    """The key of the note that a tenant was deleted; a digest stands for the name."""
    return f"{TOMBSTONES_PREFIX}{hashlib.sha256(check_tenant(tenant).encode()).hexdigest()[:32]}.json"


def feedback_prefix(tenant: str) -> str:
    """The prefix of all feedback on a tenant's suggestions."""
    return f"{lake_prefix(tenant)}feedback/"


def feedback_key(tenant: str, day: str, writer: str, segment: int) -> str:
    """The key of one tenant's part of one segment of a server's journal of feedback.

    Args:
        day: when the segment was begun, `2026-11-03`, so that readers of some days list no others.
        writer: of the journal; no two have the same.
        segment: its number.
    """
    return f"{feedback_prefix(tenant)}{day}/{writer}-{segment:08d}.jsonl.gz"


def packed_feedback_key(tenant: str, day: str, digest: str) -> str:
    """The key of what was one day's objects of feedback.

    Args:
        digest: of the records.
    """
    return f"{feedback_prefix(tenant)}{day}/packed-{digest}.jsonl.gz"


LAKE_PREFIX = "lake/tenants/"
TOMBSTONES_PREFIX = "deleted/"


def fleet_shard(tenant: str) -> str:
    """The two hex digits of the fleet shard that holds a tenant."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:2]


def fleet_shard_prefix(shard: str) -> str:
    """The prefix of all states of a fleet shard."""
    return f"fleet/shards/{shard}/"


def fleet_shard_key(shard: str, number: int) -> str:
    """The key of one immutable state of a fleet shard."""
    return f"{fleet_shard_prefix(shard)}{number}.json"


def fleet_generation_key(generation: int, digest: str) -> str:
    """The key of the record of a generation of the fleet that was replaced.

    Args:
        digest: of the record, so that two records of one number are apart.
    """
    return f"fleet/generations/{generation}-{digest[:16]}.json"


RUNS_PREFIX = "runs/"


def run_key(run: str, name: str) -> str:
    """The key of one document of a training run."""
    return f"{RUNS_PREFIX}{check_run(run)}/{name}"


def run_tracking_key(run: str) -> str:
    """The key of what a training run is in MLflow."""
    return run_key(run, "mlflow.json")


def run_shard_key(run: str, shard: int) -> str:
    """The key of what became of one shard of a training run."""
    return run_key(run, f"shards/{shard:03d}.json")
