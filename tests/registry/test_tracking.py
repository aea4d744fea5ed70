"""MLflow: what is recorded of a bundle, and that MLflow's own loader scores as the runtime does."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # has no types of its own
import pytest
from pydantic import SecretStr
from urllib3.util import connection

from benchmarks.fleets import publish_tenants
from registry.disk.tier import DiskTier
from registry.errors import InvalidInput, InvalidTenant, ModelNotFound, ProgramUntrusted, TrackingUnavailable
from registry.files import FileDigest
from registry.model.bundle import Manifest
from registry.model.program import SPEC, ProgramSpec, program_digest, publish_program, read_spec
from registry.model.runtime import Program
from registry.settings import StoreSettings
from registry.store import open_store
from registry.tracking.models import Registration, Tracking
from tests.registry.opening_at_once import open_at_once

REPOSITORY = Path(__file__).parents[2]
ACCESS_KEY, SECRET_KEY = "access-key-of-the-store", "secret-key-of-the-store"
TEXTS = ["Where is my order?", "I want my money back", "", "Grüße, 你好 🙂", "order order " * 200]


@dataclass(frozen=True)
class World:
    """A store with models in it, and an MLflow beside."""

    folder: Path
    settings: StoreSettings
    tracking_uri: str
    tracking: Tracking
    program_folder: Path
    program: str
    manifests: dict[str, Manifest]

    @property
    def artifacts(self) -> Path:
        return self.folder / "control" / "mlflow-artifacts"

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, bag_folder: Path) -> World:
    folder = tmp_path_factory.mktemp("tracking")
    settings = StoreSettings(
        url=str(folder / "store"),
        endpoint_url="http://127.0.0.1:1",
        access_key=ACCESS_KEY,
        secret_key=SecretStr(SECRET_KEY),
    )
    store = open_store(settings)
    program = program_digest(bag_folder)
    shutil.copytree(bag_folder, folder / "program")
    spec = ProgramSpec.parse((folder / "program" / SPEC).read_bytes(), what=SPEC, error=AssertionError)  # type: ignore[arg-type]
    assert publish_program(store, folder / "program") == program
    tracking_uri = f"sqlite:///{folder}/control/mlflow.db"
    tracking = Tracking(tracking_uri=tracking_uri, store=settings)
    tracking.prepare()
    return World(
        folder=folder,
        settings=settings,
        tracking_uri=tracking_uri,
        tracking=tracking,
        program_folder=folder / "program",
        program=program,
        manifests=publish_tenants(store, ["acme", "globex"], program=program, spec=spec, threshold=0.5),
    )


@pytest.fixture
def loading(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """MLflow's own loader in a process that has the environment that a reader needs."""
    for name, value in {
        "MLFLOW_TRACKING_URI": world.tracking_uri,
        "MACROFLEET_STORE_URL": world.settings.url,
        "MACROFLEET_TRUSTED_PROGRAMS": f"{'0' * 64}, {world.program}",
        "MACROFLEET_DISK_FOLDER": str(world.folder / "disk"),
    }.items():
        monkeypatch.setenv(name, value)
    import mlflow

    def load(uri: str) -> Any:
        # Looked up when called: MLflow imports `pyfunc` late, and warns then; after a registration it is there.
        return mlflow.pyfunc.load_model(uri)

    return load


def described(tenant: str, *, seed: int = 0, **metrics: float) -> Manifest:
    """A manifest without a bundle; registering reads none."""
    anything = FileDigest(sha256="a" * 64, size=1)
    return Manifest(
        tenant=tenant,
        program="b" * 64,
        files={"weights.safetensors": anything, "macros.json": anything},
        data_fingerprint="c" * 64,
        settings={"seed": seed, "rate": 0.5, "prior": "none"},
        metrics=metrics,
        threshold=0.25,
    )


