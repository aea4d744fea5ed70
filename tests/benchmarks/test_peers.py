"""The comparison with other servers: everything but the servers, which `make bench-peers` runs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers import comparison, environments
from benchmarks.peers.apps.fastapi_app import Models, make_app
from benchmarks.peers.cgroup import MemoryGroup, _own_group, memory_group, parse_stat
from benchmarks.peers.comparison import ALL, check_peers, check_tenants, compare
from benchmarks.peers.fastapi_peer import Dedicated
from benchmarks.peers.known import PEERS
from benchmarks.peers.marks import bytes_per_tenant, judge_marks
from benchmarks.peers.measure import Measurement
from benchmarks.peers.results import OURS, Cell, PeerInfo, PeerRun, read_run
from benchmarks.peers.server import (
    Peer,
    PeerCannot,
    PeerFailed,
    Place,
    call,
    clean_environment,
    free_ports,
    last_lines,
    told,
)
from benchmarks.peers.sizes import ECHO, QUICK, Sizes, sessions
from benchmarks.peers.tree import ProcessTree, descendants
from benchmarks.peers.world import find_tensors, with_tensors
from benchmarks.stage import Cores
from registry.errors import InvalidInput, OutOfResources
from registry.model.tensors import write_tensors

UNBOUNDED = MemoryGroup(None)


# What a run does


@pytest.mark.parametrize("sizes", [Sizes(), QUICK, dataclasses.replace(Sizes(), zipf_most=100)])
def test_every_step_is_taken_once_and_stands_on_those_before(sizes: Sizes) -> None:
    keys = set()
    for session in sessions(ALL, sizes):
        loaded = 0
        for cell in session.cells:
            assert cell.key not in keys
            keys.add(cell.key)
            assert cell.peer == session.peer
            if cell.step == "memory":
                assert cell.tenants > loaded
                loaded = cell.tenants
            if cell.step == "warm" and cell.peer != ECHO:
                assert cell.tenants == loaded <= PEERS[cell.peer].most_tenants
    steps = {(peer, step) for peer, step, *_ in keys}
    assert {(peer, "zipf") for peer in ALL if peer != ECHO and not PEERS[peer].variant} <= steps
    assert {(peer, "ready") for peer in ALL} <= steps


def test_the_zipf_row_keeps_fewer_models_than_it_serves() -> None:
    for session in sessions(ALL, Sizes()):
        if any(cell.step == "zipf" for cell in session.cells) and PEERS[session.peer].evicts:
            assert session.most == Sizes().zipf_most < Sizes().zipf_tenants


@pytest.mark.parametrize("named", ["torchserve", "mms,,x"])
def test_a_peer_that_is_not_known(named: str) -> None:
    with pytest.raises(InvalidInput, match="there is no peer"):
        check_peers(named)


def test_peers_and_tenants_that_are_named() -> None:
    assert check_peers("") == ALL
    assert check_peers(" ray, mms ") == ("ray", "mms")
    assert check_tenants("100, 10,10") == (10, 100)


@pytest.mark.parametrize("named", ["", "ten", "4", "10,5001", "-1"])
def test_tenants_that_are_no_numbers(named: str) -> None:
    with pytest.raises(InvalidInput, match="no numbers of tenants"):
        check_tenants(named)


# What it must come to


def cell(peer: str, step: Any, tenants: int, figures: Mapping[str, Any], **more: Any) -> Cell:
    return Cell(peer=peer, step=step, tenants=tenants, figures=figures, **more)


def loops(peer: str, tenants: int, rps: float) -> list[Cell]:
    return [
        cell(peer, "warm", tenants, {"rps": rps / clients}, clients=clients, text=text)
        for clients in (1, 8)
        for text in ("short", "50 words")
    ]


def finished(**changed: float) -> PeerRun:
    """A run in which every mark is just reached, but for what is changed."""
    own = {"cold": 0.001, "memory": 10, "rps": 3000.0, "zipf": 1.0, "failures": 0, "threads": 0.0, **changed}
    cells = [
        cell(OURS, "cold", 10, {"cached_p50_ms": own["cold"], "uncached_p50_ms": own["cold"]}),
        cell("mms", "cold", 10, {"cached_p50_ms": 1.0, "uncached_p50_ms": 1.0}),
        cell("fastapi", "cold", 10, {"cached_p50_ms": 0.1, "uncached_p50_ms": 0.1}),
        *(memory(OURS, tenants, own["memory"], own["threads"]) for tenants in (10, 100)),
        memory("mms", 10, 200),
        memory("fastapi", 10, 40),
        *loops("mms", 10, 1000.0),
        *(one for tenants in (10, 1000) for one in loops(OURS, tenants, own["rps"])),
        *loops("fastapi", 1000, 1000.0),
        *loops("echo", 1, 30_000.0),
        cell(OURS, "zipf", 1000, {"p99_ms": own["zipf"], "failures": own["failures"]}),
        cell("fastapi", "zipf", 1000, {"p99_ms": 10.0}),
        cell("ray", "zipf", 1000, {"p99_ms": 99.0}),
        cell("mms", "zipf", 1000, {}, outcome="failed", error="404"),
    ]
    peers = {name: PeerInfo(title=name) for name in ALL}
    return PeerRun(date="", command="", machine={}, settings={}, peers=peers, cells=tuple(cells))


def memory(peer: str, tenants: int, size: float, threads: float = 0.0, bound_hits: int = 0) -> Cell:
    sizes = {f"{kind}_bytes_per_tenant": size for kind in ("pss", "resident", "charged")}
    more = {"loaded": tenants, "more": tenants - 4, "threads_per_tenant": threads, "bound_hits": bound_hits}
    return cell(peer, "memory", tenants, {**sizes, **more})


def test_marks_that_are_just_reached() -> None:
    report = judge_marks(finished())
    assert report["passed"] == dict.fromkeys(report["figures"], True)
    assert report["figures"]["mms_cold_cached"] == 1000
    assert report["figures"]["zipf_p99_to_best_peers"] == 0.1


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({"cold": 0.0011}, {"mms_cold_cached", "mms_cold_uncached", "fastapi_cold_cached", "fastapi_cold_uncached"}),
        (
            {"memory": 10.1},
            {f"{peer}_memory_{kind}" for peer in ("mms", "fastapi") for kind in ("resident", "charged")},
        ),
        ({"zipf": 1.01}, {"zipf_p99_to_best_peers"}),
        ({"failures": 1}, {"zipf_failures"}),
        ({"threads": 0.01}, {"threads_per_tenant"}),
        (
            {"rps": 2900.0},
            {
                f"{name}_{text}"
                for name in ("mms_rps", "fastapi_rps", "rps_to_raw_echo")
                for text in ("short", "50_words")
            },
        ),
    ],
)
def test_a_mark_that_is_missed(changed: dict[str, float], missed: set[str]) -> None:
    passed = judge_marks(finished(**changed))["passed"]
    assert {name for name, reached in passed.items() if not reached} == missed


def test_what_was_not_measured_is_not_reached() -> None:
    report = judge_marks(dataclasses.replace(finished(), cells=()))
    assert not any(report["passed"].values())
    assert set(report["figures"].values()) == {None}


def test_a_tenants_memory_is_that_of_the_step_with_most_of_them() -> None:
    run = finished()
    run = run.with_cell(memory(OURS, 100, 7))
    assert bytes_per_tenant(run, OURS, "resident") == 7
    without = {"pss_bytes_per_tenant": 5, "resident_bytes_per_tenant": None, "more": 900, "loaded": 1000}
    assert bytes_per_tenant(run.with_cell(cell(OURS, "memory", 1000, without)), OURS, "resident") == 5


def test_memory_is_not_taken_from_a_step_in_which_some_had_to_go_again() -> None:
    crowded = memory(OURS, 2000, 3)
    run = finished().with_cell(dataclasses.replace(crowded, figures={**crowded.figures, "loaded": 1886}))
    assert bytes_per_tenant(run, OURS, "charged") == 10


def test_memory_is_not_taken_from_a_step_that_met_the_bound() -> None:
    run = finished().with_cell(memory(OURS, 1000, 3, bound_hits=1))
    assert bytes_per_tenant(run, OURS, "charged") == 10
    alone = dataclasses.replace(run, cells=(memory(OURS, 1000, 3, bound_hits=1),))
    assert bytes_per_tenant(alone, OURS, "charged") == 3


def test_a_server_is_judged_by_what_is_better_for_it() -> None:
    variables = "fastapi-variables"
    run = finished().with_peer(variables, PeerInfo(title=variables))
    run = run.with_cell(memory(variables, 10, 39))
    run = run.with_cell(cell(variables, "cold", 10, {"cached_p50_ms": 0.09, "uncached_p50_ms": 0.2}))
    passed = judge_marks(run)["passed"]
    missed = {"fastapi_memory_resident", "fastapi_memory_charged", "fastapi_cold_cached"}
    assert {name for name, reached in passed.items() if not reached} == missed


def test_ours_answers_for_no_fewer_tenants_than_the_other() -> None:
    run = finished()
    for one in loops("mms", 40, 1000.0):
        run = run.with_cell(one)
    # Ours was measured with 10 and with 1,000.
    for one in loops(OURS, 10, 9000.0):
        run = run.with_cell(one)
    assert judge_marks(run)["figures"]["mms_rps_short"] == 3


# What most teams write


def answer_of(tenant: str) -> Callable[[str], dict[str, Any]]:
    return lambda text: {"labels": [tenant], "scores": [float(len(text))]}


def test_the_application_keeps_what_was_asked_last() -> None:
    loads = []

    def load(tenant: str) -> Callable[[str], dict[str, Any]]:
        if tenant == "nobody":
            raise FileNotFoundError(tenant)
        loads.append(tenant)
        return answer_of(tenant)

    async def ask() -> None:
        transport = httpx.ASGITransport(make_app(load, most=2))
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            for tenant in ("a", "b", "a", "c", "a", "b"):
                answer = await client.post(f"/models/{tenant}", json={"text": "four"})
                assert answer.json() == {"labels": [tenant], "scores": [4.0]}
            assert (await client.get("/health")).json() == {"loaded": 2}
            assert (await client.put("/models/b")).json() == {"loaded": 2}
            assert (await client.post("/models/nobody", json={"text": ""})).status_code == 404
            assert (await client.post("/models/a", json={})).status_code == 422

    asyncio.run(ask())
    assert loads == ["a", "b", "c", "b", "b"]


def test_a_model_is_loaded_once_however_many_wait() -> None:
    started, go = threading.Event(), threading.Event()
    loads = []

    def load(tenant: str) -> Callable[[str], dict[str, Any]]:
        loads.append(tenant)
        started.set()
        assert go.wait(10)
        return answer_of(tenant)

    async def ask() -> None:
        models = Models(load, most=1)
        waiting = [asyncio.create_task(models.get("a")) for _ in range(5)]
        await asyncio.to_thread(started.wait, 10)
        go.set()
        assert len({id(model) for model in await asyncio.gather(*waiting)}) == 1

    asyncio.run(ask())
    assert loads == ["a"]


# How the servers are started


class FakeWorld:
    """As much of a world as a start asks for."""

    model_bytes = 100
    spare = ("spare-00000",)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tenants = ["tenant-00000", "tenant-00001"]
        self.next_saved_model = folder / "next"

    def saved_model(self, tenant: str) -> Path:
        return self.folder / "saved" / tenant

    def files(self, tenant: str) -> list[Path]:
        return []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "own").mkdir()
    world: Any = FakeWorld(tmp_path)
    return Place(folder=tmp_path / "own", group=UNBOUNDED, world=world, most=7)


def started(kind: type[Peer], place: Place, monkeypatch: pytest.MonkeyPatch) -> tuple[Peer, list[str], dict[str, str]]:
    """A server that was told to start, what would have been executed, and with what environment."""
    launched: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(
        Peer, "launch", lambda self, command, environment, log=None: launched.append((command, environment))
    )
    monkeypatch.setattr(Peer, "wait_for_url", lambda self, log=None: "http://127.0.0.1:1")
    monkeypatch.setattr(Peer, "wait_until_answering", lambda self, url, path: None)
    peer = kind(place)
    peer.start(["tenant-00000", "tenant-00001"])
    return peer, *launched[0]


@pytest.mark.parametrize("name", ["fastapi", "mms", "mlserver", "ray", "dedicated"])
def test_every_server_gets_the_same_saved_models(name: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    peer, command, _ = started(PEERS[name], place, monkeypatch)
    assert command[0].startswith(str(environments.environments_folder() / str(PEERS[name].environment)))
    for tenant in ("tenant-00000", "tenant-00001", "spare-00000"):
        folder = place.folder / "models" / tenant
        wanted = place.world.saved_model(tenant)
        if name == "mlserver":
            settings = json.loads((folder / "model-settings.json").read_text())
            assert settings["parameters"]["uri"] == str(wanted)
        else:
            assert (folder / ("saved_model" if name == "mms" else "1")).readlink() == wanted
    request = peer.request("tenant-00000", b"ours", "its text")
    head, _, body = request.partition(b"\r\n\r\n")
    assert b"its text" in body
    assert b"ours" not in body
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"tenant-00000" in head


def test_servers_listen_on_loopback_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    started(PEERS["mms"], place, monkeypatch)
    properties = (place.folder / "config.properties").read_text()
    assert "inference_address=http://127.0.0.1:" in properties
    assert "management_address=http://127.0.0.1:" in properties
    second = dataclasses.replace(place, folder=place.folder / "second")
    second.folder.mkdir()
    started(PEERS["mlserver"], second, monkeypatch)
    assert json.loads((second.folder / "models" / "settings.json").read_text())["host"] == "127.0.0.1"


def test_a_registered_name_leads_to_its_folder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    peer, _, _ = started(PEERS["mms"], place, monkeypatch)
    calls = []
    monkeypatch.setattr("benchmarks.peers.mms.told", lambda url, method, path, body=b"": calls.append((method, path)))
    peer.load("tenant-00001")
    peer.replace("tenant-00001")
    query = "model_name=tenant-00001&initial_workers=1&synchronous=true"
    assert calls == [
        ("POST", f"/models?url=tenant-00001&{query}"),
        ("DELETE", "/models/tenant-00001"),
        ("POST", f"/models?url=tenant-00001-next&{query}"),
    ]
    assert (place.folder / "models" / "tenant-00001-next" / "saved_model").readlink() == place.world.next_saved_model


def test_a_process_per_tenant_has_an_address_each(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    peer, command, _ = started(Dedicated, place, monkeypatch)
    assert command[-2:] == ["--load", "tenant-00000"]
    with pytest.raises(PeerFailed, match="no process"):
        peer.url_of("tenant-00001")
    peer.load("tenant-00001")
    assert peer.url_of("tenant-00001")
    with pytest.raises(PeerCannot):
        peer.replace("tenant-00000")


def test_ports_are_free_and_low() -> None:
    found = free_ports(3)
    assert len(set(found)) == 3
    assert all(1024 < port < 32_768 for port in found)


def test_a_step_stands_on_a_started_server_and_loaded_models() -> None:
    session = next(one for one in sessions(["fastapi"], Sizes()))
    measurement = Measurement(session, cast("Any", None), Sizes(), Cores(0, 1), save=print, say=print)
    only = next(one for one in session.cells if one.step == "warm" and one.tenants == 100)
    steps = [(one.step, one.tenants) for one in measurement._stood_on({only.key})]
    assert steps == [("ready", 10), ("memory", 10), ("memory", 100), ("warm", 100)]
    alone = next(one for one in sessions([OURS], Sizes()) if one.most is not None)
    measurement = Measurement(alone, cast("Any", None), Sizes(), Cores(0, 1), save=print, say=print)
    assert [one.step for one in measurement._stood_on({one.key for one in alone.cells})] == ["ready", "zipf"]


class Ailing(Peer):
    """A server that starts, and then does what `url` stands for."""

    name = "fastapi"
    environment = None

    @classmethod
    def info(cls) -> PeerInfo:
        return PeerInfo(title="ailing")

    def start(self, tenants: Sequence[str]) -> None:
        self.url = "http://127.0.0.1:9"

    def request(self, tenant: str, body: bytes, text: str) -> bytes:
        raise AssertionError("a mistake of the bench's own")

    def labels(self, answer: bytes) -> list[tuple[str, float]]:
        return []

    def replace(self, tenant: str) -> None:
        raise PeerCannot("no")


def test_a_server_that_is_gone_costs_no_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own failure stands in the step, whatever was raised; later ones are skipped, and say after what."""
    session = next(one for one in sessions(["fastapi"], QUICK))
    world: Any = FakeWorld(tmp_path)
    world.expected = lambda: [cast("Any", None)]
    monkeypatch.setitem(cast("dict[str, type[Peer]]", PEERS), "fastapi", Ailing)
    found: list[Cell] = []
    Measurement(session, world, QUICK, Cores(None, None), save=found.append, say=print).run(session.cells)
    assert [(one.step, one.outcome) for one in found[:2]] == [("ready", "measured"), ("same", "failed")]
    assert "AttributeError" in str(found[1].error)
    assert {one.outcome for one in found[2:]} == {"skipped"}
    assert {one.error for one in found[2:]} == {"it did not answer anything any more after: same, 10 tenants"}


