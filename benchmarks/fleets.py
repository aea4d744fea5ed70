"""Fleets to measure and test with: bundles with random weights at real size, published like any other."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from registry.bundle import Label, Manifest, write_bundle
from registry.catalogue import Macro, make_catalogue, write_catalogue
from registry.fleet import Change, FleetEntry, update_fleet
from registry.program import ProgramSpec
from registry.publishing import publish_bundle
from registry.store import ObjectStore


def make_bundle(
    folder: Path,
    *,
    tenant: str,
    program: str,
    spec: ProgramSpec,
    macros: int = 5,
    seed: int = 0,
    threshold: float = 0.0,
) -> Manifest:
    """Write a bundle with random weights of the shapes that `spec` asks for."""
    rng = np.random.default_rng(seed)
    tensors = {
        name: rng.standard_normal([macros if isinstance(size, str) else size for size in tensor.shape], np.float32)
        for name, tensor in spec.weights("score_f32").items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    return write_bundle(
        folder,
        tenant=tenant,
        program=program,
        tensors=tensors,
        macros=[Label(id=f"m{index}", title=f"Macro {index}") for index in range(macros)],
        data_fingerprint="0" * 64,
        settings={"seed": seed},
        metrics={},
        threshold=threshold,
    )


def publish_tenants(
    store: ObjectStore,
    tenants: Sequence[str],
    *,
    program: str,
    spec: ProgramSpec,
    macros: int = 5,
    seed: int = 0,
    threshold: float = 0.0,
) -> dict[str, Manifest]:
    """Publish a random model and a catalogue for each tenant, and a fleet that serves them (as one write)."""
    made = {}
    for tenant in tenants:
        with tempfile.TemporaryDirectory() as folder:
            manifest = make_bundle(
                Path(folder), tenant=tenant, program=program, spec=spec, macros=macros, seed=seed, threshold=threshold
            )
            made[tenant] = publish_bundle(store, Path(folder), tenant=tenant)
        catalogue = make_catalogue(Macro(id=f"m{index}", title=f"Macro {index}") for index in range(macros))
        write_catalogue(store, tenant, catalogue, etag=None)
        assert manifest == made[tenant]

    def serve(manifest: Manifest) -> Change:
        return lambda _: FleetEntry(version=manifest.version, manifest=manifest.digest)

    update_fleet(store, {tenant: serve(manifest) for tenant, manifest in made.items()})
    return made
