"""A run that is killed (SIGKILL) after any of its writes, and run again, ends where an undisturbed one ends."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from benchmarks.prefect_server import local_prefect
from registry.fleet.state import FleetEntry, read_fleet
from registry.garbage.retention import Retention
from registry.garbage.store_garbage import collect_garbage
from registry.layout import MANIFEST, models_prefix
from registry.layout import model_key as key_of
from registry.model.bundle import parse_manifest
from registry.store.local import LocalStore
from training.examples import Example
from training.synthetic import make_tenant
from training.tenants import import_examples

TENANT = "acme"
# A shard's record is written by a thread of its own, which may or may not put what follows closely into one write.
BEATS = 2
# Nothing is too young, and the past does not count: what is left is needed, or cannot be found.
STRICT = Retention(keep=1, young_seconds=-1.0, fleet_seconds=0.0)


@dataclass(frozen=True)
class World:
    """A store and an MLflow, in which the tenant's first version serves and a run would make its second."""

    folder: Path

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.folder / "store")

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def fill(self, tickets: int) -> None:
        made = make_tenant(TENANT, seed=1, tickets=tickets, macros=8)
        rows = [
            Example(ticket_id=t.ticket_id, subject=t.subject, body=t.body, macro_id=t.macro_id, applied_at=t.applied_at)
            for t in made.tickets
        ]
        import_examples(self.store, TENANT, rows, titles={macro.id: macro.title for macro in made.macros})

    def copied(self, folder: Path) -> World:
        shutil.copytree(self.folder, folder)
        return World(folder)

    def entry(self) -> FleetEntry:
        return read_fleet(self.store).entries[TENANT]

    def served(self) -> tuple[str | None, ...]:
        """What a reader of the fleet finds; every version that it names is whole."""
        entry = self.entry()
        for version in (entry.version, entry.previous):
            if version is not None:
                self._check(version)
        return (entry.version, entry.manifest, entry.previous)

    def _check(self, version: str) -> None:
        data = self.store.get(key_of(TENANT, version, MANIFEST)).data
        manifest = parse_manifest(data, tenant=TENANT, digest=None, what="the manifest")
        for name, file in manifest.files.items():
            found = self.store.get(key_of(TENANT, version, name)).data
            assert hashlib.sha256(found).hexdigest() == file.sha256

    def _mlflow(self) -> MlflowClient:
        return MlflowClient(self.database, registry_uri=self.database)

    def registered(self) -> dict[str, int]:
        """How many versions MLflow has of each manifest."""
        tags = [
            v.tags["macrofleet.manifest"] for v in self._mlflow().search_model_versions(f"name='macrofleet.{TENANT}'")
        ]
        return {digest: tags.count(digest) for digest in tags}

    def champion(self) -> str:
        version = MlflowClient(self.database, registry_uri=self.database).get_model_version_by_alias(
            f"macrofleet.{TENANT}", "champion"
        )
        return str(version.tags["macrofleet.manifest"])

    def kept(self) -> list[str]:
        """What is left of the tenant's versions when garbage has been collected, unfinished files included."""
        collect_garbage(self.store, retention=STRICT)
        return sorted(state.key for state in self.store.states(models_prefix(TENANT)))


class Runner:
    """Runs the flow in worlds."""

    def __init__(self, process: subprocess.Popen[bytes], prefect: dict[str, str]) -> None:
        self._process = process
        self._prefect = prefect

    def run(self, world: World, *, kill_after: int | None = None) -> dict[str, Any]:
        environment = {
            **self._prefect,
            "MACROFLEET_STORE_URL": str(world.folder / "store"),
            "MACROFLEET_TRACKING_URI": world.database,
            "MACROFLEET_ARTIFACT_LOCATION": str(world.folder / "artifacts"),
            "MACROFLEET_DISK_FOLDER": str(world.folder / "disk"),
            "MACROFLEET_TRAINING_PROCESSES": "0",
            "MACROFLEET_MONTHS": "120",  # the made-up tickets end where they always end
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"environment": environment, "after": kill_after}).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, empty_prefect: Path) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("prefect")
    shutil.copy(empty_prefect, folder / "prefect.db")
    with local_prefect(folder) as prefect:
        environment = {**os.environ, **prefect, "PREFECT_LOGGING_LEVEL": "ERROR"}
        command = [sys.executable, "-m", "tests.flows.killed_run"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, start_new_session=True) as process:
            try:
                yield Runner(process, prefect)
            finally:
                process.kill()


@pytest.fixture(scope="module")
def before(runner: Runner, tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> World:
    world = World(tmp_path_factory.mktemp("before"))
    shutil.copy(empty_mlflow, world.folder / "mlflow.db")
    world.fill(120)
    assert runner.run(world)["tenants"] == {TENANT: "trained"}
    world.fill(140)
    return world


@dataclass(frozen=True)
class Calm:
    """An undisturbed run: its world, and its writes."""

    world: World
    writes: list[str]


@pytest.fixture(scope="module")
def calm(runner: Runner, before: World, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    world = before.copied(tmp_path_factory.mktemp("calm") / "world")
    done = runner.run(world)
    assert done["tenants"] == {TENANT: "trained"}
    return Calm(world, done["writes"])


def test_a_run_killed_after_any_write_and_run_again_ends_where_an_undisturbed_one_ends(
    runner: Runner, before: World, calm: Calm, tmp_path: Path
) -> None:
    first, second = before.served(), calm.world.served()
    assert first[:2] != second[:2]
    kept = calm.world.kept()
    for place, write in enumerate(calm.writes, start=1):
        world = before.copied(tmp_path / str(place))
        at = f"killed after write {place}: {write}"
        done = runner.run(world, kill_after=place)
        if place > len(calm.writes) - BEATS and "writes" in done:
            assert len(done["writes"]) < place, at  # it made fewer
        else:
            assert done == {"killed": True, "status": 9}, at
        assert world.served() in (first, second), at
        again = runner.run(world)
        assert again["tenants"][TENANT] in ("trained", "unchanged"), at
        assert again["warnings"] == [], at
        assert world.served() == second, at
        assert world.registered() == dict.fromkeys([first[1], second[1]], 1), at
        assert world.champion() == second[1], at
        assert world.kept() == kept, at
        if write == calm.writes[-1]:
            assert runner.run(world)["tenants"] == {TENANT: "unchanged"}, at


def test_what_a_killed_run_published_is_garbage_once_newer_data_took_its_place(
    runner: Runner, before: World, calm: Calm, tmp_path: Path
) -> None:
    newer = before.copied(tmp_path / "newer")
    newer.fill(160)
    runner.run(newer)
    kept = newer.kept()
    publishing = [place for place, write in enumerate(calm.writes, start=1) if "/models/" in write]
    assert len(publishing) >= 4
    for place in publishing:
        world = before.copied(tmp_path / str(place))
        assert runner.run(world, kill_after=place)["killed"]
        world.fill(160)
        assert runner.run(world)["tenants"] == {TENANT: "trained"}
        assert world.served()[0] == newer.served()[0]
        assert world.kept() == kept, calm.writes[place - 1]
