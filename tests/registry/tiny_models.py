"""Models of a few bytes, for tests of what becomes of models: whole bundles, and what passes for one in a store."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from registry.files import FileDigest
from registry.layout import LABELS, MANIFEST, WEIGHTS, model_key
from registry.model.bundle import Label, Manifest, write_bundle
from registry.store import ObjectStore


@cache
def bundle(tenant: str, number: int, program: str) -> tuple[Path, Manifest]:
    """The folder and the manifest of one of a tenant's models; the same for all tests of this process."""
    folder = Path(tempfile.mkdtemp(prefix="macrofleet-test-"))
    manifest = write_bundle(
        folder,
        tenant=tenant,
        program=program,
        tensors={"kernel": np.full((2, 2), number, np.float32)},
        macros=[Label(id="m0", title="Zero"), Label(id="m1", title="One")],
        data_fingerprint="b" * 64,
        settings={"seed": number},
        metrics={},
        threshold=0.25,
    )
    return folder, manifest


def manifest(tenant: str, number: int) -> Manifest:
    """Of one of a tenant's versions, which has no files of its own."""
    file = FileDigest(sha256="0" * 64, size=1)
    return Manifest(
        tenant=tenant,
        program="0" * 64,
        files={WEIGHTS: file, LABELS: file},
        data_fingerprint="0" * 64,
        settings={"seed": number},
        metrics={},
        threshold=0.5,
    )


def put_version(store: ObjectStore, tenant: str, number: int) -> Manifest:
    """One of a tenant's versions, as far as anybody looks at it who does not read its files."""
    made = manifest(tenant, number)
    for name, data in {WEIGHTS: b"w", LABELS: b"l", MANIFEST: made.to_bytes()}.items():
        store.put(model_key(tenant, made.version, name), data)
    return made
