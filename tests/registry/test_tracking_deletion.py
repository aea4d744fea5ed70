"""A tenant's records in MLflow are gone for good, not only marked, and those of the others are as they were."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from registry.errors import TrackingUnavailable
from registry.settings import StoreSettings
from registry.store import open_store
from registry.tracking.deletion import TrackingPlace
from registry.tracking.models import Tracking
from tests.registry.test_tracking import described

# A name that stands in no file of MLflow's own.
TENANT, OTHER = "vandelay-imports", "kramerica"


def with_tables(folder: Path, empty_mlflow: Path) -> Path:
    """The folder, with MLflow's tables in it."""
    (folder / "control").mkdir()
    shutil.copy(empty_mlflow, folder / "control" / "mlflow.db")
    return folder


def make_tracking(folder: Path, **options: Any) -> Tracking:
    uri = options.pop("tracking_uri", f"sqlite:///{folder}/control/mlflow.db")
    return Tracking(tracking_uri=uri, store=StoreSettings(url=str(folder / "store")), **options)


def fill(tracking: Tracking, *, versions: int = 3) -> None:
    """Register some versions of both tenants, with aliases."""
    for tenant in (TENANT, OTHER):
        for seed in range(versions):
            manifest = described(tenant, seed=seed, top1=0.5)
            tracking.register(manifest, parameters={"of": tenant}, tags={"note": f"trained for {tenant}"})
            tracking.set_alias(tenant, "champion", manifest_digest=manifest.digest)


