"""What tests of every room share: a real S3 server and an exported program, made once when first asked for."""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.program import SPEC, program_digest
from registry.runtime import Program, limit_threads
from registry.seaweedfs import LocalS3
from registry.settings import StoreSettings
from tests.buckets import s3_client
from tests.postgresql import NOT_INSTALLED, LocalPostgres, installed
from training.programs.export import build_program

# They take a minute or more each, the longest first: begun last, one of two processes would wait for the other.
LONGEST = (
    "test_command_line.py",
    "test_retrain_fleet.py",
    "test_deletion_killed.py",
    "test_deleted_meanwhile.py",
    "test_killed_anywhere.py",
    "test_trainer.py",
    "test_real_data.py",
    "test_training_processes.py",
    "test_faults.py",
    "test_tracking_deletion.py",
    "test_rollout_servers.py",
    "test_serving_image.py",
    "test_replicas.py",
    "test_proxied_replicas.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; the order within a file stays."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


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


@pytest.fixture(scope="session")
def bag_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The program `bag`, exported once for all tests in all processes; nobody writes to it."""
    limit_threads()
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    with (shared / "programs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = shared / "programs" / "bag"
        if not folder.exists():
            folder.parent.mkdir()
            build_program("bag", folder)
    return folder


@pytest.fixture(scope="session")
def bag(bag_folder: Path) -> Program:
    """The program `bag`, loaded once for all tests."""
    return Program(bag_folder, trusted=frozenset([program_digest(bag_folder)]))


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