def test_nothing_of_this_project_reaches_another_server() -> None:
    given = {"PATH": "p", "HOME": "h", "PYTHONPATH": "x", "MACROFLEET_STORE_URL": "s", "RAY_ADDRESS": "r", "TF_X": "1"}
    assert clean_environment(given) == {"PATH": "p", "HOME": "h"}


def test_the_end_of_a_log_is_without_what_says_nothing() -> None:
    assert last_lines("first\nI0000 00:00 port.cc] oneDNN\n\nValueError: no\n") == "first\nValueError: no"
    assert len(last_lines("x" * 1000)) == 500


def test_no_server_is_a_failure_with_words() -> None:
    with pytest.raises(PeerFailed, match="GET /: ConnectionRefusedError"):
        call("http://127.0.0.1:9", "GET", "/")
    with pytest.raises(PeerFailed):
        told("http://127.0.0.1:9", "POST", "/")


def test_an_environment_that_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "false")
    environment = environments.ENVIRONMENTS["ray"]
    assert environment.folder == tmp_path / "macrofleet" / "peers" / "ray"
    assert not environment.installed
    with pytest.raises(OutOfResources, match="ray cannot be used"):
        environment.install()
    failed = environments.install_environments(["ray"], lambda text, share: None)
    assert list(failed) == ["ray"]


