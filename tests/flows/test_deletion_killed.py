"""A deletion whose process is killed between any two of its steps is finished by the next one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.runs import RunPlan, keep_plan, run_name
from registry.disk.tier import DiskTier
from registry.fleet.state import read_fleet
from registry.layout import examples_key
from registry.leases import Leases
from registry.settings import StoreSettings
from registry.store import open_store
from registry.tracking.models import Tracking
from tests.registry.garbage_world import TENANT, made, publish, serve

ROOT = Path(__file__).parents[2]
# Looking, seven places, the lease, and looking at seven places again.
STEPS = 1 + 7 + 1 + 7


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Path:
    """A tenant that was trained and served, in a folder that has its own address in MLflow's tables."""
    folder = tmp_path_factory.mktemp("killed") / "world"
    settings = StoreSettings(url=str(folder / "store"))
    store = open_store(settings)
    folder.mkdir()
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    tracking = Tracking(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", store=settings)
    publish(store, 0)
    serve(store, 0)
    manifest = made(0)[1]
    tracking.register(manifest, parameters={}, tags={})
    tracking.set_alias(TENANT, "champion", manifest_digest=manifest.digest)
    store.put(examples_key(TENANT), b"tickets")
    store.put(examples_key("globex"), b"tickets")
    keep_plan(store, run_name(datetime.now(UTC), "0" * 12), RunPlan(tenants=(TENANT, "globex"), shards=1, options={}))
    Leases(store, holder="a training that was killed", seconds=0.5).take(TENANT)
    with DiskTier(folder / "disk", store, trusted=frozenset()) as tier:
        tier.install_model(TENANT, manifest.version, manifest.digest)
    kept = folder.with_name("template")
    shutil.copytree(folder, kept)
    return kept


class Deleter:
    """Deletes in processes of their own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def delete(self, folder: Path, killed_at: int) -> dict[str, Any] | None:
        """What became of it; None where it was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(folder), killed_at]) + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        return json.loads(said) if said.strip() else None


@pytest.fixture(scope="module")
def deleter() -> Iterator[Deleter]:
    command = [sys.executable, "-m", "tests.flows.deleting"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe, start_new_session=True) as process:
        try:
            yield Deleter(process)
        finally:
            process.kill()


def fresh(template: Path) -> Path:
    folder = template.with_name("world")
    shutil.rmtree(folder)
    shutil.copytree(template, folder)
    return folder


@pytest.mark.parametrize("killed_at", range(1, STEPS + 1))
def test_the_next_one_finishes(template: Path, deleter: Deleter, killed_at: int) -> None:
    folder = fresh(template)
    assert deleter.delete(folder, killed_at) is None
    done = deleter.delete(folder, 0)
    assert done is not None
    assert done["complete"], done["left"]
    assert done["steps"] == STEPS, "every boundary has its case"
    store = open_store(StoreSettings(url=str(folder / "store")))
    assert read_fleet(store).entries == {}
    assert store.get(examples_key("globex"))
    name = TENANT.encode()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if TENANT in str(path.relative_to(folder)) or name in path.read_bytes()] == []
