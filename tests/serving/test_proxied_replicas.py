"""Replicas behind a real Envoy, with processes of a few lines, and once with real servers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from benchmarks.fleets import publish_tenants, tenant_names
from registry.errors import InvalidInput
from registry.model.program import publish_program
from registry.store.local import LocalStore
from serving.proxy.gateway import Gateway
from serving.proxy.ring import replica_ring
from serving.replicas.addresses import proxied_environments, ring_key
from serving.replicas.group import Replicas, run_replicas
from serving.settings import ServingSettings
from tests.serving.helpers import BuiltProgram, eventually, ticket, until_ready
from tests.serving.supervised import FAKE, Supervised, is_alive, supervised, until_listening

TENANTS = tenant_names(40)
# What is a minute in life takes part of a second here, and the load is whatever a file says.
SUPERVISOR = """
import asyncio, json, sys
from pathlib import Path
from serving.replicas import supervisor
from serving.proxy.gateway import Gateway
from serving.logs import configure_logs
from serving.replicas.group import supervise
from serving.replicas.scaling import ScalePlan
from serving.settings import ServingSettings

folder, least, most = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

class Load:
    def sample(self, pids, *, requests):
        return float((folder / "load").read_text())

configure_logs()
supervisor.ReplicaLoad = Load
supervisor._SAMPLE_SECONDS = 0.05
gateway = Gateway(ServingSettings(port=0, operator_port=0), folder / "envoy")
environment = {"FOLDER": str(folder), "FAULT": "watches", "MACROFLEET_PORT": "0"}
environments = [{**environment, "MACROFLEET_REPLICA": str(number)} for number in range(most)]
plan = ScalePlan(least=least, most=most, grow_seconds=0.2, shrink_seconds=0.4)
command = [sys.executable, str(folder / "fake.py")]
asyncio.run(supervise(command, environments, ready_file=folder / "urls", gateway=gateway, scaling=plan))
"""


@contextmanager
def proxied(folder: Path, least: int, most: int | None = None) -> Iterator[Supervised]:
    (folder / "fake.py").write_text(FAKE)
    set_load(folder, 0.0)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", SUPERVISOR, str(folder), str(least), str(most or least)]
    with supervised(folder, command, environment) as made:
        yield made


def set_load(folder: Path, load: float) -> None:
    beside = folder / "load~"
    beside.write_text(str(load))
    beside.replace(folder / "load")


def owners(*numbers: int) -> dict[str, str]:
    """Who answers for each tenant, with these replicas."""
    ring = replica_ring([ring_key(number) for number in numbers])
    return {tenant: owner.removeprefix("replica-") for tenant, owner in zip(TENANTS, ring.owners(TENANTS), strict=True)}


async def answered(client: httpx.AsyncClient, url: str) -> dict[str, str]:
    """The same as Envoy has it."""
    found = {}
    for tenant in TENANTS:
        got = await client.post(f"{url}/v1/tenants/{tenant}/suggestions", json={})
        found[tenant] = got.text if got.status_code == 200 else str(got.status_code)
    return found


async def until_answered_by(client: httpx.AsyncClient, url: str, *numbers: int) -> None:
    async with asyncio.timeout(60):
        while await answered(client, url) != owners(*numbers):
            await asyncio.sleep(0.05)


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Counter[int]]:
    """Requests all the while; how often which status came."""
    statuses: Counter[int] = Counter()

    async def ask(client: httpx.AsyncClient) -> None:
        number = 0
        while True:
            tenant = TENANTS[number % len(TENANTS)]
            got = await client.post(f"{url}/v1/tenants/{tenant}/suggestions", json={})
            statuses[got.status_code] += 1
            number += 1

    async with httpx.AsyncClient(timeout=30) as client:
        task = asyncio.create_task(ask(client))
        try:
            yield statuses
        finally:
            assert not task.done(), task  # it asks for as long as it is let
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def retries(client: httpx.AsyncClient, folder: Path) -> int:
    """Requests that Envoy has tried again."""
    admin = (folder / "envoy" / "admin").read_text()
    got = await client.get(f"http://{admin}/stats?format=json&filter=^cluster.public.upstream_rq_retry$")
    return int(got.json()["stats"][0]["value"])


async def until_refused(url: str) -> int:
    """Ask until nobody takes connections any more; how many answers said farewell before, none of them a bad one."""
    farewells = 0
    was_reset = False
    async with httpx.AsyncClient(timeout=30) as client:
        while True:
            try:
                got = await client.post(f"{url}/v1/tenants/{TENANTS[0]}/suggestions", json={})
            except httpx.ConnectError:
                return farewells
            except httpx.ReadError:
                # The kernel had taken the connection, and nobody else had when the listener closed: the end.
                assert not was_reset
                was_reset = True
                continue
            assert not was_reset
            assert got.status_code == 200
            farewells += got.headers.get("Connection") == "close"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as made:
        yield made


@pytest.mark.anyio
async def test_one_is_killed_and_comes_back_and_all_are_restarted(tmp_path: Path, client: httpx.AsyncClient) -> None:
    with proxied(tmp_path, 3) as supervisor:
        lines = await supervisor.urls()
        assert len(lines) == 4
        url = lines[0][0]
        assert url not in [public for public, _ in lines[1:]]
        await until_answered_by(client, url, 0, 1, 2)
        async with asking(url) as statuses:
            # It would come back within a second, and on a busy machine that is no time to ask for all tenants.
            away = tmp_path / "away-1"
            away.touch()
            os.kill(supervisor.started(1)[0], signal.SIGKILL)
            await until_answered_by(client, url, 0, 2)
            away.unlink()
            await eventually(lambda: len(supervisor.started(1)) == 2)
            await until_answered_by(client, url, 0, 1, 2)

            tried_again = await retries(client, tmp_path)
            before = len(supervisor.record())
            supervisor.process.send_signal(signal.SIGHUP)
            await eventually(lambda: "all replicas were restarted" in supervisor.log)
            await until_answered_by(client, url, 0, 1, 2)
            assert [len(supervisor.started(number)) for number in range(3)] == [2, 3, 2]
            # Nothing had to be: each had been taken out before it was told to end.
            assert await retries(client, tmp_path) == tried_again
        assert handed_over(supervisor.record()[before:]) == [0, 1, 2]
        assert (tmp_path / "envoy" / "ring").read_text().split() == ["replica-0", "replica-1", "replica-2"]
        assert set(statuses) == {200}
        assert await supervisor.urls() == lines
        ending = asyncio.create_task(until_refused(url))
        assert await supervisor.stop() == 0
        assert await ending > 0
        assert not any(is_alive(pid) for _, _, pid in supervisor.record())
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


def handed_over(record: list[tuple[str, int, int]], *, replicas: int = 3, gone: bool = False) -> list[int]:
    """Who was told to end, each after all others had what the ring without it gives to them.

    Args:
        gone: whether they do not come back.
    """
    prepared: set[int] = set()
    stopped = []
    there = set(range(replicas))
    for what, number, _ in record:
        if what == f"prepared-for-{len(there) - 1}":
            prepared.add(number)
        if what == "stopped":
            assert prepared >= there - {number}, record
            stopped.append(number)
            prepared.clear()
            if gone:
                there.remove(number)
    return stopped


@pytest.mark.anyio
async def test_there_are_as_many_as_the_load_asks_for(tmp_path: Path, client: httpx.AsyncClient) -> None:
    with proxied(tmp_path, 1, 3) as supervisor:
        url = (await supervisor.urls())[0][0]
        await until_answered_by(client, url, 0)
        async with asking(url) as statuses:
            set_load(tmp_path, 1.0)
            await until_answered_by(client, url, 0, 1)  # each is busy for half of its time
            assert (tmp_path / "envoy" / "ring").read_text().split() == ["replica-0", "replica-1"]
            set_load(tmp_path, 1.9)
            await until_answered_by(client, url, 0, 1, 2)
            await eventually(lambda: len((tmp_path / "urls").read_text().splitlines()) == 4)
            before = len(supervisor.record())
            set_load(tmp_path, 0.1)
            await until_answered_by(client, url, 0)
            await eventually(lambda: len((tmp_path / "urls").read_text().splitlines()) == 2)
            assert (tmp_path / "envoy" / "ring").read_text().split() == ["replica-0"]
            set_load(tmp_path, 0.5)  # neither busy nor, for two of them, quiet
            supervisor.process.send_signal(signal.SIGTTOU)  # there is no fewer
            await eventually(lambda: '"told to have one replica fewer"' in supervisor.log)
            supervisor.process.send_signal(signal.SIGTTIN)
            await until_answered_by(client, url, 0, 1)
        assert set(statuses) == {200}
        assert handed_over(supervisor.record()[before:], gone=True) == [2, 1]
        assert await supervisor.stop() == 0


def envoy_of(supervisor: Supervised) -> int:
    lines = [json.loads(line) for line in supervisor.log.splitlines() if '"started Envoy"' in line]
    return int(lines[-1]["pid"])


@pytest.mark.anyio
async def test_envoy_is_started_again_and_ends_with_the_supervisor(tmp_path: Path, client: httpx.AsyncClient) -> None:
    with proxied(tmp_path, 1) as supervisor:
        url = (await supervisor.urls())[0][0]
        await until_answered_by(client, url, 0)
        first = envoy_of(supervisor)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: envoy_of(supervisor) != first)
        async with httpx.AsyncClient(timeout=30) as other:
            await until_answered_by(other, url, 0)
        pids = [envoy_of(supervisor), *supervisor.started(0)]
        supervisor.process.kill()
        await eventually(lambda: not any(is_alive(pid) for pid in pids))


def test_ports_behind_a_proxy() -> None:
    def operators(**settings: object) -> list[str]:
        made = proxied_environments(ServingSettings.model_validate(settings), 3, ring_file=Path("/ring"))
        assert {one["MACROFLEET_PORT"] for one in made} == {"0"}
        assert {one["MACROFLEET_HOST"] for one in made} == {"127.0.0.1"}
        return [one["MACROFLEET_OPERATOR_PORT"] for one in made]

    assert operators(port=8000, operator_port=8001) == ["8002", "8003", "8004"]
    assert operators(port=9002, operator_port=9000) == ["9001", "9003", "9004"]
    assert operators(port=0, operator_port=0) == ["0", "0", "0"]
    with pytest.raises(InvalidInput, match="both 8000"):
        operators(port=8000, operator_port=8000)
    with pytest.raises(InvalidInput, match="there are no"):
        operators(port=8000, operator_port=65_533)


def test_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServingSettings(port=0, operator_port=0)
    with pytest.raises(InvalidInput, match="need a proxy"):
        run_replicas(settings, Replicas(least=1, most=2, proxy=False))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"cannot listen on 127.0.0.1:{port}"):
            Gateway(settings.model_copy(update={"port": port}), tmp_path / "envoy")
    monkeypatch.setitem(sys.modules, "envoy", ModuleType("envoy"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidInput, match="not installed") as refused:
        Gateway(settings, tmp_path / "envoy")
    assert "macrofleet[proxy]" in str(refused.value)
    assert "--no-proxy" in str(refused.value)


@pytest.mark.anyio
async def test_two_servers_over_one_fleet(tmp_path: Path, bag: BuiltProgram, client: httpx.AsyncClient) -> None:
    tenants = tenant_names(12)
    store = LocalStore(tmp_path / "store")
    publish_program(store, bag.folder)
    publish_tenants(store, tenants, program=bag.digest, spec=bag.spec)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MACROFLEET_")} | {
        "MACROFLEET_STORE_URL": str(tmp_path / "store"),
        "MACROFLEET_DISK_FOLDER": str(tmp_path / "disk"),
        "MACROFLEET_TRUSTED_PROGRAMS": bag.digest,
        "MACROFLEET_REQUEST_TIMEOUT_MS": "30000",
        "MACROFLEET_ACCESS": "open",
        "MACROFLEET_PRELOAD": "share",
        "MACROFLEET_FLEET_POLL_SECONDS": "0.05",
    }
    command = [sys.executable, "-m", "macrofleet", "serve", "--replicas", "2", "--separate-disks"]
    command += ["--port", "0", "--operator-port", "0", "--ready-file", str(tmp_path / "urls")]
    with supervised(tmp_path, command, environment) as supervisor:
        lines = await supervisor.urls()
        (url, operator), replicas = lines[0], lines[1:]
        async with httpx.AsyncClient(base_url=url, timeout=60) as public:
            await until_ready(public)
            for replica, _ in replicas:
                async with httpx.AsyncClient(base_url=replica) as one:
                    await until_ready(one)
            ring = replica_ring(["replica-0", "replica-1"])
            for number in range(2):
                installed = {
                    path.parent.parent.name for path in (tmp_path / "disk" / ring_key(number)).rglob("manifest.json")
                }
                assert installed == set(ring.share(ring_key(number), tenants))
            metadata = await client.get(f"{operator}/v2/models/{tenants[0]}")
            assert metadata.json()["name"] == tenants[0]

            path = f"/v1/tenants/{tenants[0]}/suggestions"
            answers = [
                (await client.post(address + path, json=ticket())).json()
                for address in (url, *(one for one, _ in replicas))
            ]
            assert len({answer["suggestion_id"] for answer in answers}) == 1
            os.kill(pids_of(supervisor, 1)[0], signal.SIGKILL)
            for tenant in tenants:
                got = await public.post(f"/v1/tenants/{tenant}/suggestions", json=ticket())
                assert got.status_code == 200, got.text
            await eventually(lambda: len(pids_of(supervisor, 1)) == 2)
            publish_tenants(store, [*tenants, "globex"], program=bag.digest, spec=bag.spec)
            for address, _ in (lines[0], *replicas):
                async with httpx.AsyncClient(base_url=address, timeout=60) as one:
                    await until_listening(one, address)
                    await until_served(one, "globex")
        assert await supervisor.stop() == 0
    written = [json.loads(line) for line in supervisor.log.splitlines() if line.startswith("{")]
    assert {line.get("replica") for line in written if line["message"] == "serving"} == {"0", "1"}


def pids_of(supervisor: Supervised, number: int) -> list[int]:
    lines = [json.loads(line) for line in supervisor.log.splitlines() if '"started a replica"' in line]
    return [line["pid"] for line in lines if line["replica"] == number]


async def until_served(client: httpx.AsyncClient, tenant: str) -> None:
    async with asyncio.timeout(60):
        while (await client.post(f"/v1/tenants/{tenant}/suggestions", json=ticket(), timeout=60)).status_code != 200:
            await asyncio.sleep(0.01)
