"""SageMaker's multi-model container contract, as the platform calls it, against a container with a real program."""

from __future__ import annotations

import asyncio
import errno
import gc
import http.client
import json
import logging
import mmap
import os
import re
import shutil
import socket
import tarfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from starlette.types import Message
from typer.testing import CliRunner

import macrofleet
from benchmarks.fleets import make_bundle, publish_tenants
from registry.catalogue import Macro, make_catalogue, read_catalogue, write_catalogue
from registry.errors import InvalidInput
from registry.layout import LABELS, MANIFEST, WEIGHTS
from registry.model.mapped import map_bundle
from registry.model.program import publish_program
from registry.model.runtime import BoundModel, Features, Program
from registry.model.sagemaker_export import CATALOGUE, export_sagemaker
from registry.store.local import LocalStore
from registry.tenant_settings import edit_tenant_settings
from registry.text.ticket import ticket_text
from serving.engine import local_models
from serving.faces.edge import MAX_BODY_BYTES
from serving.faces.sagemaker import MAX_ALIAS, TARGET_HEADER, create_sagemaker_app
from serving.settings import ServingSettings
from tests.serving.helpers import (
    PATIENCE_SECONDS,
    BuiltProgram,
    Caller,
    add_catalogue,
    eventually,
    serving,
    spin,
    ticket,
)

pytestmark = pytest.mark.anyio

ALIASES = ["0f3c", "a/b", "a/invoke", "..", "../..", "/", "é ⚡", "?#%2F;", "l\nf\n", "x" * MAX_ALIAS]
MODELS = 3


class Folders:
    """Unpacked archives: what SageMaker leaves at a model's URL."""

    def __init__(self, root: Path, bag: BuiltProgram) -> None:
        self.root = root
        self.bag = bag
        self.versions: dict[str, str] = {}

    def make(self, name: str, *, program: str | None = None, **changes: Any) -> str:
        """A good bundle; `changes` are those of `make_bundle`. Returns its URL."""
        folder = self.root / name / "model"
        given = {"tenant": name, "spec": self.bag.spec, **changes}
        manifest = make_bundle(folder, program=program or self.bag.digest, **given)
        self.versions[str(add_catalogue(folder))] = manifest.version
        return str(folder)

    def copy(self, url: str, name: str) -> Path:
        """A good bundle to damage."""
        return Path(shutil.copytree(url, self.root / name / "model"))


@pytest.fixture(scope="module", autouse=True)
def _slow_program() -> Iterator[None]:
    """A program that is worked off in a thread, which a test can hold while the event loop goes on."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("serving.engine.programs._QUICK_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, bag: BuiltProgram) -> Path:
    """What `macrofleet --store FOLDER programs build` leaves for an image to copy."""
    folder = tmp_path_factory.mktemp("image")
    publish_program(LocalStore(folder), bag.folder)
    return folder / "programs"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, bag: BuiltProgram) -> Folders:
    return Folders(tmp_path_factory.mktemp("models"), bag)


@pytest.fixture(scope="module")
def urls(folders: Folders) -> list[str]:
    return [folders.make(f"tenant-{index}", seed=index) for index in range(MODELS)]


@pytest.fixture(scope="module")
def container(bag: BuiltProgram, urls: list[str]) -> ServingSettings:
    """Settings of a container with room for all models but one."""
    size = os.stat(Path(urls[0]) / WEIGHTS).st_size
    return ServingSettings.model_validate(
        {
            "trusted_programs": frozenset({bag.digest, "f" * 64}),
            "signing_key": "0123456789abcdef",
            "request_timeout_ms": 30_000,
            "memory_bytes": (MODELS - 1) * size,
        }
    )


@pytest.fixture(scope="module")
def app(container: ServingSettings, programs: Path) -> FastAPI:
    return create_sagemaker_app(container, programs_folder=programs, access=None)


@pytest.fixture(scope="module")
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as client:
        await until_ready(client)
        yield client
    gc.unfreeze()


@pytest.fixture
async def client(running: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """A container in which nothing is loaded."""
    yield running
    for model in (await running.get("/models")).json()["models"]:
        assert (await running.delete(path_of(model["modelName"]))).status_code == 200


async def until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await client.get("/ping")).status_code != 200:
            await asyncio.sleep(0.01)


def path_of(alias: str) -> str:
    """Every byte escaped, so that no client tidies the path up."""
    return "/models/" + "".join(f"%{byte:02X}" for byte in alias.encode())


async def load(client: httpx.AsyncClient, alias: str, url: str, **headers: str) -> httpx.Response:
    return await client.post("/models", json={"model_name": alias, "url": url}, headers=headers)


async def invoke(client: httpx.AsyncClient, alias: str, **fields: Any) -> httpx.Response:
    return await client.post(path_of(alias) + "/invoke", json=ticket(**fields))


def check_problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"urn:macrofleet:problem:{kind}"
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


def mapped() -> set[str]:
    """The weights that this process has mapped, whoever holds them; but for disk tiers, which are other tests'."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[5].removesuffix(f"/{WEIGHTS}") for line in lines if line.endswith(WEIGHTS)}
    return {path for path in paths if not re.search(r"/models/[^/]+/[0-9a-f]{16}$", path)}


