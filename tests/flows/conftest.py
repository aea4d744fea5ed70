"""A Prefect of the tests' own: its database in a temporary folder, its server in this process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.model.program import program_digest
from registry.model.runtime import Program


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """An ephemeral Prefect server with an empty database; started once, it takes some ten seconds.

    Runs have no heartbeat, which nothing here listens to: its thread, joined at a run's end, sleeps for a second.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        prefect_test_harness(server_startup_timeout=120),
    ):
        yield


@pytest.fixture
def logs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever removes a run waits five seconds for the end of its log; here it is sent before."""
    from prefect.logging.handlers import APILogHandler

    monkeypatch.setattr("flows.prefect_traces._let_logs_arrive", lambda _runs: APILogHandler().flush())


@pytest.fixture(scope="module", autouse=True)
def what_prefect_left() -> Iterator[None]:
    """Sockets that Prefect leaves to the garbage collector go here, where they are expected, not in another test."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training in the tests' own process, where they can put something else in a class's place."""
    monkeypatch.setenv("MACROFLEET_TRAINING_PROCESSES", "0")


@pytest.fixture
def bag_loaded(bag: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who trains in this process finds the program `bag` loaded: loading it, and tracing it anew, takes a second."""
    from flows import trainers

    def load(folder: Path, *, trusted: frozenset[str]) -> Program:
        return bag if program_digest(folder) == bag.digest else Program(folder, trusted=trusted)

    monkeypatch.setattr(trainers, "Program", load)