def test_importing_the_adapter_does_not_import_mlflow() -> None:
    code = "import registry.tracking.models, sys; sys.exit('mlflow' in sys.modules or 'sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_a_version_says_what_it_was_made_of(world: World) -> None:
    manifest = described("initech", seed=7, **{"precision@1": 0.5, "hit_rate@3": 0.75})
    made = world.tracking.register(
        manifest, parameters={"workers": 2, "seed": 1}, tags={"flow": "train"}, git_revision="d" * 40
    )
    assert made.registered_model == "macrofleet.initech"
    assert made.version == "1"
    run = world.client().get_run(made.run_id)
    assert run.data.metrics == {"precision_at_1": 0.5, "hit_rate_at_3": 0.75, "threshold": 0.25}
    assert run.data.params == {"workers": "2", "seed": "7", "rate": "0.5", "prior": "none"}
    assert run.info.status == "FINISHED"
    version = world.client().get_model_version(made.registered_model, made.version)
    assert version.run_id == made.run_id
    assert version.tags == {
        "flow": "train",
        "macrofleet.manifest": manifest.digest,
        "macrofleet.tenant": "initech",
        "macrofleet.version": manifest.version,
        "macrofleet.data_fingerprint": "c" * 64,
        "macrofleet.program": "b" * 64,
        "macrofleet.bundle": f"{open_store(world.settings).url}/tenants/initech/models/{manifest.version}",
        "macrofleet.git_revision": "d" * 40,
    }
    assert version.tags.items() <= run.data.tags.items()
    assert run.data.tags["mlflow.source.git.commit"] == "d" * 40


def test_twice_is_one_version(world: World) -> None:
    first = world.tracking.register(described("umbrella", seed=1), parameters={}, tags={})
    again = world.tracking.register(described("umbrella", seed=1), parameters={}, tags={})
    elsewhere = Tracking(tracking_uri=world.tracking_uri, store=world.settings)
    assert first == again == elsewhere.register(described("umbrella", seed=1), parameters={}, tags={})
    other = world.tracking.register(described("umbrella", seed=2), parameters={}, tags={})
    assert (first.version, other.version) == ("1", "2")
    assert first.run_id != other.run_id
    assert world.tracking.find("umbrella", described("umbrella", seed=2).digest) == other
    assert world.tracking.find("umbrella", described("umbrella", seed=3).digest) is None


def test_a_crash_before_the_version_leaves_nothing_in_the_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "create_model_version", crash)
        with pytest.raises(KeyboardInterrupt):
            world.tracking.register(described("hooli"), parameters={}, tags={})
    assert world.tracking.find("hooli", described("hooli").digest) is None
    assert world.tracking.register(described("hooli"), parameters={}, tags={}).version == "1"


def test_an_alias_moves_to_the_version_that_it_is_given(world: World) -> None:
    manifests = [described("wonka", seed=seed) for seed in (1, 2)]
    made = [world.tracking.register(manifest, parameters={}, tags={}) for manifest in manifests]
    for manifest, registration in zip(manifests, made, strict=True):
        world.tracking.set_alias("wonka", "champion", manifest_digest=manifest.digest)
        found = world.client().get_model_version_by_alias("macrofleet.wonka", "champion")
        assert str(found.version) == registration.version
    world.tracking.set_alias("wonka", "challenger", manifest_digest=manifests[0].digest)
    assert world.client().get_model_version_by_alias("macrofleet.wonka", "challenger").run_id == made[0].run_id
    with pytest.raises(ModelNotFound, match="Register it first"):
        world.tracking.set_alias("wonka", "champion", manifest_digest="0" * 64)
    with pytest.raises(InvalidInput, match="champion, challenger"):
        world.tracking.set_alias("wonka", "Production", manifest_digest=manifests[0].digest)


def _scored(world: World, manifest: Manifest, texts: list[str]) -> list[Any]:
    """What the runtime gives for each text: scores [macros]."""
    trusted = frozenset({world.program})
    tier = DiskTier(world.folder / "other-disk", open_store(world.settings), trusted=trusted)
    tier.install_model(manifest.tenant, manifest.version, manifest.digest)
    program = Program(world.program_folder, trusted=trusted)
    bound = program.bind(tier.map_model(manifest.tenant, manifest.version, manifest.digest))
    return [bound.score(program.featurise([text]))[0] for text in texts]