# What AWS's own tests of its containers do, in their order.


async def test_the_calls_of_the_platform(client: httpx.AsyncClient, folders: Folders, urls: list[str]) -> None:
    ping = await client.get("/ping")
    assert (ping.status_code, ping.content) == (200, b"")
    assert (await client.get("/models")).json() == {"models": []}
    check_problem(await invoke(client, "hash-1"), 404, "model-not-loaded")

    first = await load(client, "hash-1", urls[0])
    assert (first.status_code, first.json()) == (200, {"status": "loaded"})
    assert (await client.get("/models")).json() == {"models": [{"modelName": "hash-1", "modelUrl": urls[0]}]}
    assert (await load(client, "hash-2", urls[1])).status_code == 200
    assert (await client.get("/models")).json() == {
        "models": [{"modelName": "hash-1", "modelUrl": urls[0]}, {"modelName": "hash-2", "modelUrl": urls[1]}]
    }
    one = await client.get("/models/hash-1")
    assert (one.status_code, one.json()) == (200, {"modelName": "hash-1", "modelUrl": urls[0]})

    for url in urls[:2]:
        check_problem(await load(client, "hash-1", url), 409, "already-loaded")
    answer = await invoke(client, "hash-1")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["model_version"] == folders.versions[urls[0]]

    gone = await client.delete("/models/hash-1")
    assert (gone.status_code, gone.json()) == (200, {"status": "unloaded"})
    check_problem(await client.delete("/models/hash-1"), 404, "model-not-loaded")
    check_problem(await client.get("/models/hash-1"), 404, "model-not-loaded")
    check_problem(await invoke(client, "hash-1"), 404, "model-not-loaded")
    assert (await client.get("/models")).json() == {"models": [{"modelName": "hash-2", "modelUrl": urls[1]}]}
    check_problem(await load(client, "banana", "/opt/ml/models/banana/model"), 404, "model-not-loaded")


async def test_the_platform_makes_room_after_a_507(client: httpx.AsyncClient, urls: list[str]) -> None:
    for index, url in enumerate(urls[:-1]):
        assert (await load(client, f"m{index}", url)).status_code == 200
    check_problem(await load(client, "last", urls[-1]), 507, "out-of-resources")
    assert mapped() == set(urls[:-1]), "nothing is evicted for it"
    check_problem(await load(client, "m0", urls[0]), 409, "already-loaded")
    assert (await client.delete("/models/m1")).status_code == 200
    assert (await load(client, "last", urls[-1])).status_code == 200


@pytest.mark.parametrize("alias", ALIASES)
async def test_an_alias_is_opaque(client: httpx.AsyncClient, urls: list[str], alias: str) -> None:
    assert (await load(client, alias, urls[0])).status_code == 200
    assert (await client.get(path_of(alias))).json() == {"modelName": alias, "modelUrl": urls[0]}
    assert (await client.get("/models")).json()["models"] == [{"modelName": alias, "modelUrl": urls[0]}]
    assert (await invoke(client, alias)).status_code == 200
    assert (await client.delete(path_of(alias))).status_code == 200
    assert mapped() == set()


async def test_the_tenant_is_the_manifests(client: httpx.AsyncClient, folders: Folders, urls: list[str]) -> None:
    """The same weights of two tenants: the alias says nothing about either."""
    answers = {}
    for name in ("acme", "globex"):
        await load(client, "alias", folders.make(name, seed=7))
        answers[name] = (await invoke(client, "alias")).json()
        await client.delete("/models/alias")
    assert answers["acme"]["macros"] == answers["globex"]["macros"]
    assert answers["acme"]["suggestion_id"] != answers["globex"]["suggestion_id"]


