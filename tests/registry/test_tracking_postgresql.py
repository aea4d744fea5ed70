"""MLflow on PostgreSQL: the same as on SQLite, for several writers at once and across a restart of the server."""

from __future__ import annotations

import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from registry.errors import TrackingUnavailable
from registry.fleet.state import FleetEntry, update_fleet
from registry.settings import StoreSettings
from registry.store import open_store
from registry.tracking.connection import _make_tables
from registry.tracking.models import Tracking
from registry.tracking.retention import prune_runs
from registry.verify.reconcile import verify_fleet
from tests.postgresql import LocalPostgres
from tests.registry.conftest import Publish, ask
from tests.registry.opening_at_once import open_at_once
from tests.registry.test_differences import manifest_of
from tests.registry.test_registering import versions

REPOSITORY = Path(__file__).parents[2]
LATER = timedelta(days=40)


@pytest.fixture(scope="module")
def prepared(postgres: LocalPostgres) -> str:
    """A database with MLflow's tables, which take seconds to make; tests have tenants of their own."""
    uri = postgres.database()
    Tracking(tracking_uri=uri, store=StoreSettings(), artifact_location="/nowhere").connection.ask("", lambda _: None)
    return uri


@pytest.fixture
def tracking(prepared: str, tmp_path: Path, request: pytest.FixtureRequest) -> Tracking:
    return Tracking(
        tracking_uri=prepared,
        store=StoreSettings(url=str(tmp_path / "store")),
        experiment=request.node.name,
        artifact_location=str(tmp_path / "artifacts"),
    )


def test_several_processes_may_open_an_empty_database_at_once(postgres: LocalPostgres, tmp_path: Path) -> None:
    assert open_at_once(postgres.database(), tmp_path, artifacts=tmp_path) == ""


def test_what_is_registered_is_found_verified_and_pruned(tracking: Tracking, tmp_path: Path, publish: Publish) -> None:
    store = open_store(StoreSettings(url=str(tmp_path / "store")))
    old, new = (publish(store, "acme", seed=seed) for seed in (0, 1))
    for manifest in (old, new, new):
        tracking.register(manifest, parameters={"examples": 3}, tags={}, fleet_run="20261128T020000-aaaaaaaaaaaa")
    assert len(versions(tracking)) == 2
    update_fleet(store, {"acme": lambda _: FleetEntry().with_version(new.version, new.digest)})
    tracking.set_alias("acme", "champion", manifest_digest=old.digest)
    for name in ("manifest.json", "macros.json", "weights.safetensors"):
        store.delete(f"tenants/acme/models/{old.version}/{name}")

    def left(*, repair: bool = False) -> set[str]:
        later = datetime.now(UTC) + LATER
        found = verify_fleet(store, tracking, tenants=["acme"], repair=repair, clock=lambda: later)
        return {str(one.difference.kind) for one in found.open}

    lasting = {"catalogue_missing", "program_missing"}
    assert left() == {*lasting, "alias_differs", "bundle_gone", "provenance_missing"}
    assert left(repair=True) == left() == lasting
    (version,) = versions(tracking)
    assert version.tags["macrofleet.manifest"] == new.digest

    tracking.runs.finish("20261128T020000-aaaaaaaaaaaa", figures={})
    pruned = prune_runs(tracking, keep=0, older_than=timedelta(days=30), now=datetime.now(UTC) + LATER)
    assert (len(pruned.runs), pruned.removed) == (1, 1)
    assert ask(tracking, "get_run", version.run_id)


def test_several_writers_at_once(tracking: Tracking, prepared: str, tmp_path: Path) -> None:
    def register(place: int) -> str:
        own = Tracking(
            tracking_uri=prepared,
            store=StoreSettings(url=str(tmp_path / "store")),
            experiment=tracking.runs.experiment,
            artifact_location=str(tmp_path / "artifacts"),
        )
        return own.register(manifest_of(f"writer{place}"), parameters={}, tags={}).version

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(register, range(16))) == ["1"] * 16


def test_a_restart_is_waited_for_and_a_password_shown_nowhere(
    tracking: Tracking, postgres: LocalPostgres, no_waiting: None, caplog: pytest.LogCaptureFixture
) -> None:
    tracking.register(manifest_of("restart", 0), parameters={}, tags={})
    postgres.stop()
    try:
        for fresh in (tracking, another(tracking)):
            with pytest.raises(TrackingUnavailable, match=r"postgresql://127\.0\.0\.1:\d+/test_\w+ cannot") as down:
                fresh.find("restart", "0" * 64)
            said = "".join(traceback.format_exception(down.value)) + caplog.text
            assert postgres.password not in said
    finally:
        postgres.start()
    assert tracking.register(manifest_of("restart", 1), parameters={}, tags={}).version == "2"


def test_a_database_that_goes_before_the_registry_was_asked_fails_at_once(
    postgres: LocalPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_waiting: None
) -> None:
    """MLflow opens it once more for the registry, and by itself would try that for a minute and a half."""
    from mlflow.store.db import utils

    tracking = Tracking(
        tracking_uri=postgres.database(), store=StoreSettings(url=str(tmp_path)), artifact_location=str(tmp_path)
    )
    tracking.prepare()
    monkeypatch.setattr(utils, "time", SimpleNamespace(sleep=lambda _: pytest.fail("MLflow waits")))
    postgres.stop()
    try:
        with pytest.raises(TrackingUnavailable, match="cannot look a model up"):
            tracking.find("acme", "0" * 64)
    finally:
        postgres.start()
    assert tracking.find("acme", "0" * 64) is None


def test_a_database_of_another_mlflow_is_left_to_its_owner(postgres: LocalPostgres, tmp_path: Path) -> None:
    import sqlalchemy

    uri = postgres.database()
    _make_tables(uri)
    engine = sqlalchemy.create_engine(uri)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '000000000000'"))
    engine.dispose()
    tracking = Tracking(tracking_uri=uri, store=StoreSettings(), artifact_location=str(tmp_path))
    with pytest.raises(TrackingUnavailable, match=r"another version of MLflow.*mlflow db upgrade"):
        tracking.prepare()


def another(tracking: Tracking) -> Tracking:
    """One that has opened nothing yet."""
    location = tracking.connection.artifact_location
    return Tracking(tracking_uri=tracking.connection.uri, store=StoreSettings(), artifact_location=location)
