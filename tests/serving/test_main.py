"""The server as a process of its own, spoken to over a socket."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

import macrofleet
import registry
from benchmarks.fleets import publish_tenants
from registry.errors import InvalidInput
from registry.model.program import publish_program
from registry.replicas import refresh_replicas
from registry.store.local import LocalStore
from serving.main import _sagemaker_port
from tests.serving.access_world import key_for, publish
from tests.serving.helpers import BuiltProgram, eventually, ticket, until_ready

pytestmark = pytest.mark.anyio
PROJECT = Path(registry.__file__).parent.parent
SERVE = [sys.executable, "-m", "macrofleet", "serve"]


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    ready_file: Path
    log: Path


@contextmanager
def started(folder: Path, **environment: str) -> Iterator[Server]:
    """A server of the store in `folder`, started as users do."""
    ready_file, log = folder / "url", folder / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*SERVE, "--port", "0", "--ready-file", str(ready_file)],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            env=surroundings(folder, **{"MACROFLEET_OPERATOR_PORT": "0", **environment}),
            stderr=stderr,
        )
    try:
        yield Server(process, ready_file, log)
    finally:
        process.kill()
        process.wait()


def surroundings(folder: Path, **more: str) -> dict[str, str]:
    own = {"MACROFLEET_STORE_URL": str(folder / "store"), "MACROFLEET_DISK_FOLDER": str(folder / "disk")}
    own |= {"MACROFLEET_ACCESS": "open", "MACROFLEET_SAGEMAKER_ACCESS": "platform"}
    return {name: value for name, value in os.environ.items() if not name.startswith("MACROFLEET_")} | own | more


async def urls_of(server: Server) -> tuple[str, str]:
    """Where it serves the public, and where its operator."""
    await eventually(lambda: server.ready_file.exists() or server.process.poll() is not None)
    assert server.process.poll() is None, server.log.read_text()
    public, operator = server.ready_file.read_text().splitlines()
    return public, operator


@dataclass
class Load:
    """Callers that never pause: each sends its next request as soon as it has the answer to the one before.

    Attributes:
        answered: requests with a whole answer of 200.
        lost: what became of every other request of which a byte was sent.
        refused: callers that could not connect any more, which is how each of them ends.
    """

    url: str
    answered: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)

    async def caller(self) -> None:
        place = urlsplit(self.url)
        body = json.dumps(ticket()).encode()
        head = f"POST /v1/tenants/acme/suggestions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        while True:
            try:
                reader, writer = await asyncio.open_connection(place.hostname, place.port)
            except ConnectionRefusedError:
                self.refused += 1
                return
            try:
                keeps = True
                while keeps:
                    writer.write(head + body)
                    answer = await reader.readuntil(b"\r\n\r\n")
                    _, _, rest = answer.partition(b"content-length: ")
                    await reader.readexactly(int(rest.partition(b"\r\n")[0]))
                    if answer.startswith(b"HTTP/1.1 200 "):
                        self.answered += 1
                    else:
                        self.lost.append(answer.decode())
                    keeps = b"connection: close\r\n" not in answer
            except (asyncio.IncompleteReadError, ConnectionError) as problem:
                self.lost.append(repr(problem))
            finally:
                writer.close()


@pytest.fixture
def server(tmp_path: Path, bag: BuiltProgram) -> Iterator[Server]:
    store = LocalStore(tmp_path / "store")
    publish_program(store, bag.folder)
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    # A machine under load shall not turn a slow answer into a lost one.
    with started(tmp_path, MACROFLEET_TRUSTED_PROGRAMS=bag.digest, MACROFLEET_REQUEST_TIMEOUT_MS="60000") as made:
        yield made


async def test_a_server_asks_for_keys(tmp_path: Path, bag: BuiltProgram) -> None:
    """As it is started, with no word about access; the refusal of a suggestion goes the early way."""
    store = LocalStore(tmp_path / "store")
    publish_program(store, bag.folder)
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    key, other, operator = key_for("acme", "suggest"), key_for("globex", "suggest"), key_for(None, "operator")
    publish(store, [key, other, operator])
    told = {"MACROFLEET_TRUSTED_PROGRAMS": bag.digest, "MACROFLEET_REQUEST_TIMEOUT_MS": "60000"}
    with started(tmp_path, MACROFLEET_ACCESS="keys", **told) as server:
        public, private = await urls_of(server)
        async with httpx.AsyncClient(timeout=60) as client:
            async with asyncio.timeout(60):
                while (await client.get(f"{public}/readyz")).status_code != 200:
                    await asyncio.sleep(0.01)
            url = f"{public}/v1/tenants/acme/suggestions"
            statuses = [
                (await client.post(url, json=ticket(), headers=headers)).status_code
                for headers in ({}, other.header, key.header, operator.header)
            ]
            assert statuses == [401, 404, 200, 200]
            for path in ("/metrics", "/admin/models", "/v2"):
                assert (await client.get(private + path)).status_code == 401
                assert (await client.get(private + path, headers=operator.header)).status_code == 200
            publish(store, [operator], generation=2)
            (told_to_read,) = refresh_replicas([private], what="access", key=operator.key)
            assert told_to_read.generation == 2
            assert (await client.post(url, json=ticket(), headers=key.header)).status_code == 401
            assert refresh_replicas([private], what="access")[0].problem is not None
        log = server.log.read_text()
        assert not any(each.key in log for each in (key, other, operator))


def raw(url: str, request: bytes) -> bytes:
    """What the server says to bytes that no client library would send."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(65_536)