def test_mlflow_predicts_what_the_runtime_scores(world: World, loading: Callable[[str], Any]) -> None:
    # The same weights, under a threshold between what they give for these texts.
    acme = world.manifests["acme"]
    least, *_, most = sorted(float(scores.max()) for scores in _scored(world, acme, TEXTS))
    manifest = publish_tenants(
        open_store(world.settings),
        ["initech"],
        program=world.program,
        spec=read_spec(world.program_folder),
        threshold=(least + most) / 2,
    )["initech"]
    world.tracking.register(manifest, parameters={}, tags={})
    world.tracking.set_alias("initech", "champion", manifest_digest=manifest.digest)
    model = loading("models:/macrofleet.initech@champion")
    assert model.metadata.signature.inputs.to_dict() == [{"type": "string", "name": "text", "required": True}]
    assert [column["name"] for column in model.metadata.signature.outputs.to_dict()] == ["macros", "abstained"]
    example = model.input_example
    assert list(example.columns) == ["text"]
    assert len(model.predict(example)) == 1

    # More rows than one batch, and labels of rows that are not their numbers.
    texts = TEXTS * 8
    answer = model.predict(pd.DataFrame({"text": texts}, index=range(100, 100 + len(texts))))
    assert list(answer.index) == list(range(100, 100 + len(texts)))
    for scores, macros, abstained in zip(
        _scored(world, manifest, texts), answer["macros"], answer["abstained"], strict=True
    ):
        best = np.argsort(-scores, kind="stable")[:3]
        assert [macro["id"] for macro in macros] == [f"m{index}" for index in best]
        assert [macro["title"] for macro in macros] == [f"Macro {index}" for index in best]
        assert [macro["score"] for macro in macros] == pytest.approx(scores[best], rel=1e-5)
        assert abstained == (scores.max() < manifest.threshold)
    assert set(answer["abstained"]) == {False, True}, "both sides of the threshold"
    empty = model.predict(pd.DataFrame({"text": []}, dtype=str))
    assert list(empty.columns) == ["macros", "abstained"]
    assert len(empty) == 0


def test_mlflow_loads_nothing_that_this_process_does_not_trust(
    world: World, loading: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world.tracking.register(world.manifests["globex"], parameters={}, tags={})
    uri = f"models:/{made.registered_model}/{made.version}"
    with monkeypatch.context() as patched:
        patched.setenv("MACROFLEET_TRUSTED_PROGRAMS", "0" * 64)
        with pytest.raises(ProgramUntrusted):
            loading(uri)
    with monkeypatch.context() as patched:
        patched.setenv("MACROFLEET_STORE_URL", str(world.folder / "another-store"))
        patched.setenv("MACROFLEET_DISK_FOLDER", str(world.folder / "another-disk"))
        with pytest.raises(ModelNotFound):
            loading(uri)
    # Without an address in the environment, the one that the model was published to; and no folder left behind.
    monkeypatch.delenv("MACROFLEET_STORE_URL")
    monkeypatch.delenv("MACROFLEET_DISK_FOLDER")
    monkeypatch.setattr("tempfile.tempdir", str(world.folder))
    before = set(world.folder.iterdir())
    assert len(loading(uri).predict(pd.DataFrame({"text": TEXTS}))) == len(TEXTS)
    assert set(world.folder.iterdir()) == before


def test_mlflow_holds_neither_weights_nor_secrets_nor_where_it_was_made(world: World) -> None:
    made = world.tracking.register(world.manifests["acme"], parameters={}, tags={})
    folders = [path for path in world.artifacts.iterdir() if made.run_id in path.parts]
    assert len(folders) == 1
    files = [path for path in folders[0].rglob("*") if path.is_file()]
    assert "MLmodel" in {path.name for path in files}
    assert sum(path.stat().st_size for path in files) < 20_000
    everything = [path.read_bytes() for path in world.folder.joinpath("control").rglob("*") if path.is_file()]
    assert len(everything) > len(files)
    for secret in (ACCESS_KEY, SECRET_KEY):
        assert not any(secret.encode() in data for data in everything)
    # With the separator: where a test keeps its files may begin as the checkout does.
    assert not any(f"{REPOSITORY}/".encode() in path.read_bytes() for path in files)


def test_several_processes_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    assert open_at_once(f"sqlite:///{tmp_path}/new/mlflow.db", tmp_path / "store") == ""
    assert not (tmp_path / "mlruns").exists()


def test_a_server_that_nobody_runs_is_reported_soon(
    world: World, retry_waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, attempts = connection.create_connection, []

    def counted(*given: Any, **more: Any) -> socket.socket:
        attempts.append(given)
        return connect(*given, **more)

    monkeypatch.setattr(connection, "create_connection", counted)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and never listening: connections are refused
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TrackingUnavailable, match=f"{uri} cannot look a model up.*serving does not need it"):
            Tracking(tracking_uri=uri, store=world.settings).register(described("acme"), parameters={}, tags={})
    assert len(attempts) == 5, "MLflow itself does not try again"
    assert len(retry_waits) == 4
    assert sum(retry_waits) < 20


def test_a_database_that_cannot_be_opened_is_reported(tmp_path: Path, world: World) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "mlflow.db").write_text("not a database" * 100)
    for path in (tmp_path / "file" / "mlflow.db", tmp_path / "mlflow.db"):
        with pytest.raises(TrackingUnavailable):
            Tracking(tracking_uri=f"sqlite:///{path}", store=world.settings).prepare()


