"""A Prefect of the tests' own: its database in a temporary folder, its server in this process."""

from __future__ import annotations

import gc
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import anyio
import anyio.to_thread
import pytest

from registry.model.program import program_digest
from registry.model.runtime import Program
from tests.flows.remembered_fits import remember_fits
from training.folded_fit import Fitted


@pytest.fixture(scope="session")
def empty_prefect(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """An SQLite file with Prefect's tables, which take seconds to make; for servers of tests to copy."""

    def make(database: Path) -> None:
        from prefect.server.database.alembic_commands import alembic_upgrade
        from prefect.server.database.dependencies import temporary_database_interface
        from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

        async def upgrade() -> None:
            await anyio.to_thread.run_sync(alembic_upgrade)

        beside = database.with_suffix(".made")
        address = f"sqlite+aiosqlite:///{beside}"
        with temporary_database_interface(), temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: address}):
            anyio.run(upgrade)
        # All of it in one file, whatever is still in SQLite's log of what was written.
        with closing(sqlite3.connect(beside)) as made, closing(sqlite3.connect(database)) as copy:
            made.backup(copy)

    return once("prefect.db", make)


@pytest.fixture(scope="session")
def prefect_server(empty_prefect: Path) -> Iterator[None]:
    """An ephemeral Prefect server with an empty database; started once, it takes some seconds.

    Runs have no heartbeat, which nothing here listens to: its thread, joined at a run's end, sleeps for a second.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing import utilities

    folder = tempfile.mkdtemp()  # the harness removes it
    shutil.copy(empty_prefect, Path(folder) / "prefect-test.db")
    with (
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        patch.object(utilities, "mkdtemp", lambda: folder),
        utilities.prefect_test_harness(server_startup_timeout=120),
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


@pytest.fixture(scope="session")
def fits() -> dict[bytes, tuple[Fitted, list[float]]]:
    """What was fitted in this process, by what it was made of."""
    return {}


@pytest.fixture
def bag_loaded(bag: Program, fits: dict[bytes, tuple[Fitted, list[float]]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who trains in this process finds the program `bag` loaded: loading it, and tracing it anew, takes a second.

    And what was fitted here before is there: it takes most of the time of tests that train, and the same comes of it.
    """
    from flows import trainers

    remember_fits(monkeypatch, fits)

    def load(folder: Path, *, trusted: frozenset[str]) -> Program:
        return bag if program_digest(folder) == bag.digest else Program(folder, trusted=trusted)

    monkeypatch.setattr(trainers, "Program", load)
