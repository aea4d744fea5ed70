"""A fleet run whose bookkeeping is all in PostgreSQL: Prefect's and MLflow's."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy
from typer.testing import CliRunner

import macrofleet
from registry.fleet.state import read_fleet
from registry.model.program import publish_program
from registry.settings import StoreSettings
from registry.store import open_store
from tests.flows.test_retrain_fleet import fill
from tests.postgresql import LocalPostgres

REPOSITORY = Path(__file__).parents[2]


def test_a_fleet_run_on_postgresql(
    postgres: LocalPostgres, tmp_path: Path, bag_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(StoreSettings(url=str(tmp_path / "store")))
    publish_program(store, bag_folder)
    for tenant in ("acme", "globex"):
        fill(store, tenant, end=datetime.now(UTC))  # another process looks at them by its own clock
    prefect, mlflow = postgres.database(), postgres.database()
    settings = {
        "MACROFLEET_STORE_URL": str(tmp_path / "store"),
        "MACROFLEET_DISK_FOLDER": str(tmp_path / "disk"),
        "MACROFLEET_TRACKING_URI": mlflow,
        "MACROFLEET_ARTIFACT_LOCATION": str(tmp_path / "artifacts"),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": prefect.replace("postgresql://", "postgresql+asyncpg://"),
    }
    environment = {**os.environ, **settings}
    environment.pop("PREFECT_API_URL", None)

    command = [sys.executable, "-m", "macrofleet", "train", "--tenant", "acme", "--tenant", "globex", "--json"]
    trained = subprocess.run(
        command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False
    )
    assert trained.returncode == 0, trained.stderr
    assert set(read_fleet(store).serving()) == {"acme", "globex"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    verified = CliRunner().invoke(macrofleet.app, ["fleet", "verify", "--deep"])
    assert verified.exit_code == 0, verified.output
    assert postgres.password not in trained.stderr + trained.stdout + verified.output

    states = "SELECT name, state_name FROM task_run ORDER BY name"
    assert rows(prefect, states) == [("train acme", "Completed"), ("train globex", "Completed")]
    assert rows(prefect, "SELECT state_name FROM flow_run") == [("Completed",)]
    champions = "SELECT name, version FROM registered_model_aliases WHERE alias = 'champion' ORDER BY name"
    assert rows(mlflow, champions) == [("macrofleet.acme", 1), ("macrofleet.globex", 1)]
    nested = "SELECT count(*) FROM tags WHERE key = 'mlflow.parentRunId'"
    assert rows(mlflow, nested) == [(2,)]
    assert not list((tmp_path / "prefect").glob("*.db")), "nothing fell back to SQLite"


def rows(uri: str, query: str) -> list[tuple[object, ...]]:
    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(query))]
    finally:
        engine.dispose()
