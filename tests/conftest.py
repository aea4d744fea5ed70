"""What tests of every room share: a real S3 server, started once when the first test asks for it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from registry.seaweedfs import LocalS3
from registry.settings import StoreSettings


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    with LocalS3(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def s3_settings(s3_server: LocalS3) -> StoreSettings:
    """A prefix of its own for each test; `open_store` opens it."""
    return s3_server.settings.model_copy(update={"url": f"{s3_server.settings.url}/test-{uuid.uuid4().hex}"})