async def test_pages(client: httpx.AsyncClient, folders: Folders, urls: list[str], bag: BuiltProgram) -> None:
    aliases = sorted(ALIASES[:2])
    for alias, url in zip(aliases, urls, strict=False):
        await load(client, alias, url)
    first = (await client.get("/models", params={"limit": 1})).json()
    assert [model["modelName"] for model in first["models"]] == aliases[:1]
    # What comes and goes between two pages neither repeats nor hides what stays.
    await client.delete(path_of(aliases[0]))
    last = (await client.get("/models", params={"limit": 1, "next_page_token": first["nextPageToken"]})).json()
    assert last == {"models": [{"modelName": aliases[1], "modelUrl": urls[1]}]}
    for limit in ("0", "-1", "101", str(2**70)):
        assert len((await client.get("/models", params={"limit": limit})).json()["models"]) == 1
    for bad in ({"limit": "x"}, {"next_page_token": "*"}, {"next_page_token": "gA=="}, {"next_page_token": "é"}):
        check_problem(await client.get("/models", params=bad), 400, "bad-request")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"x"',
        b"\xff",
        b'{"url": "/x"}',
        b'{"model_name": "x"}',
        b'{"model_name": "", "url": "/x"}',
        b'{"model_name": 7, "url": "/x"}',
        b'{"model_name": "\\ud800", "url": "/x"}',
        json.dumps({"model_name": "x" * (MAX_ALIAS + 1), "url": "/x"}).encode(),
        *(
            json.dumps({"model_name": "x", "url": url}).encode()
            for url in ("", "x", "s3://bucket/x", "http://host/x", "file://host/x", "file:x", "file:///x?y", "/a\0b")
        ),
        json.dumps({"model_name": "x", "url": "/" + "x" * 4096}).encode(),
        b'{"model_name": "x", "url": "file://["}',
    ],
)
async def test_a_load_request_that_is_none(client: httpx.AsyncClient, body: bytes) -> None:
    check_problem(await client.post("/models", content=body), 400, "bad-request")


@pytest.mark.parametrize("url", ["/nowhere", "/etc/hostname", "/etc/hostname/x", "/" + "x" * 300, "file:///nowhere"])
async def test_a_folder_that_is_none(client: httpx.AsyncClient, url: str) -> None:
    check_problem(await load(client, "x", url), 404, "model-not-loaded")


async def test_other_fields_of_a_load_request(client: httpx.AsyncClient, urls: list[str]) -> None:
    body = {"model_name": "x", "url": f"file://{urls[0]}", "synchronous": True, "batch_size": 1}
    assert (await client.post("/models", json=body)).status_code == 200
    assert (await client.get("/models/x")).json()["modelUrl"] == f"file://{urls[0]}"
    assert mapped() == {urls[0]}


def _flip(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)


def _of_another_tenant(folder: Path, others: str) -> None:
    shutil.copy(Path(others) / MANIFEST, folder / MANIFEST)


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


