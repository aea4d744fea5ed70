"""What the console asks of a real MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.registering import make_manifest
from flows.console.tracked_view import MlflowSource
from registry.errors import TrackingUnavailable
from registry.settings import StoreSettings
from registry.tracking.models import Tracking


def test_versions_come_with_their_aliases_and_figures_the_latest_first(tmp_path: Path, mlflow_uri: str) -> None:
    store = StoreSettings(url=str(tmp_path / "store"))
    tracking = Tracking(tracking_uri=mlflow_uri, store=store)
    source = MlflowSource(tracking)
    assert source.rows("acme") == []
    made = [make_manifest("acme", seed) for seed in range(2)]
    for manifest in made:
        tracking.register(manifest, parameters={}, tags={})
    tracking.register(make_manifest("globex", 0), parameters={}, tags={})
    tracking.set_alias("acme", "champion", manifest_digest=made[0].digest)
    rows = source.rows("acme")
    assert [(row.number, row.version, list(row.aliases)) for row in rows] == [
        (2, made[1].version, []),
        (1, made[0].version, ["champion"]),
    ]
    assert rows[0].metrics["metric_0"] == 0.5


def test_an_mlflow_that_is_away_is_the_domains_error(tmp_path: Path, retry_waits: list[float]) -> None:
    tracking = Tracking(tracking_uri="http://127.0.0.1:1", store=StoreSettings(url=str(tmp_path / "store")))
    with pytest.raises(TrackingUnavailable):
        MlflowSource(tracking).rows("acme")
    assert retry_waits