def holding(folder: Path, name: str = TENANT) -> list[Path]:
    """Files with the name in them or in their path, byte by byte."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and (name in str(path) or name.encode() in path.read_bytes())
    ]


@pytest.fixture
def tracking(tmp_path: Path, empty_mlflow: Path) -> Tracking:
    made = make_tracking(with_tables(tmp_path, empty_mlflow))
    fill(made)
    return made


def mlflow_client(tracking: Tracking) -> Any:
    return tracking.connection.ask("cannot prepare the test", lambda client: client)


def test_not_a_byte_is_left_in_sqlite_nor_among_the_artifacts(tracking: Tracking, tmp_path: Path) -> None:
    place = TrackingPlace(tracking)
    assert len(holding(tmp_path)) > 3
    assert sorted(trace.partition(" ")[0] for trace in place.find(TENANT)) == ["registered", "run", "run", "run"]
    assert place.remove(TENANT) == 4
    assert place.find(TENANT) == []
    assert holding(tmp_path) == []
    assert len(place.find(OTHER)) == 4
    for seed in range(3):
        assert tracking.find(OTHER, described(OTHER, seed=seed, top1=0.5).digest) is not None
    assert place.remove(TENANT) == 0


def test_a_tenant_may_come_back(tracking: Tracking) -> None:
    TrackingPlace(tracking).remove(TENANT)
    assert tracking.register(described(TENANT), parameters={}, tags={}).version == "1"


def test_runs_that_somebody_marked_as_deleted_go_too_wherever_they_are(tracking: Tracking, tmp_path: Path) -> None:
    tags = {"macrofleet.tenant": TENANT}
    client = mlflow_client(tracking)
    elsewhere = client.create_experiment("one run of a fleet")
    for _ in range(2):
        run = client.create_run(elsewhere, run_name=f"{TENANT} alone", tags=tags)
        client.log_text(run.info.run_id, TENANT, "report.txt")
    client.delete_run(run.info.run_id)
    forgotten = client.create_experiment("forgotten")
    client.create_run(forgotten, tags=tags)
    client.delete_experiment(forgotten)
    client.create_run(elsewhere, tags={"macrofleet.tenant": f"{TENANT}-2"})
    place = TrackingPlace(tracking)
    assert place.remove(TENANT) == 3 + 2 + 1 + 1
    assert place.find(TENANT) == []
    assert len(place.find(f"{TENANT}-2")) == 1
    place.remove(f"{TENANT}-2")
    assert holding(tmp_path) == []


def test_more_runs_than_one_page(tmp_path: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.tracking.deletion._PAGE", 2)
    tracking = make_tracking(with_tables(tmp_path, empty_mlflow))
    fill(tracking, versions=5)
    assert TrackingPlace(tracking).remove(TENANT) == 6
    assert holding(tmp_path) == []


@pytest.mark.parametrize("at", ["delete_run", "_hard_delete_run", "delete_registered_model", "VACUUM"])
def test_what_was_interrupted_is_finished_by_another(
    tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    client = mlflow_client(tracking)
    with monkeypatch.context() as patched:
        owner = {
            "_hard_delete_run": client._tracking_client.store,
            "VACUUM": sqlite3,
        }.get(at, client)
        patched.setattr(owner, "connect" if at == "VACUUM" else at, crash)
        with pytest.raises(KeyboardInterrupt):
            TrackingPlace(tracking).remove(TENANT)
    place = TrackingPlace(tracking)
    place.remove(TENANT)
    assert place.find(TENANT) == []
    assert holding(tmp_path) == []


def test_what_another_process_still_reads_is_said_to_be_there(
    tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.tracking.deletion._PATIENCE_SECONDS", 0.1)
    place = TrackingPlace(tracking)
    assert tracking.connection.database
    with closing(sqlite3.connect(tracking.connection.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == (6,)
        place.remove(TENANT)
        (left,) = place.find(TENANT)
        assert left.startswith(f"{tracking.connection.database}-wal")
        assert holding(tmp_path), "as it says"
        reader.execute("COMMIT")
    assert place.find(TENANT) == []
    assert holding(tmp_path) == []


def test_a_file_that_another_process_writes_is_no_success(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.tracking.deletion._PATIENCE_SECONDS", 0.1)
    place = TrackingPlace(tracking)
    place.remove(TENANT)
    assert tracking.connection.database
    with closing(sqlite3.connect(tracking.connection.database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(TrackingUnavailable, match="locked"):
            place.remove(TENANT)
        writer.execute("ROLLBACK")
    assert place.remove(TENANT) == 0


def test_artifacts_in_a_bucket_go_with_what_it_keeps_of_them(
    versioned_settings: StoreSettings, tmp_path: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert versioned_settings.endpoint_url
    assert versioned_settings.access_key
    assert versioned_settings.secret_key
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", versioned_settings.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", versioned_settings.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", versioned_settings.secret_key.get_secret_value())
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    tracking = make_tracking(with_tables(tmp_path, empty_mlflow), artifact_location=f"{versioned_settings.url}/mlflow")
    fill(tracking, versions=1)
    store = open_store(versioned_settings)
    before = [state.key for state in store.states()]
    client = mlflow_client(tracking)
    (run,) = client.search_runs(["1"], f"tags.`macrofleet.tenant` = '{TENANT}'")
    client.log_text(run.info.run_id, TENANT, "model/MLmodel")
    TrackingPlace(tracking).remove(TENANT)
    left = list(store.states())
    assert 0 < len(left) < len(before)
    assert {state.kind for state in left} == {"current"}
    assert not [state.key for state in left if TENANT.encode() in store.get(state.key).data]


@pytest.fixture
def server(tmp_path: Path, empty_mlflow: Path) -> Iterator[str]:
    """A tracking server that hands artifacts through, over an SQLite file."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    make_tracking(with_tables(tmp_path, empty_mlflow)).prepare()
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    options = [
        f"--backend-store-uri=sqlite:///{tmp_path}/control/mlflow.db",
        f"--artifacts-destination={tmp_path}/served",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1", *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                assert time.monotonic() < deadline
                with suppress(subprocess.TimeoutExpired):
                    raise AssertionError(f"the server ended with {process.wait(0.1)}") from None
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_a_server_needs_a_command_beside_it_and_is_said_to(server: str, tmp_path: Path) -> None:
    tracking = make_tracking(tmp_path, tracking_uri=server, experiment="served")
    fill(tracking, versions=2)
    place = TrackingPlace(tracking)
    assert place.remove(TENANT) == 3
    left = place.find(TENANT)
    assert [trace.partition(" ")[0] for trace in left] == ["run", "run"]
    assert all(trace.endswith("(deleted)") for trace in left)
    assert not holding(tmp_path / "served"), "the artifacts went through the server"
    runs = ",".join(trace.split()[1] for trace in left)
    assert "mlflow gc --backend-store-uri URI --run-ids ID,…" in place.remedy
    command = ["gc", f"--backend-store-uri=sqlite:///{tmp_path}/control/mlflow.db", f"--run-ids={runs}"]
    subprocess.run(
        [sys.executable, "-m", "mlflow", *command],
        env={**os.environ, "MLFLOW_TRACKING_URI": server},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert place.remove(TENANT) == 0
    assert place.find(TENANT) == []
    assert len(place.find(OTHER)) == 3