def test_a_database_server_is_used_and_its_password_shown_nowhere(world: World, retry_waits: list[float]) -> None:
    uri = "postgresql://macrofleet:hush@127.0.0.1:1/mlflow?sslkey=hush"
    with pytest.raises(InvalidInput, match="MACROFLEET_ARTIFACT_LOCATION") as refused:
        Tracking(tracking_uri=uri, store=world.settings)
    tracking = Tracking(tracking_uri=uri, store=world.settings, artifact_location=str(world.folder / "artifacts"))
    with pytest.raises(TrackingUnavailable, match=r"postgresql://127\.0\.0\.1:1/mlflow cannot be opened") as down:
        tracking.prepare()
    assert retry_waits
    for caught in (refused, down):
        shown = "".join(traceback.format_exception(caught.value))
        assert "hush" not in shown


@pytest.mark.parametrize(
    "uri",
    ["", "mlruns", "file:///mlruns", "sqlite://", "sqlite:///", "sqlite:///:memory:", "databricks", "ftp://host",
     "http://", "http://[", "http://user:hush@host", "https://host/?token=hush"],
)  # fmt: skip
def test_an_address_that_names_no_mlflow_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Tracking(tracking_uri=uri, store=StoreSettings(url="store"))
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("location", ["", "ftp://host/folder", "s3://", "s3://key:hush@bucket/prefix"])
def test_a_location_that_cannot_hold_artifacts_is_refused(location: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Tracking(tracking_uri="http://127.0.0.1:1", store=StoreSettings(url="store"), artifact_location=location)
    assert "hush" not in str(refused.value)


def test_what_mlflow_cannot_take_is_refused(world: World) -> None:
    with pytest.raises(InvalidInput, match="by hand"):
        world.tracking.register(described("acme"), parameters={}, tags={"macrofleet.manifest": "0" * 64})
    with pytest.raises(InvalidInput, match="MLflow does not take this"):
        world.tracking.register(described("acme"), parameters={"a=b?": 1}, tags={})
    with pytest.raises(InvalidInput, match="digest"):
        world.tracking.find("acme", "' or '1' = '1")
    with pytest.raises(InvalidTenant):
        world.tracking.find("Acme Ltd", "0" * 64)


def test_artifacts_may_lie_in_s3(world: World, s3_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert s3_settings.endpoint_url
    assert s3_settings.access_key
    assert s3_settings.secret_key
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3_settings.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_settings.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_settings.secret_key.get_secret_value())
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # MLflow's, which keeps the first keys that a process had
    tracking = Tracking(
        tracking_uri=world.tracking_uri,
        store=world.settings,
        experiment="in-s3",
        artifact_location=f"{s3_settings.url}/mlflow/",
    )
    made: Registration = tracking.register(described("stark"), parameters={}, tags={})
    held = [info.key for info in open_store(s3_settings).list("mlflow/")]
    assert f"mlflow/{made.run_id}/artifacts/model/MLmodel" in held