# Memory and processes


def test_a_group_is_found_by_its_controller(tmp_path: Path) -> None:
    listing = tmp_path / "cgroup"
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    listing.write_text("9:name=systemd:/\n4:memory:/a/b\n0::/\n")
    assert _own_group(listing, tmp_path / "root") == tmp_path / "root" / "a" / "b"
    listing.write_text("0::/user.slice\n")
    assert _own_group(listing, tmp_path / "root") is None
    assert _own_group(tmp_path / "missing", tmp_path) is None


def test_without_a_group_nothing_is_bounded() -> None:
    assert UNBOUNDED.enter() == []
    assert UNBOUNDED.stat() == {}
    assert UNBOUNDED.hits() == UNBOUNDED.killed() == 0
    UNBOUNDED.kill()
    assert parse_stat("total_rss 5\ntotal_cache 7\n") == {"total_rss": 5, "total_cache": 7}


@pytest.fixture
def sleeper() -> Iterator[Callable[[list[str]], subprocess.Popen[bytes]]]:
    """Starts a process that has another one."""
    made = []

    def start(prefix: list[str]) -> subprocess.Popen[bytes]:
        program = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(flush=True); p.wait()"
        process = subprocess.Popen([*prefix, sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        made.append(process)
        return process

    yield start
    for process in made:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_server_is_all_its_processes(sleeper: Callable[[list[str]], subprocess.Popen[bytes]]) -> None:
    process = sleeper([])
    tree = ProcessTree(UNBOUNDED)
    tree.add(process.pid)
    found = tree.footprint()
    assert (found.processes, found.threads) == (2, 2)
    assert found.pss > 1_000_000
    assert found.charged is None
    tree.keep_to({0})
    tree.kill()
    process.wait(10)
    assert tree.pids() == []


def test_a_group_counts_and_ends_what_runs_in_it(sleeper: Callable[[list[str]], subprocess.Popen[bytes]]) -> None:
    with memory_group(500 * 1024**2) as group:
        if group.path is None:
            pytest.skip("this machine lets nobody make a memory control group of version 1")
        process = sleeper(group.enter())
        found = ProcessTree(group).footprint()
        assert found.processes == 2
        assert found.resident is not None
        assert found.charged is not None
        assert 0 < found.resident <= found.charged
    assert process.wait(10) == -9
    assert not group.path.exists()


@given(st.dictionaries(st.integers(2, 12), st.integers(1, 11)))
def test_descendants(parents: dict[int, int]) -> None:
    parents = {1: 0} | {pid: parent for pid, parent in parents.items() if parent < pid and parent in {1, *parents}}
    found = descendants(1, parents)
    assert len(found) == len(set(found))
    for pid in parents:
        line = [pid]
        while line[-1] in parents:
            line.append(parents[line[-1]])
        assert (pid in found) == (1 in line)


@given(st.binary(max_size=50), st.binary(max_size=50), st.integers(0, 255))
def test_weights_are_put_in_the_place_of_others(before: bytes, after: bytes, seed: int) -> None:
    import tempfile

    import numpy as np

    rng = np.random.default_rng(seed)

    def weights() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            tensors = {"a": rng.standard_normal((4, 5), np.float32), "b": rng.integers(0, 2**31, 20).astype(np.int32)}
            write_tensors(Path(folder) / "w", tensors)
            return (Path(folder) / "w").read_bytes()

    one, other = weights(), weights()
    places = find_tensors(before + one + after, one)
    assert with_tensors(before + one + after, places, other) == before + other + after
    with pytest.raises(ValueError, match="2 times"):
        find_tensors(one + one, one)


# A whole run, of the server that has no models


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world: Any = FakeWorld(tmp_path)
    monkeypatch.setattr(comparison, "prepare", lambda peers, sizes, step: (world, {"ray": "pip said no"}))
    sizes = dataclasses.replace(QUICK, clients=(2,), seconds=0.2)
    path = tmp_path / "run.json"
    said: list[str] = []

    def go(peers: list[str], most_seconds: float = 60) -> dict[str, Any]:
        return compare(
            peers, sizes, path, command="c", most_seconds=most_seconds, step=lambda text, _: said.append(text)
        )

    report = go(["ray", "echo"], most_seconds=-1)
    run = read_run(path)
    assert {cell.outcome for cell in run.select(peer="ray")} == {"failed"}
    assert {cell.error for cell in run.select(peer="ray")} == {"pip said no"}
    assert not list(run.select(peer="echo")), "there was no time"
    assert not any(report["passed"].values())

    go(["ray", "echo"])
    run = read_run(path)
    assert {(cell.step, cell.outcome) for cell in run.select(peer="echo")} == {
        ("ready", "measured"),
        ("warm", "measured"),
    }
    assert all(cell.figures["rps"] > 0 for cell in run.select(peer="echo", step="warm"))
    assert set(run.peers) == {"ray", "echo"}

    said.clear()
    monkeypatch.setattr(comparison, "prepare", lambda peers, sizes, step: (world, {"ray": "pip said no again"}))
    go(["ray", "echo"])
    assert read_run(path) == run
    assert said == [f"{path} has every step of an earlier run: nothing is measured; move it away for a new run"]

    compare(
        ["ray", "echo"], sizes, path, command="c", most_seconds=60, step=lambda text, _: said.append(text), again=True
    )
    assert {cell.error for cell in read_run(path).select(peer="ray")} == {"pip said no again"}
    assert list(read_run(path).select(peer="echo")) == list(run.select(peer="echo"))

    with pytest.raises(InvalidInput, match="other sizes"):
        compare(["echo"], QUICK, path, command="c", most_seconds=1, step=lambda text, share: None)
