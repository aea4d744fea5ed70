"""What there is to say of a tenant's serving model, read from the store."""

from __future__ import annotations

import json
from typing import Any

from registry.errors import BundleCorrupt, ModelNotFound, ObjectNotFound, TenantNotFound
from registry.fleet.state import FleetEntry, read_fleet
from registry.layout import MANIFEST, PROVENANCE, model_key
from registry.model.bundle import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from registry.names import check_tenant
from registry.store import ObjectStore


def serving_entry(store: ObjectStore, tenant: str) -> tuple[FleetEntry, str, str]:
    """A tenant's fleet entry, its version and its manifest digest.

    Raises:
        TenantNotFound: it is not in the fleet.
        ModelNotFound: it is, but has no version to serve; says why.
    """
    entry = read_fleet(store).entries.get(check_tenant(tenant))
    if entry is None:
        raise TenantNotFound(
            f"tenant {tenant} is not in the fleet of {store.url}",
            remedy="Import its tickets and train it: macrofleet tickets import, macrofleet train.",
        )
    if entry.version is None or entry.manifest is None:
        raise ModelNotFound(f"tenant {tenant} has no model yet: {entry.reason or 'it was never trained'}")
    return entry, entry.version, entry.manifest


def read_manifest(store: ObjectStore, tenant: str, version: str, *, digest: str | None) -> Manifest:
    """The manifest of a version in the store, checked: its tenant, its digest, and that the version is its own.

    Args:
        digest: what its SHA-256 must be; None where only the version is known.

    Raises:
        ModelNotFound: the store has no such version.
        BundleCorrupt: it is another one's, or not what the digest says.
    """
    key = model_key(tenant, version, MANIFEST)
    try:
        data = store.get(key, max_bytes=MAX_MANIFEST_BYTES).data
    except ObjectNotFound:
        raise ModelNotFound(f"version {version} of tenant {tenant} is not in {store.url}") from None
    manifest = parse_manifest(data, tenant=tenant, digest=digest, what=f"{store.url}/{key}")
    if manifest.version != version:
        raise BundleCorrupt(f"{store.url}/{key} is the manifest of version {manifest.version}")
    return manifest


def describe_model(store: ObjectStore, tenant: str) -> dict[str, Any]:
    """Version, manifest and provenance of what a tenant serves. Raises as `serving_entry`, and BundleCorrupt."""
    entry, version, digest = serving_entry(store, tenant)
    manifest = read_manifest(store, tenant, version, digest=digest)
    try:
        provenance = json.loads(store.get(model_key(tenant, version, PROVENANCE), max_bytes=MAX_MANIFEST_BYTES).data)
    except (ObjectNotFound, ValueError, RecursionError):
        provenance = None
    return {
        "tenant": tenant,
        "version": version,
        "previous": entry.previous,
        "held": entry.hold_version,
        "manifest": manifest.model_dump(mode="json"),
        "provenance": provenance,
    }
