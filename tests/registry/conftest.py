"""Small bundles for the tests of the disk tier, and an MLflow for those of what follows the fleet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stamina

from registry.model.bundle import Label, Manifest, write_bundle
from registry.publishing import publish_bundle
from registry.settings import StoreSettings
from registry.store import ObjectStore
from registry.tracking.models import Tracking

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


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """What may pass is tried again as often as ever, and at once."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def tracking(tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    """An MLflow of the test's own, which commands find in the environment, for the store in the folder `store`."""
    monkeypatch.setenv("MACROFLEET_TRACKING_URI", mlflow_uri)
    return Tracking(tracking_uri=mlflow_uri, store=StoreSettings(url=str(tmp_path / "store")))


def ask(tracking: Tracking, method: str, *arguments: Any, **options: Any) -> Any:
    """One of the methods of MLflow's client."""
    return tracking.connection.ask(f"cannot {method}", lambda client: getattr(client, method)(*arguments, **options))
