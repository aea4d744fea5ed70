"""A Prefect of the tests' own: its database in a temporary folder, its server in this process."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """An ephemeral Prefect server with an empty database; started once, it takes some ten seconds."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module", autouse=True)
def what_prefect_left() -> Iterator[None]:
    """Sockets that Prefect leaves to the garbage collector go here, where they are expected, not in another test."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training in the tests' own process, where they can put something else in a class's place."""
    monkeypatch.setenv("MACROFLEET_TRAINING_PROCESSES", "0")
