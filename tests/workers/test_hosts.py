"""Hosts of a work pool, and of a Ray cluster, of which one is cut off in the middle of a run; each is a network namespace."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.postgresql import NOT_INSTALLED, installed
from tests.workers.conductor import POOL, TENANTS
from tests.workers.hosted_shard import HOST, SIGNS
from tests.workers.hosts import NOT_HERE, Hosts, available

pytestmark = [
    pytest.mark.skipif(not available(), reason=NOT_HERE),
    pytest.mark.skipif(not installed(), reason=NOT_INSTALLED),
]
ROOT = Path(__file__).parents[2]
HERE, THERE = "east", "west"
PATIENCE_SECONDS = 150.0


class World:
    """A hub with all servers, hosts that do the work, and a folder of signs by which trainings are held and let go."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.signs = folder / "signs"
        self.signs.mkdir()
        self._folder = folder
        self._stack = stack
        self.hosts = stack.enter_context(Hosts([HERE, THERE]))
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": tempfile.gettempdir(),  # PostgreSQL's user has to get there
            "PYTHONPATH": str(ROOT),
            SIGNS: str(self.signs),
            "MACROFLEET_DISK_FOLDER": str(folder / "disk"),
            "MACROFLEET_MONTHS": "120",  # the made-up tickets end where they always end
            "MACROFLEET_TRAINING_PROCESSES": "0",
            "MACROFLEET_LEASE_SECONDS": "6",
            "MACROFLEET_SHARD_BEAT_SECONDS": "0.5",
            "MACROFLEET_SHARD_LOST_SECONDS": "12",
            "MACROFLEET_SHARD_POLL_SECONDS": "0.2",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "120",
        }
        hub = self.start("hub", "hub", "-m", "tests.workers.hub", str(folder), self.hosts.addresses["hub"])
        self._environment |= self._answer(hub)
        self._conductor: subprocess.Popen[str] | None = None

    def start(self, name: str, host: str, *arguments: str) -> subprocess.Popen[str]:
        """Python on a host, ended with the world."""
        ours = arguments[1].startswith("tests.")
        log = self._stack.enter_context((self._folder / f"{name}.log").open("a"))
        environment = {**self._environment, HOST: host, "PREFECT_HOME": str(self._folder / f"home-{name}")}
        command = self.hosts.command(host, sys.executable, *arguments)
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, env=environment, cwd=self._folder, stdin=pipe, stdout=pipe if ours else log, stderr=log,
            text=True, start_new_session=True,
        )  # fmt: skip
        self._stack.callback(end, process, asked=ours)
        return process

    def said(self, name: str) -> str:
        """The log of what was started."""
        return (self._folder / f"{name}.log").read_text()

    def set(self, **environment: str) -> None:
        """Set something in the environment of what is started from now on."""
        self._environment |= environment

    def tell(self, word: str) -> subprocess.Popen[str]:
        """Have the conductor do something."""
        if self._conductor is None:
            self._conductor = self.start("conductor", "hub", "-m", "tests.workers.conductor")
        assert self._conductor.stdin is not None
        self._conductor.stdin.write(f"{word}\n")
        self._conductor.stdin.flush()
        return self._conductor

    def ask(self, word: str) -> Any:
        """Have the conductor do something, and wait for its answer."""
        return self._answer(self.tell(word))

    def answer(self) -> Any:
        """What the conductor says to what it was told."""
        assert self._conductor is not None
        return self._answer(self._conductor)

    def begun(self) -> dict[tuple[str, str], int]:
        """Trainings that have a model and wait to hand it over: tenant and host, with the process."""
        found = [path.name.split("-", 1)[1].rpartition("-") for path in self.signs.glob("begun-*")]
        return {
            (tenant, host): int((self.signs / f"begun-{tenant}-{host}").read_text() or 0) for tenant, _, host in found
        }

    def let_go(self, host: str, *tenants: str) -> None:
        """Let trainings on a host hand over their models, now or when they come to it."""
        for tenant in tenants:
            (self.signs / f"go-{tenant}-{host}").touch()

    def _answer(self, process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        logs = "".join(path.read_text()[-3000:] for path in sorted(self._folder.glob("*.log")))
        assert line, f"it ended without an answer\n{logs}"
        return json.loads(line)


def end(process: subprocess.Popen[str], *, asked: bool) -> None:
    """End a process: one of ours ends with its standard input, others when they are told to."""
    assert process.stdin is not None
    process.stdin.close()
    if not asked:
        process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.2)


