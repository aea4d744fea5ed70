"""Who writes and who reads what in the object store: what SeaweedFS's identities and Amazon's roles are both held to."""

from __future__ import annotations

FEEDBACK = "lake/tenants/acme/feedback/2026-11-03/w-00000001.jsonl.gz"
_MODELS = {"training", "operations"}
# By an example of each kind of key.
WRITERS = {
    "tenants/acme/models/0/manifest.json": _MODELS,
    "tenants/acme/lease.json": _MODELS,
    "tenants/acme/settings.json": _MODELS,
    "tenants/acme/macros.json": _MODELS,
    "fleet/root.json": _MODELS,
    "fleet/shards/00/1.json": _MODELS,
    "lake/tenants/acme/examples.parquet": _MODELS,
    FEEDBACK: {"serving", *_MODELS},
    "runs/20261128T020000-1a2b3c4d5e6f/run.json": _MODELS,
    "programs/0/program.json": {"release"},
    "access/keys.json": {"operations"},
    "deleted/0.json": {"operations"},
    "garbage/run.json": {"operations"},
}
READERS = {
    "tenants/acme/models/0/manifest.json": {"serving", *_MODELS},
    "tenants/acme/macros.json": {"serving", *_MODELS},
    "tenants/acme/settings.json": {"serving", *_MODELS},
    "fleet/root.json": {"serving", *_MODELS},
    "programs/0/program.json": {"serving", "release", *_MODELS},
    "access/keys.json": {"serving", "operations"},
    "deleted/0.json": {"serving", *_MODELS},
    # Tickets: not the servers'.
    "lake/tenants/acme/examples.parquet": _MODELS,
    "runs/20261128T020000-1a2b3c4d5e6f/run.json": _MODELS,
    "garbage/run.json": {"operations"},
}
WHO = ("serving", "training", "operations", "release")
