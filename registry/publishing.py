"""Publishing a bundle: files first, manifest last, so that a reader finds a whole model or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from registry.bundle import Manifest, parse_manifest
from registry.documents import canonical_json
from registry.errors import PreconditionFailed
from registry.files import put_immutable, put_immutable_file
from registry.layout import MANIFEST, PROVENANCE, model_key
from registry.mapped import check_files
from registry.store import ObjectStore


def publish_bundle(store: ObjectStore, folder: Path, *, tenant: str) -> Manifest:
    """Write a bundle to the store. A rerun after a crash at any point finishes it; a finished one is left alone.

    Raises:
        BundleCorrupt: the folder's manifest is not this tenant's, or a file is not what the manifest says. Nothing is
            written then.
        PublishConflict: the version exists with other content.
    """
    data = (folder / MANIFEST).read_bytes()
    manifest = parse_manifest(data, tenant=tenant, digest=None, what=str(folder / MANIFEST))
    check_files(folder, manifest)
    for name in sorted(manifest.files):
        put_immutable_file(store, model_key(tenant, manifest.version, name), folder / name)
    put_immutable(store, model_key(tenant, manifest.version, MANIFEST), data)
    return manifest


def record_provenance(store: ObjectStore, *, tenant: str, version: str, provenance: dict[str, Any]) -> None:
    """Write down who made a version, when and how; outside the digest, and the first record stays."""
    try:
        store.put(model_key(tenant, version, PROVENANCE), canonical_json(provenance), if_absent=True)
    except PreconditionFailed:
        return