DAMAGE: dict[str, Callable[[Path, str], object]] = {
    "no manifest": lambda folder, _: (folder / MANIFEST).unlink(),
    "no weights": lambda folder, _: (folder / WEIGHTS).unlink(),
    "no labels": lambda folder, _: (folder / LABELS).unlink(),
    "a changed manifest": lambda folder, _: _flip(folder, MANIFEST),
    "changed weights": lambda folder, _: _flip(folder, WEIGHTS),
    "changed labels": lambda folder, _: _flip(folder, LABELS),
    "cut weights": lambda folder, _: os.truncate(folder / WEIGHTS, 4096),
    "another tenant's manifest": _of_another_tenant,
    "a bad catalogue": lambda folder, _: (folder / CATALOGUE).write_text("{}"),
    "a catalogue that is a folder": lambda folder, _: _replace(folder / CATALOGUE, Path.mkdir),
    # Nobody would know which of its macros are switched off, or one agent's own.
    "no catalogue": lambda folder, _: (folder / CATALOGUE).unlink(),
    "weights that never end": lambda folder, _: _replace(folder / WEIGHTS, lambda path: path.symlink_to("/dev/zero")),
    "a manifest that waits": lambda folder, _: _replace(folder / MANIFEST, os.mkfifo),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_bundle(
    client: httpx.AsyncClient,
    folders: Folders,
    urls: list[str],
    damage: str,
) -> None:
    folder = folders.copy(urls[0], f"damaged-{damage}")
    DAMAGE[damage](folder, urls[1])
    problem = check_problem(await load(client, "x", str(folder)), 400, "model-unusable")
    assert str(folders.root) not in json.dumps(problem)
    assert "tenant-0" not in json.dumps(problem)
    check_problem(await client.get("/models/x"), 404, "model-not-loaded")
    # It holds no room and no mapping, although a log keeps the error, and the alias is free.
    assert mapped() == set()
    for index, url in enumerate(urls[:-1]):
        assert (await load(client, "x" * (index + 1), url)).status_code == 200


async def test_a_program_that_is_not_ours(client: httpx.AsyncClient, folders: Folders) -> None:
    for name, program in (("untrusted", "e" * 64), ("trusted-but-not-here", "f" * 64)):
        url = folders.make(name, program=program)
        check_problem(await load(client, "x", url), 400, "model-unusable")


async def test_a_model_that_does_not_score(client: httpx.AsyncClient, folders: Folders) -> None:
    url = folders.make("nan")
    poisoned = {name: np.array(tensor) for name, tensor in map_bundle(Path(url), tenant=None).tensors.items()}
    poisoned["bias"][:] = np.nan
    shutil.rmtree(url)
    from registry.model.bundle import Label, write_bundle

    Path(url).mkdir()
    write_bundle(
        Path(url),
        tenant="nan",
        program=folders.bag.digest,
        tensors=poisoned,
        macros=[Label(id=f"m{index}", title="") for index in range(5)],
        data_fingerprint="0" * 64,
        settings={},
        metrics={},
        threshold=0.0,
    )
    check_problem(await load(client, "x", url), 400, "model-unusable")


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE])
async def test_a_process_that_may_map_no_more(
    client: httpx.AsyncClient, urls: list[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> mmap.mmap:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr("registry.model.tensors.mmap.mmap", refuse)
        check_problem(await load(client, "x", urls[0]), 507, "out-of-resources")
    assert (await load(client, "x", urls[0])).status_code == 200


async def test_an_answer_is_what_the_model_says(client: httpx.AsyncClient, urls: list[str], bag: BuiltProgram) -> None:
    await load(client, "x", urls[0])
    program = Program(bag.folder, trusted=frozenset({bag.digest}))
    model = program.bind(map_bundle(Path(urls[0]), tenant=None))
    text = "Where is my order 4711?"
    scores = model.score(program.featurise([ticket_text("", [text])]))[0]
    answer = (await invoke(client, "x", text=text)).json()
    best = np.argsort(-scores)[:3]
    assert [macro["id"] for macro in answer["macros"]] == [model.labels[index].id for index in best]
    assert [macro["score"] for macro in answer["macros"]] == pytest.approx(scores[best].tolist(), abs=1e-5)
    assert (answer["abstained"], answer["reason"]) == (False, None)
    kept = (await invoke(client, "x", text=text, exclude=[answer["macros"][0]["id"]], limit=1)).json()
    assert kept["macros"] == answer["macros"][1:2]
    del model


async def test_the_platforms_face_does_not_explain(client: httpx.AsyncClient, urls: list[str]) -> None:
    await load(client, "x", urls[0])
    check_problem(await invoke(client, "x", explain=True), 422, "invalid-request")


async def test_an_exported_model_is_served_with_its_catalogue(
    client: httpx.AsyncClient, tmp_path: Path, bag: BuiltProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    store = LocalStore(tmp_path / "store")
    made = publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    found = read_catalogue(store, "acme")
    assert found
    today = [Macro(id="m0", title="Renamed"), Macro(id="m1", title="Off", active=False), Macro(id="new", title="New")]
    write_catalogue(store, "acme", make_catalogue(today), etag=found[1])
    command = ["models", "export", "acme", "--sagemaker", "--out", str(tmp_path), "--json"]
    exported = CliRunner().invoke(macrofleet.app, command)
    assert exported.exit_code == 0, exported.output
    archive = json.loads(exported.stdout)
    with tarfile.open(archive["path"]) as tar:
        tar.extractall(tmp_path / "model", filter="data")
    await load(client, "x", str(tmp_path / "model"), **{TARGET_HEADER: archive["target_model"]})
    headers = {TARGET_HEADER: archive["target_model"]}
    answer = (await client.post("/invocations", json=ticket(), headers=headers)).json()
    assert answer["model_version"] == made["acme"].version
    assert [(macro["id"], macro["title"]) for macro in answer["macros"]] == [("m0", "Renamed")]


async def test_nothing_that_is_switched_off_or_somebodys_own_is_exported(
    client: httpx.AsyncClient, tmp_path: Path, bag: BuiltProgram
) -> None:
    store = LocalStore(tmp_path / "store")
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec, macros=6)
    found = read_catalogue(store, "acme")
    assert found
    fields: list[dict[str, Any]] = [
        {"active": False},
        {"restriction": {"type": "User", "id": 17}},
        {"restriction": {"type": "Group", "ids": [7]}},
        {"restriction": {"type": "Unheard of"}},
        {},
        {},
    ]
    macros = [macro.model_copy(update=more) for macro, more in zip(found[0].macros, fields, strict=True)]
    write_catalogue(store, "acme", make_catalogue(macros), etag=found[1])
    edit_tenant_settings(store, ["acme"], {"exclude_macros": ["m5"]})
    archive = export_sagemaker(store, "acme", folder=tmp_path)
    with tarfile.open(archive.path) as tar:
        tar.extractall(tmp_path / "model", filter="data")
    await load(client, "x", str(tmp_path / "model"))
    asked = [ticket(), ticket(agent={"id": "17", "groups": ["7", "17"]})]
    for text in asked:
        answer = (await client.post("/models/x/invoke", json=text)).json()
        assert [macro["id"] for macro in answer["macros"]] == ["m4"]


async def test_a_request_that_is_none(client: httpx.AsyncClient, urls: list[str]) -> None:
    check_problem(await client.post("/models/x/invoke", content=b"{"), 404, "model-not-loaded")
    await load(client, "x", urls[0])
    for body in (b"", b"1.0,2.0", b"{}", json.dumps(ticket(limit=9)).encode(), json.dumps(ticket(" ")).encode()):
        answer = await client.post("/models/x/invoke", content=body, headers={"Content-Type": "text/csv"})
        check_problem(answer, 422, "invalid-request")
    large = json.dumps(ticket("x" * MAX_BODY_BYTES)).encode()
    check_problem(await client.post("/models/x/invoke", content=large), 413, "too-large")


async def test_invocations(client: httpx.AsyncClient, folders: Folders, urls: list[str]) -> None:
    async def version(target: str | None = None) -> str | int:
        answer = await client.post(
            "/invocations", json=ticket(), headers={} if target is None else {TARGET_HEADER: target}
        )
        return str(answer.json()["model_version"]) if answer.status_code == 200 else answer.status_code

    assert await version() == 404
    await load(client, "one", urls[0], **{TARGET_HEADER: "acme/1.tar.gz"})
    assert await version() == folders.versions[urls[0]]
    await load(client, "two", urls[1], **{TARGET_HEADER: "acme/2.tar.gz"})
    assert await version() == 404, "which one is not said"
    assert await version("acme/2.tar.gz") == folders.versions[urls[1]]
    assert await version("one") == folders.versions[urls[0]]
    assert await version("other.tar.gz") == 404
    # The platform sends the header with every call; where the path names the model it says nothing.
    named = await client.post("/models/one/invoke", json=ticket(), headers={TARGET_HEADER: "acme/2.tar.gz"})
    assert named.json()["model_version"] == folders.versions[urls[0]]


async def test_routes_that_are_none(client: httpx.AsyncClient) -> None:
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/v1/tenants/acme/suggestions", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/models/", 404),
        ("PUT", "/models/x", 405),
        ("POST", "/models/x", 405),
        ("GET", "/invocations", 405),
        ("POST", "/ping", 405),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == status, (method, path)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_metrics(client: httpx.AsyncClient, urls: list[str]) -> None:
    async def read() -> dict[str, float]:
        lines = (await client.get("/metrics")).text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    before = await read()
    await load(client, "x", urls[0])
    check_problem(await load(client, "y", "/nowhere"), 404, "model-not-loaded")
    during = await read()
    await client.delete("/models/x")
    after = await read()
    size = os.stat(Path(urls[0]) / WEIGHTS).st_size
    assert (during["macrofleet_models_loaded"], after["macrofleet_models_loaded"]) == (1, 0)
    assert (during['macrofleet_bytes{tier="memory"}'], after['macrofleet_bytes{tier="memory"}']) == (size, 0)
    for name, counted in (
        ('macrofleet_phase_seconds_count{phase="map"}', 1),
        ('macrofleet_phase_seconds_count{phase="unload"}', 1),
        ('macrofleet_model_loads_total{error="none",outcome="done"}', 1),
        ('macrofleet_model_loads_total{error="other",outcome="failed"}', 1),
        ('macrofleet_evictions_total{cause="unloaded",tier="memory"}', 1),
        ('macrofleet_requests_total{face="sagemaker",status="200"}', 2),
    ):
        assert after[name] - before.get(name, 0) == counted, name


# Interleavings. `Gate` holds the executor's thread (`_slow_program`), in place of luck.


class Gate:
    """Holds featurising from the moment it is closed."""

    def __init__(self) -> None:
        self.held = 0
        self.passed = 0
        self.error: Exception | None = None
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def wait(self) -> None:
        if not self._open.is_set():
            self.held += 1
            assert self._open.wait(PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error
        self.passed += 1


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    featurise = Program.featurise

    def held(self: Program, texts: list[str]) -> Features:
        made.wait()
        return featurise(self, texts)

    monkeypatch.setattr(Program, "featurise", held)
    yield made
    made.open()


async def test_an_unload_answers_when_the_last_request_has_and_the_memory_is_back(
    client: httpx.AsyncClient, urls: list[str], gate: Gate
) -> None:
    await load(client, "x", urls[0])
    gate.close()
    working = asyncio.create_task(invoke(client, "x"))
    await eventually(lambda: gate.held == 1)
    queued = asyncio.create_task(invoke(client, "x"))
    await spin()
    unloading = asyncio.create_task(client.delete("/models/x"))
    await spin()
    check_problem(await invoke(client, "x"), 404, "model-not-loaded")
    check_problem(await client.get("/models/x"), 404, "model-not-loaded")
    assert (await client.get("/models")).json() == {"models": []}
    assert not unloading.done()
    assert mapped() == {urls[0]}

    async def unloaded() -> set[str]:
        assert (await unloading).status_code == 200
        return mapped()

    after = asyncio.create_task(unloaded())
    gate.open()
    assert [(await one).status_code for one in (working, queued)] == [200, 200]
    assert await after == set()


@pytest.mark.parametrize(("kind", "method"), [(Program, "featurise"), (BoundModel, "score_ticket")])
async def test_a_request_that_fails_keeps_no_memory(
    client: httpx.AsyncClient,
    urls: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type,
    method: str,
) -> None:
    """Although a log keeps its error."""

    def fail(self: Any, *_: object) -> None:
        raise ValueError

    await load(client, "x", urls[0])
    gc.disable()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(kind, method, fail)
            check_problem(await invoke(client, "x"), 500, "internal")
        # Nor does anybody have to collect garbage for that.
        monkeypatch.setattr(local_models, "gc", SimpleNamespace(collect=lambda: pytest.fail("a cycle keeps the model")))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await client.delete("/models/x")).status_code == 200
        assert mapped() == set()
        assert any(record.exc_info for record in caplog.records)
    finally:
        gc.enable()


async def test_a_request_past_its_deadline_keeps_no_memory(
    container: ServingSettings, programs: Path, urls: list[str], gate: Gate
) -> None:
    # Long enough for the executor to come by on a busy machine: what expires before that is never worked on.
    impatient = container.model_copy(update={"request_timeout_ms": 500})
    async with serving(create_sagemaker_app(impatient, programs_folder=programs, access=None)) as client:
        await until_ready(client)
        await load(client, "x", urls[0])
        gate.close()
        check_problem(await invoke(client, "x"), 504, "deadline-exceeded")
        await eventually(lambda: gate.held == 1)
        # The executor is busy with it, and has not come to the model.
        async with asyncio.timeout(PATIENCE_SECONDS / 2):
            assert (await client.delete("/models/x")).status_code == 200
        assert mapped() == set()
        gate.open()
    gc.unfreeze()


async def test_requests_that_fail_together_do_not_end_each_other(
    app: FastAPI, client: httpx.AsyncClient, urls: list[str], gate: Gate
) -> None:
    """They get the same error, each while another may still be busy sending its answer."""
    await load(client, "x", urls[0])
    gate.close()
    first = asyncio.create_task(invoke(client, "x"))
    await eventually(lambda: gate.held == 1)
    may_send = asyncio.Event()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        await may_send.wait()
        sent.append(message)

    caller = Caller("/models/x/invoke", json.dumps(ticket()).encode())
    slow = asyncio.create_task(app(caller.scope, caller.receive, send))
    await spin()
    quick = asyncio.create_task(invoke(client, "x"))
    await spin()
    gate.error = MemoryError()
    gate.open()
    assert [(await one).status_code for one in (first, quick)] == [500, 500]
    assert not slow.done()
    may_send.set()
    await slow
    assert sent[0]["status"] == 500


@pytest.mark.parametrize("path", ["/models/x/invoke", "/invocations"])
async def test_nothing_further_is_done_for_a_caller_that_hangs_up_while_it_waits(
    app: FastAPI, client: httpx.AsyncClient, urls: list[str], gate: Gate, path: str
) -> None:
    async def gone() -> float:
        lines = (await client.get("/metrics")).text.splitlines()
        name = 'macrofleet_requests_total{face="sagemaker",status="499"} '
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    async def send(message: Message) -> None:
        raise AssertionError(message)

    before = await gone()
    await load(client, "x", urls[0])
    gate.close()
    first = asyncio.create_task(invoke(client, "x"))
    await eventually(lambda: gate.held == 1)
    caller = Caller(path, json.dumps(ticket()).encode())
    waiting = asyncio.create_task(app(caller.scope, caller.receive, send))
    await spin()
    assert not waiting.done()
    caller.hang_up()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await waiting
    assert not waiting.cancelled()
    assert await gone() == before + 1
    gate.open()
    assert (await first).status_code == 200
    assert (await invoke(client, "x")).status_code == 200
    assert gate.passed == 2, "it was featurised all the same"
    assert (await client.delete("/models/x")).status_code == 200
    assert mapped() == set()


async def test_a_load_waits_for_the_unload_under_way(
    client: httpx.AsyncClient, folders: Folders, urls: list[str], gate: Gate
) -> None:
    await load(client, "x", urls[0])
    gate.close()
    working = asyncio.create_task(invoke(client, "x"))
    await eventually(lambda: gate.held == 1)
    unloading = asyncio.create_task(client.delete("/models/x"))
    await spin()
    loading = asyncio.create_task(load(client, "x", urls[1]))
    await spin()
    assert not loading.done()
    gate.open()
    assert [(await one).status_code for one in (working, unloading, loading)] == [200, 200, 200]
    assert (await working).json()["model_version"] == folders.versions[urls[0]]
    assert (await invoke(client, "x")).json()["model_version"] == folders.versions[urls[1]]
    assert mapped() == {urls[1]}


@pytest.fixture
def mapping(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Holds loads after the model was weighed."""
    made = Gate()

    def held(folder: Path, *, tenant: str | None) -> Any:
        made.wait()
        return map_bundle(folder, tenant=tenant)

    monkeypatch.setattr("serving.engine.local_bundles.map_bundle", held)
    made.close()
    yield made
    made.open()


async def test_loads_and_unloads_of_one_alias_at_once(
    client: httpx.AsyncClient, urls: list[str], mapping: Gate
) -> None:
    first = asyncio.create_task(load(client, "x", urls[0]))
    await eventually(lambda: mapping.held == 1)
    second = asyncio.create_task(load(client, "x", urls[0]))
    await spin()
    unloading = asyncio.create_task(client.delete("/models/x"))
    await spin()
    check_problem(await invoke(client, "x"), 404, "model-not-loaded")
    assert not second.done()
    assert not unloading.done()
    mapping.open()
    assert [(await one).status_code for one in (first, second, unloading)] == [200, 409, 200]
    assert mapped() == set()


async def test_loads_at_once_share_the_budget(client: httpx.AsyncClient, urls: list[str], mapping: Gate) -> None:
    loads = [asyncio.create_task(load(client, f"m{index}", url)) for index, url in enumerate(urls)]
    await eventually(lambda: mapping.held == MODELS - 1 and any(one.done() for one in loads))
    mapping.open()
    assert sorted([(await one).status_code for one in loads]) == [200, 200, 507]


async def test_the_size_that_was_weighed_is_what_counts(
    client: httpx.AsyncClient, folders: Folders, urls: list[str], mapping: Gate
) -> None:
    url = folders.make("grows")
    loading = asyncio.create_task(load(client, "x", url))
    await eventually(lambda: mapping.held == 1)
    shutil.rmtree(url)
    folders.make("grows", macros=50)
    mapping.open()
    check_problem(await loading, 400, "model-unusable")


# The start.


async def test_red_until_the_programs_are_loaded(
    container: ServingSettings, programs: Path, urls: list[str], gate: Gate
) -> None:
    gate.close()
    async with serving(create_sagemaker_app(container, programs_folder=programs, access=None)) as client:
        await eventually(lambda: gate.held == 1)
        for answer in (
            await client.get("/ping"),
            await load(client, "x", urls[0]),
            await invoke(client, "x"),
            await client.post("/invocations", json=ticket()),
        ):
            check_problem(answer, 503, "not-ready")
        gate.open()
        await until_ready(client)
        assert mapped() == set(), "what was refused is not loaded later"
        assert (await load(client, "x", urls[0])).status_code == 200
        assert mapped() == {urls[0]}
        assert (await client.delete("/models/x")).status_code == 200
    assert mapped() == set()


async def test_a_damaged_program_keeps_it_red(
    container: ServingSettings, programs: Path, tmp_path: Path, bag: BuiltProgram, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(programs, tmp_path / "programs")
    _flip(tmp_path / "programs" / bag.digest, "saved_model.pb")
    async with serving(create_sagemaker_app(container, programs_folder=tmp_path / "programs", access=None)) as client:
        await eventually(lambda: "cannot be loaded" in caplog.text)
        check_problem(await client.get("/ping"), 503, "not-ready")


def test_a_program_under_another_name(container: ServingSettings, programs: Path, tmp_path: Path) -> None:
    """Its own digest decides, not the folder's name."""
    shutil.copytree(programs, tmp_path / "programs")
    (folder,) = (tmp_path / "programs").iterdir()
    folder.rename(folder.with_name("f" * 64))

    async def start() -> int:
        async with serving(
            create_sagemaker_app(container, programs_folder=tmp_path / "programs", access=None)
        ) as client:
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
            return (await client.get("/ping")).status_code

    assert asyncio.run(start()) == 503


def test_an_image_without_programs(
    container: ServingSettings, bag: BuiltProgram, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InvalidInput):
            create_sagemaker_app(container, programs_folder=folder, access=None)
    shutil.copytree(bag.folder, tmp_path / ("a" * 64))
    with pytest.raises(InvalidInput, match="no program that this process may execute"):
        create_sagemaker_app(container, programs_folder=tmp_path, access=None)


async def test_over_a_socket(
    app: FastAPI, running: httpx.AsyncClient, client: httpx.AsyncClient, urls: list[str]
) -> None:
    """Paths as they are sent, through the real server's parser."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        running_server = asyncio.create_task(server.serve(sockets=[listener]))

        def ask(method: str, path: str, body: object = None) -> tuple[int, Any]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
            try:
                connection.request(method, path, None if body is None else json.dumps(body))
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read() or b"null")
            finally:
                connection.close()

        def talk() -> None:
            assert ask("GET", "/ping") == (200, None)
            for alias in ALIASES:
                assert ask("POST", "/models", {"model_name": alias, "url": urls[0]})[0] == 200
                assert ask("GET", path_of(alias)) == (200, {"modelName": alias, "modelUrl": urls[0]})
                assert ask("POST", path_of(alias) + "/invoke", ticket())[0] == 200
                assert ask("DELETE", path_of(alias))[0] == 200
            assert ask("GET", "/models/..")[0] == 404

        await asyncio.to_thread(talk)
        server.should_exit = True
        await running_server


# Everything at random, against a dictionary.


class Blocking:
    """A container on an event loop in another thread, called from this one."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Blocking:
        self._thread.start()
        self._serving = serving(self._app)
        self._client = self._await(self._serving.__aenter__())
        self._await(until_ready(self._client))
        return self

    def __exit__(self, *_: object) -> None:
        self._await(self._serving.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def request(self, method: str, path: str, **fields: Any) -> httpx.Response:
        answer: httpx.Response = self._await(self._client.request(method, path, **fields))
        return answer

    def _await(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)


class Contract(RuleBasedStateMachine):
    """What the table should say after any calls in any order."""

    client: Blocking
    urls: list[str]
    versions: dict[str, str]
    damaged: str
    known = st.sampled_from([*ALIASES[:7], "b"])

    def __init__(self) -> None:
        super().__init__()
        self.loaded: dict[str, str] = {}

    @rule(alias=known, which=st.integers(0, MODELS + 1))
    def load(self, alias: str, which: int) -> None:
        url = [*self.urls, self.damaged, "/nowhere"][which]
        if alias in self.loaded:
            expected = 409
        elif url == "/nowhere":
            expected = 404
        elif len(self.loaded) == MODELS - 1:
            expected = 507
        elif url == self.damaged:
            expected = 400
        else:
            expected = 200
            self.loaded[alias] = url
        answer = self.client.request("POST", "/models", json={"model_name": alias, "url": url})
        assert answer.status_code == expected

    @rule(alias=known)
    def unload(self, alias: str) -> None:
        expected = 200 if self.loaded.pop(alias, None) else 404
        assert self.client.request("DELETE", path_of(alias)).status_code == expected

    @rule(alias=known)
    def get(self, alias: str) -> None:
        answer = self.client.request("GET", path_of(alias))
        if alias in self.loaded:
            assert answer.json() == {"modelName": alias, "modelUrl": self.loaded[alias]}
        else:
            assert answer.status_code == 404

    @rule(alias=known)
    def invoke(self, alias: str) -> None:
        answer = self.client.request("POST", path_of(alias) + "/invoke", json=ticket())
        if alias in self.loaded:
            assert answer.json()["model_version"] == self.versions[self.loaded[alias]]
        else:
            assert answer.status_code == 404

    @rule()
    def invocations(self) -> None:
        answer = self.client.request("POST", "/invocations", json=ticket())
        if len(self.loaded) == 1:
            (url,) = self.loaded.values()
            assert answer.json()["model_version"] == self.versions[url]
        else:
            assert answer.status_code == 404

    @rule(limit=st.integers(1, 3))
    def list(self, limit: int) -> None:
        found: dict[str, str] = {}
        token = ""
        while True:
            page = self.client.request("GET", "/models", params={"limit": limit, "next_page_token": token}).json()
            assert len(page["models"]) <= limit
            found |= {model["modelName"]: model["modelUrl"] for model in page["models"]}
            if "nextPageToken" not in page:
                break
            token = page["nextPageToken"]
        assert found == self.loaded

    @invariant()
    def nothing_else_is_in_memory(self) -> None:
        assert mapped() - {self.damaged} == set(self.loaded.values())

    def teardown(self) -> None:
        for alias in list(self.loaded):
            self.unload(alias)


def test_any_calls_in_any_order(
    container: ServingSettings,
    programs: Path,
    folders: Folders,
    urls: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    damaged = folders.copy(urls[0], "damaged")
    _flip(damaged, WEIGHTS)
    with Blocking(create_sagemaker_app(container, programs_folder=programs, access=None)) as client:
        Contract.client, Contract.urls, Contract.versions, Contract.damaged = (
            client,
            urls,
            folders.versions,
            str(damaged),
        )
        run_state_machine_as_test(
            Contract,
            settings=settings(
                max_examples=20,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
    gc.unfreeze()
