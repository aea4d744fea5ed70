"""What the tests of the server share beside fixtures."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Scope

from registry.catalogue import Macro, make_catalogue
from registry.errors import BundleCorrupt
from registry.layout import LABELS
from registry.model.bundle import Labels
from registry.model.program import ProgramSpec
from registry.model.sagemaker_export import CATALOGUE
from registry.store import ObjectStore
from serving.app import create_app
from serving.settings import ServingSettings

PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class BuiltProgram:
    """A program as `training` exports it."""

    folder: Path
    digest: str
    spec: ProgramSpec


def ticket(text: str = "My parcel has not arrived, where is it?", **fields: Any) -> dict[str, Any]:
    """The body of a request for suggestions."""
    return {"ticket": {"id": "4711", "subject": text}, **fields}


def add_catalogue(folder: Path) -> Path:
    """Have a bundle's folder be what an export for SageMaker unpacks to, with all of its macros for everybody."""
    labels = Labels.parse((folder / LABELS).read_bytes(), what=LABELS, error=BundleCorrupt)
    macros = make_catalogue(Macro(id=label.id, title=label.title) for label in labels.macros)
    (folder / CATALOGUE).write_bytes(macros.to_bytes())
    return folder


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that is running, perhaps not ready yet."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


@asynccontextmanager
async def ready(settings: ServingSettings, store: ObjectStore) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that is ready."""
    async with serving(create_app(settings, store)) as client:
        await until_ready(client)
        yield client


async def until_ready(client: httpx.AsyncClient, path: str = "/readyz") -> None:
    async def answer() -> bool:
        return (await client.get(path)).status_code == 200

    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await answer():
            await asyncio.sleep(0.01)


class Caller:
    """The other end of one POST, which an application is called with directly: its body comes at once, then nothing.

    Attributes:
        scope: of the request.
    """

    def __init__(self, path: str, body: bytes) -> None:
        self.scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        self._body: list[bytes] = [body]
        self._gone = asyncio.Event()

    def hang_up(self) -> None:
        self._gone.set()

    async def receive(self) -> Message:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}


async def spin(turns: int = 20) -> None:
    """Let every task run until it waits for something that the test holds."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for work in a thread or another process; what takes seconds is looked at less often, since looking costs it."""
    pause = 0.001
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(pause)
            pause = min(1.2 * pause, 0.02)


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """The address of a server of `app` in a thread of its own."""
    config = uvicorn.Config(app, loop="uvloop", http="httptools", ws="none", lifespan="on", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE_SECONDS)
