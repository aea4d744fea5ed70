"""Publishing a bundle: files first, manifest last, so that a reader finds a whole model or none."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry.documents import canonical_json
from registry.errors import PreconditionFailed, PublishConflict
from registry.files import put_immutable, put_immutable_file
from registry.garbage.collecting import claim
from registry.layout import MANIFEST, PROVENANCE, model_key
from registry.model.bundle import Manifest, parse_manifest
from registry.model.mapped import check_files
from registry.store import ObjectStore

# What a collector is deleting is gone in a second; one that died leaves a notice that its successor removes.
_PAUSES = (0.1, 0.3, 1.0, 3.0, 5.0, 10.0)


def publish_bundle(
    store: ObjectStore, folder: Path, *, tenant: str, sleep: Callable[[float], None] = time.sleep
) -> Manifest:
    """Write a bundle to the store. A rerun after a crash at any point finishes it; a finished one is written once.

    It is claimed (`registry.garbage.collecting`): garbage collection leaves it alone for a day, in which the fleet may name it.

    Args:
        sleep: waits for so many seconds, where a collector is just deleting what is to be published again.

    Raises:
        BundleCorrupt: the folder's manifest is not this tenant's, or a file is not what the manifest says. Nothing is
            written then.
        PublishConflict: the version exists with other content, or a collector does not finish deleting it.
    """
    data = (folder / MANIFEST).read_bytes()
    manifest = parse_manifest(data, tenant=tenant, digest=None, what=str(folder / MANIFEST))
    check_files(folder, manifest)
    for pause in (*_PAUSES, None):
        for name in sorted(manifest.files):
            put_immutable_file(store, model_key(tenant, manifest.version, name), folder / name)
        written = put_immutable(store, model_key(tenant, manifest.version, MANIFEST), data)
        if claim(store, manifest, young=written):
            return manifest
        if pause is not None:
            sleep(pause)
    raise PublishConflict(
        f"version {manifest.version} of tenant {tenant} is being deleted as garbage",
        remedy="Run `macrofleet garbage collect` an hour after the collector that was interrupted, then run this again.",
    )


def record_provenance(store: ObjectStore, *, tenant: str, version: str, provenance: dict[str, Any]) -> None:
    """Write down who made a version, when and how; outside the digest, and the first record stays."""
    try:
        store.put(model_key(tenant, version, PROVENANCE), canonical_json(provenance), if_absent=True)
    except PreconditionFailed:
        return
