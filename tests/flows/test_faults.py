"""What training says when the store, MLflow or the disk fails in the middle, and that a rerun finishes it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import stamina

from flows import need, retraining, trainers
from flows.outcome import Outcome, failure
from flows.retraining import Retraining
from registry.errors import MacrofleetError, OutOfResources
from registry.fleet.state import read_fleet
from registry.leases import Leases
from registry.model.program import publish_program
from registry.seaweedfs import LocalS3
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store
from registry.tracking.artifact import ArtifactTemplate
from registry.tracking.models import Tracking
from registry.verify.reconcile import verify_fleet
from tests.flows.test_retrain_fleet import fill
from tests.full_disk import full_disk
from tests.registry.lease_world import JumpingClock
from tests.tcp_proxy import TcpProxy
from training.fitting import FitSettings
from training.synthetic import DEFAULT_END
from training.trainer import Trained, Trainer

QUICK = FitSettings(least_steps=60)  # good enough to pass the gate


@pytest.fixture(autouse=True)
def environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bag_folder: Path, bag_loaded: None, mlflow_uri: str
) -> Iterator[None]:
    """Everything in a folder of the test's own; retries come at once, and nobody waits for a lease to run out."""
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    monkeypatch.setenv("MACROFLEET_DISK_FOLDER", str(tmp_path / "disk"))
    monkeypatch.setenv("MACROFLEET_TRACKING_URI", mlflow_uri)
    monkeypatch.setattr(trainers, "build_and_publish", lambda _name, store: publish_program(store, bag_folder))
    monkeypatch.setattr(need, "FIT", QUICK)
    # When the made-up tickets end.
    monkeypatch.setattr(retraining, "_utc_now", lambda: DEFAULT_END)
    clock = JumpingClock()
    monkeypatch.setattr(retraining, "Leases", partial(Leases, clock=clock, sleep=clock.sleep))
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def retrain(tenant: str) -> Outcome:
    """One tenant by a process that has just started, as the flow does it."""
    work = Retraining.from_environment()
    work.prepare()
    try:
        outcome = work.train(tenant)
    except MacrofleetError as problem:
        return failure(tenant, problem)
    _, (served,), warnings = work.serve([outcome])
    assert warnings == []
    return served


def fails_once_trained(monkeypatch: pytest.MonkeyPatch, fault: Callable[[], object]) -> None:
    """Have `fault` happen when a model is fitted and nothing of it is published yet."""
    train = Trainer.train

    def trained(*arguments: Any, **options: Any) -> Trained:
        made = train(*arguments, **options)
        fault()
        return made

    monkeypatch.setattr(Trainer, "train", trained)


def nothing_is_left_to_do(store: ObjectStore) -> None:
    tracking = Tracking.from_settings(Retraining.from_environment()._settings, StoreSettings())
    assert verify_fleet(store, tracking, deep=True).findings == ()


def test_a_store_that_goes_away_while_a_tenant_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalS3(tmp_path / "s3") as server, TcpProxy() as proxy:

        def reconnect() -> None:
            server.start()
            proxy.port = int(server.endpoint_url.rpartition(":")[2])

        def stop() -> None:
            server.stop()
            proxy.drop()

        proxy.port = int(server.endpoint_url.rpartition(":")[2])
        settings = server.settings
        assert settings.secret_key
        for name, value in {
            "URL": settings.url,
            "ENDPOINT_URL": proxy.url,
            "REGION": "us-east-1",
            "ACCESS_KEY": str(settings.access_key),
            "SECRET_KEY": settings.secret_key.get_secret_value(),
        }.items():
            monkeypatch.setenv(f"MACROFLEET_STORE_{name}", value)
        store = open_store(StoreSettings())
        fill(store, "acme")
        with monkeypatch.context() as patched:
            fails_once_trained(patched, stop)
            outcome = retrain("acme")
        assert (outcome.state, settings.url in outcome.reason) == ("failed", True)
        assert "cannot be used" in outcome.reason
        assert "MACROFLEET_STORE_ENDPOINT_URL" in outcome.reason
        assert settings.secret_key.get_secret_value() not in outcome.reason

        reconnect()
        assert read_fleet(store).serving() == {}
        again = retrain("acme")
        assert (again.state, read_fleet(store).entries["acme"].version) == ("trained", again.version)
        nothing_is_left_to_do(store)


def test_mlflow_that_goes_away_while_a_tenant_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(StoreSettings())
    fill(store, "acme")
    database = tmp_path / "mlflow.db"

    def replace_with_a_folder() -> None:
        # What SQLAlchemy has open would go on working: it opens the file anew for each piece of work here.
        for path in tmp_path.glob("mlflow.db*"):
            if path.is_file():
                path.rename(tmp_path / f"away-{path.name}")
        database.mkdir()

    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        fails_once_trained(patched, replace_with_a_folder)
        outcome = retrain("acme")
    assert outcome.state == "failed"
    assert f"MLflow at sqlite:///{database} cannot look a model up" in outcome.reason
    assert "serving does not need it" in outcome.reason
    assert read_fleet(store).serving() == {}

    database.rmdir()
    for path in tmp_path.glob("away-*"):
        path.rename(tmp_path / path.name.removeprefix("away-"))
    assert retrain("acme").state == "trained"
    nothing_is_left_to_do(store)


def test_no_room_to_put_a_model_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(StoreSettings())
    fill(store, "acme")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with full_disk(tmp_path / "temporary", monkeypatch):
        work = Retraining.from_environment()
        work.prepare()
        with pytest.raises(OutOfResources) as full:
            work.train("acme")
        outcome = failure("acme", full.value)
        assert list((tmp_path / "temporary").iterdir()) == [], "what was begun is not left behind"
    assert outcome.state == "failed"
    assert f"there is no space left in {tmp_path / 'temporary'}" in outcome.reason
    assert "TMPDIR" in outcome.reason
    assert retrain("acme").state == "trained"


def test_no_room_to_keep_the_champion_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(StoreSettings())
    fill(store, "acme")
    first = retrain("acme")
    fill(store, "acme", tickets=150)
    champions = tmp_path / "disk" / "champions"
    shutil.rmtree(champions, ignore_errors=True)
    with full_disk(champions, monkeypatch):
        outcome = retrain("acme")
    assert outcome.state == "failed"
    assert f"cannot write below {champions}: No space left on device" in outcome.reason
    assert read_fleet(store).entries["acme"].version == first.version
    assert retrain("acme").state == "trained"
    nothing_is_left_to_do(store)


def test_no_room_for_mlflows_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(StoreSettings())
    fill(store, "acme")
    artifacts = tmp_path / "artifacts"
    monkeypatch.setenv("MACROFLEET_ARTIFACT_LOCATION", str(artifacts))
    big = ArtifactTemplate.write

    def bigger(template: ArtifactTemplate, folder: Path, **options: Any) -> None:
        big(template, folder, **options)
        (folder / "more").write_bytes(bytes(100_000))

    with full_disk(artifacts, monkeypatch), monkeypatch.context() as patched:
        patched.setattr(ArtifactTemplate, "write", bigger)
        outcome = retrain("acme")
    assert outcome.state == "failed"
    assert "cannot register a model: there is no space left on its disk" in outcome.reason
    assert retrain("acme").state == "trained"
