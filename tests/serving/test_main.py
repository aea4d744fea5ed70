"""The server as a process of its own, spoken to over a socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

import registry
from benchmarks.fleets import publish_tenants
from registry.program import publish_program
from registry.store.local import LocalStore
from tests.serving.helpers import BuiltProgram, eventually, ticket, until_ready

pytestmark = pytest.mark.anyio
PROJECT = Path(registry.__file__).parent.parent
RUN = """
import sys
from pathlib import Path
from registry.settings import StoreSettings
from serving.main import run
from serving.settings import ServingSettings

run(ServingSettings(), StoreSettings(), ready_file=Path(sys.argv[1]))
"""


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    ready_file: Path
    log: Path


@pytest.fixture
def server(tmp_path: Path, bag: BuiltProgram) -> Iterator[Server]:
    store = LocalStore(tmp_path / "store")
    publish_program(store, bag.folder)
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MACROFLEET_")} | {
        "MACROFLEET_STORE_URL": str(tmp_path / "store"),
        "MACROFLEET_DISK_FOLDER": str(tmp_path / "disk"),
        "MACROFLEET_TRUSTED_PROGRAMS": bag.digest,
        "MACROFLEET_PORT": "0",
    }
    ready_file, log = tmp_path / "url", tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(ready_file)], cwd=PROJECT, env=environment, stderr=stderr
        )
    yield Server(process, ready_file, log)
    process.kill()
    process.wait()


def raw(url: str, request: bytes) -> bytes:
    """What the server says to bytes that no client library would send."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(65_536)


async def test_a_server_from_start_to_end(server: Server) -> None:
    await eventually(lambda: server.ready_file.exists() or server.process.poll() is not None)
    assert server.process.poll() is None, server.log.read_text()
    url = server.ready_file.read_text()
    assert url.startswith("http://127.0.0.1:")
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

    for name in ("..%2f..%2fetc", "%2e%2e", "acme/../acme", "acme%2F..%2Facme", "ACME"):
        body = json.dumps(ticket()).encode()
        head = f"POST /v1/tenants/{name}/suggestions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        assert raw(url, head.encode() + body).startswith(b"HTTP/1.1 404 "), name

    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) in (0, -signal.SIGTERM)
    assert not server.ready_file.exists()
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert [line["url"] for line in lines if line["message"] == "serving"] == [url]
    assert not [line for line in lines if line["level"] == "error"]
    assert "parcel" not in server.log.read_text()