def is_alive(pid: int) -> bool:
    """Whether a process still does something: one that nobody waits for stays in the list when it is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def cut_off_in_training(world: World) -> tuple[str, str, int]:
    """Have a run begin, and cut the host off that has a model of the second tenant of its shard; tenant, host, process."""
    world.tell("run")
    first, second = TENANTS[0], TENANTS[1]
    wait_for(lambda: {tenant for tenant, _ in world.begun()} >= {first, TENANTS[3]})
    lost = next(host for tenant, host in world.begun() if tenant == first)
    world.let_go(lost, first)
    wait_for(lambda: (second, lost) in world.begun())
    process = world.begun()[second, lost]
    world.hosts.cut_off(lost)
    world.let_go(HERE if lost == THERE else THERE, *TENANTS)
    return second, lost, process


def is_whole(world: World, summary: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """The fleet serves every tenant, and each has one version, everywhere; returns the conductor's report."""
    report: Mapping[str, Any] = world.ask("report")
    serving = report["serving"]
    assert serving.keys() == set(TENANTS)
    assert report["published"] == {tenant: [version] for tenant, version in serving.items()}
    assert report["registered"] == {tenant: [version] for tenant, version in serving.items()}
    assert report["differences"] == []
    if summary is not None:
        assert {row["tenant"]: row["state"] for row in summary["tenants"]} == dict.fromkeys(TENANTS, "trained")
        assert {row["tenant"]: row["version"] for row in summary["tenants"]} == serving
        assert summary["warnings"] == []
    return report


def start_ray(world: World, host: str, *options: str) -> None:
    """A node of a Ray cluster on a host that is up."""
    code = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
    own = [f"--node-ip-address={world.hosts.addresses[host]}", "--object-store-memory=100000000"]
    world.start(f"ray-{host}", host, "-c", code, "start", "--block", *own, *options)
    wait_for(lambda: "Ray runtime started" in world.said(f"ray-{host}"))


def test_a_worker_that_is_cut_off_and_comes_back_makes_no_second_version(world: World) -> None:
    world.ask("fill")
    world.ask("pool")
    for host in (HERE, THERE):
        command = ["-m", "prefect", "worker", "start", "--type", "process", "--limit", "1", "--pool", POOL]
        world.start(f"worker-{host}", host, *command, "--name", host)
    tenant, lost, process = cut_off_in_training(world)
    is_whole(world, world.answer())
    assert {host for found, host in world.begun() if found == tenant} == {HERE, THERE}, "it was trained twice"

    world.hosts.connect(lost)
    world.let_go(lost, *TENANTS)
    wait_for(lambda: not is_alive(process))
    assert "Superseded" in is_whole(world)["shards"], "it came back, and found somebody else at its shard"


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra of its own: macrofleet[ray]")
def test_a_node_of_ray_that_is_cut_off_loses_no_tenant(world: World) -> None:
    head = f"{world.hosts.addresses['hub']}:6379"
    world.set(MACROFLEET_RAY_ADDRESS=head)
    world.ask("fill")
    start_ray(world, "hub", "--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false")
    for host in (HERE, THERE):
        start_ray(world, host, f"--address={head}", "--num-cpus=1")
    tenant, lost, process = cut_off_in_training(world)
    is_whole(world, world.answer())
    assert {host for found, host in world.begun() if found == tenant} == {HERE, THERE}, "it was trained twice"

    world.hosts.connect(lost)
    world.let_go(lost, *TENANTS)
    # Ray's head has given the node up, whose processes end then; or it had not yet, and they go on and wait for other tasks.
    wait_for(lambda: not is_alive(process) or "Superseded" in world.ask("report")["shards"])
    is_whole(world)
