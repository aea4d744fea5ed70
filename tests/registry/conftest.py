"""Small bundles for the tests of the disk tier."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from registry.bundle import Label, Manifest, write_bundle
from registry.publishing import publish_bundle
from registry.store import ObjectStore

Publish = Callable[..., Manifest]


@pytest.fixture
def publish() -> Publish:
    """Publishes a model of a tenant: `publish(store, tenant, seed=0, rows=64, program="a" * 64)`."""

    def publish_model(
        store: ObjectStore, tenant: str, *, seed: int = 0, rows: int = 64, program: str = "a" * 64
    ) -> Manifest:
        with tempfile.TemporaryDirectory() as folder:
            write_bundle(
                Path(folder),
                tenant=tenant,
                program=program,
                tensors={"kernel": np.random.default_rng(seed).standard_normal((rows, 16), np.float32)},
                macros=[Label(id=f"m{index}", title=f"Macro {index}") for index in range(5)],
                data_fingerprint="0" * 64,
                settings={"seed": seed},
                metrics={},
                threshold=0.0,
            )
            return publish_bundle(store, Path(folder), tenant=tenant)

    return publish_model
