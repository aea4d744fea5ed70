"""Stand-ins for servers behind a real Envoy: each answers with its name, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from serving.proxy.envoy import Proxy
from serving.proxy.routes import Face
from serving.proxy.settings import Address, ProxySettings, Server

LOOPBACK = Address("127.0.0.1", 0)
FACES: tuple[Face, ...] = ("public", "operator", "sagemaker")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


# A whole answer, or None to end the connection without one.
Answer = Callable[["StandIn", Asked], bytes | None]


def answer(status: int, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> bytes:
    """A whole HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def name_itself(server: StandIn, asked: Asked) -> bytes:
    return answer(200, json.dumps({"server": server.name}).encode())


@dataclass
class StandIn:
    """A server of a few lines; red while `ready` is false, and silent until `held` is set."""

    name: str
    ready: bool = True
    respond: Answer = name_itself
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    held: asyncio.Event | None = None
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    def endpoint(self) -> Server:
        return Server(address=Address("127.0.0.1", self.port), key=self.name)

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """As a process that is killed: its connections end as well."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)  # at once, so that `close` knows of it
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if path in {"/readyz", "/ping"}:
                    writer.write(answer(200 if self.ready else 503))
                    continue
                asked = Asked(method, path, headers, body)
                self.asked.append(asked)
                if self.held is not None:
                    await self.held.wait()
                said = self.respond(self, asked)
                if said is None:
                    break
                writer.write(said)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()


@dataclass
class World:
    """Three servers behind an Envoy with every face."""

    proxy: Proxy
    servers: list[StandIn]

    async def show(self, servers: Sequence[StandIn]) -> None:
        """Have Envoy ask these servers and no others."""
        for face in FACES:
            self.proxy.tell(face, [server.endpoint() for server in servers])
        for face in FACES:
            assert await self.proxy.settled(face, [server.port for server in servers])
        await self.come_round()

    async def come_round(self) -> None:
        """Have Envoy's workers do what its main thread has told them: each comes to that between two requests."""

        async def ask() -> None:
            async with httpx.AsyncClient(timeout=30) as client:
                for _ in range(2):
                    await client.get(self.proxy.url("public") + "/readyz")  # stand-ins keep no record of it

        # A connection is one worker's, and there is a worker for four cores.
        await asyncio.gather(*(ask() for _ in range(4 + (os.cpu_count() or 1))))

    def forget(self) -> None:
        """Servers that answer, and were asked nothing."""
        for server in self.servers:
            if server.held is not None:
                server.held.set()
            server.respond, server.ready, server.held = name_itself, True, None
            server.asked.clear()


@asynccontextmanager
async def world(*, servers: int = 3, **settings: float) -> AsyncIterator[World]:
    """Envoy before stand-ins `replica-0` and so on."""
    stand_ins = [StandIn(f"replica-{number}") for number in range(servers)]
    for server in stand_ins:
        await server.open()
    with tempfile.TemporaryDirectory() as folder:
        given = ProxySettings(faces=(), admin=LOOPBACK, **settings)  # type: ignore[arg-type]
        proxy = Proxy(Path(folder), dict.fromkeys(FACES, LOOPBACK), given)
        try:
            await proxy.start()
            made = World(proxy, stand_ins)
            await made.show(stand_ins)
            yield made
        finally:
            await proxy.stop()
            for server in stand_ins:
                await server.close()