async def test_a_server_from_start_to_end(server: Server) -> None:
    url, operator = await urls_of(server)
    assert url.startswith("http://127.0.0.1:")
    assert operator.startswith("http://127.0.0.1:")
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        await until_ready(client)
        answers = await asyncio.gather(*(client.post("/v1/tenants/acme/suggestions", json=ticket()) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1

        async def million() -> Iterator[bytes]:  # type: ignore[misc]
            for _ in range(1000):
                yield b" " * 1000

        for content in (b" " * 1_000_000, million()):
            answer = await client.post("/v1/tenants/acme/suggestions", content=content)
            assert answer.status_code == 413
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/metrics")).status_code == 404
        assert (await client.get(f"{operator}/metrics")).status_code == 200
        assert (await client.get(f"{operator}/readyz")).status_code == 200
        # The operator may ask what drove an answer.
        answer = await client.post(f"{operator}/v1/tenants/acme/suggestions", json=ticket(explain=True))
        assert answer.status_code == 200
        assert all("explanation" in macro for macro in answer.json()["macros"])

    for name in ("..%2f..%2fetc", "%2e%2e", "acme/../acme", "acme%2F..%2Facme", "ACME"):
        body = json.dumps(ticket()).encode()
        head = f"POST /v1/tenants/{name}/suggestions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        assert raw(url, head.encode() + body).startswith(b"HTTP/1.1 404 "), name

    load = Load(url)
    async with asyncio.timeout(60), asyncio.TaskGroup() as callers:
        for _ in range(8):
            callers.create_task(load.caller())
        await eventually(lambda: load.answered > 100)
        # Begun before the end, asked within it: a connection that has begun a request is kept open.
        reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n")
        await writer.drain()
        server.process.send_signal(signal.SIGTERM)
        await eventually(lambda: not server.ready_file.exists())
        writer.write(b"\r\n")
        red = await reader.read()
        assert red.startswith(b"HTTP/1.1 503 ")
        assert b'"draining":true' in red
        writer.close()
    assert load.lost == []
    assert load.refused == 8

    assert server.process.wait(30) == 0
    assert not server.ready_file.exists()
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line["message"] == "serving"]
    assert (line["url"], line["operator_url"]) == (url, operator)
    assert not [line for line in lines if line["level"] == "error"]
    assert "parcel" not in server.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_is_told_to_stop_has_not_failed(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as server:
        await urls_of(server)
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        assert not server.ready_file.exists()
        assert "Traceback" not in server.log.read_text()


async def test_an_interrupt_that_comes_twice_does_not_wait_for_requests_under_way(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        place = urlsplit((await urls_of(server))[0])
        with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")  # so the request is under way, and stays so
            server.process.send_signal(signal.SIGINT)
            await eventually(lambda: not server.ready_file.exists())
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(30) == 130
        assert "timeout graceful shutdown exceeded" not in server.log.read_text()


def refusal(folder: Path, *options: str, **environment: str) -> str:
    """The one sentence of a server that does not start, as a process."""
    ended = subprocess.run(
        [*SERVE, *options],
        check=False,
        cwd=PROJECT,
        env=surroundings(folder, **environment),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    return line


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """The same of options in this process, which has imported what takes a second."""
    for name in [name for name in os.environ if name.startswith("MACROFLEET_")]:
        monkeypatch.delenv(name)
    for name, value in surroundings(tmp_path).items():
        monkeypatch.setenv(name, value)
    for change in ("configure_logs", "end_with_supervisor"):  # of the whole process
        monkeypatch.setattr(f"serving.main.{change}", lambda: None)

    def line(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["macrofleet", "serve", *options])
        with pytest.raises(SystemExit) as ended:
            macrofleet.main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (1, "")
        (said,) = err.splitlines()
        return said

    before = signal.getsignal(signal.SIGTERM)
    yield line
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("option", ["port", "operator-port"])
def test_a_port_that_is_taken(tmp_path: Path, option: str) -> None:
    variable = f"MACROFLEET_{option}".replace("-", "_").upper()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal(tmp_path, **{"MACROFLEET_PORT": "0", variable: str(port)})
    host = option.replace("port", "host")
    assert line == (
        f"macrofleet: cannot listen on 127.0.0.1:{port} (Address already in use). "
        f"Choose another --{host} or --{option} (0 takes a free port), or stop what listens there."
    )


# The first is reserved for never being found (RFC 6761), the last for documentation: no machine has that address.
@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("no-such-host.invalid", "no-such-host.invalid"),
        ("x" * 70, "x" * 70),
        ("2001:db8::1", "[2001:db8::1]"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_a_host_that_is_not_this_machine(refused: Callable[..., str], host: str, place: str) -> None:
    line = refused("--insecure", "--port", "0", "--host", host)
    assert line.startswith(f"macrofleet: cannot listen on {place}:0 (")
    assert "(None)" not in line
    assert "Choose another --host" in line


@pytest.mark.parametrize(
    ("path", "problem"),
    [("missing/url", "there is no folder "), ("file/url", "there is no folder "), ("", "it is a folder")],
)
def test_a_ready_file_that_cannot_be_written(
    tmp_path: Path, refused: Callable[..., str], path: str, problem: str
) -> None:
    (tmp_path / "file").touch()
    line = refused("--port", "0", "--ready-file", str(tmp_path / path))
    assert line.startswith(f"macrofleet: the ready file {tmp_path / path} cannot be written: {problem}")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(("given", "port"), [({}, 8080), ({"SAGEMAKER_BIND_TO_PORT": "9000"}, 9000)])
def test_the_port_that_sagemaker_asks_for(given: dict[str, str], port: int) -> None:
    assert _sagemaker_port(given) == port


@pytest.mark.parametrize("given", ["http", "-1", "65536", "٣"])
def test_a_port_that_sagemaker_cannot_mean(given: str) -> None:
    with pytest.raises(InvalidInput, match="SAGEMAKER_BIND_TO_PORT"):
        _sagemaker_port({"SAGEMAKER_BIND_TO_PORT": given})


SAGEMAKER = """
import sys
from pathlib import Path
from registry.settings import StoreSettings, read_settings
from serving.main import run_sagemaker
from serving.settings import ServingSettings
run_sagemaker(read_settings(ServingSettings), StoreSettings(), Path(sys.argv[1]), ready_file=Path(sys.argv[2]))
"""


async def test_a_container_for_sagemaker_from_start_to_end(tmp_path: Path, bag: BuiltProgram) -> None:
    shutil.copytree(bag.folder, tmp_path / "programs" / bag.digest)
    ready_file, log = tmp_path / "url", tmp_path / "log"
    environment = surroundings(tmp_path, MACROFLEET_TRUSTED_PROGRAMS=bag.digest, SAGEMAKER_BIND_TO_PORT="0")
    command = [sys.executable, "-c", SAGEMAKER, str(tmp_path / "programs"), str(ready_file)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stderr=stderr)
    try:
        await eventually(lambda: ready_file.exists() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        (url,) = ready_file.read_text().splitlines()
        assert url.startswith("http://0.0.0.0:")
        async with httpx.AsyncClient(base_url=url.replace("0.0.0.0", "127.0.0.1"), timeout=60) as client:
            async with asyncio.timeout(60):
                while (await client.get("/ping")).status_code != 200:
                    await asyncio.sleep(0.01)
            assert (await client.get("/models")).json() == {"models": []}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not ready_file.exists()
    finally:
        process.kill()
        process.wait()
