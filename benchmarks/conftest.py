"""Servers for the suites, each started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.http import Client, served_fleet

TENANTS = [f"tenant-{number:04d}" for number in range(30)]


def _quiet(_text: str, _share: float) -> None:
    """Nobody watches the progress of a suite."""


@pytest.fixture(scope="session")
def warm_client() -> Iterator[Client]:
    """A client of a server whose models are all on local disk."""
    with served_fleet(TENANTS, s3=False, preload="all", step=_quiet) as server, Client(server.url) as client:
        yield client


@pytest.fixture(scope="session")
def s3_client() -> Iterator[Client]:
    """A client of a server whose models are all on an S3 server, none on local disk."""
    with served_fleet(TENANTS, s3=True, preload="none", step=_quiet) as server, Client(server.url) as client:
        yield client
