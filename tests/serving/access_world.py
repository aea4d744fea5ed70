"""Keys, servers that ask for them, and every route that those have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.routing import BaseRoute
from starlette.types import Message, Scope

from registry.keys.published import PublishedKey, PublishedKeys, key_digest, make_key
from registry.keys.published import Scope as AccessScope
from registry.layout import ACCESS_KEYS
from registry.store import ObjectStore

SOURCE = "0" * 32


@dataclass(frozen=True)
class Key:
    """A key and what is published of it."""

    key: str
    published: PublishedKey

    @property
    def header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def key_for(tenant: str | None, *scopes: AccessScope, expires: float | None = None) -> Key:
    key, prefix = make_key()
    ends = None if expires is None else int(time.time() + expires)
    return Key(
        key,
        PublishedKey(prefix=prefix, digest=key_digest(key.encode()), tenant=tenant, scopes=scopes, expires=ends),
    )


def publish(store: ObjectStore, keys: Iterable[Key], *, generation: int = 1) -> None:
    """Have a store hold these keys and no others."""
    published = tuple(key.published for key in keys)
    store.put(ACCESS_KEYS, PublishedKeys(source=SOURCE, generation=generation, keys=published).to_bytes())


def routes_of(app: FastAPI) -> Iterator[BaseRoute]:
    """The application's own table, with what was included in it."""
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            waiting.extend(included.routes)


@dataclass(frozen=True)
class Said:
    """An answer, without what differs between any two."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


async def call(
    app: FastAPI, method: str, path: str, *, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b""
) -> Said:
    """What an application answers, asked directly: a client's own work would take most of the time."""
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"x-request-id", b"id"), (b"content-type", b"application/json"), *headers],
    }
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    status = 0
    found: tuple[tuple[bytes, bytes], ...] = ()
    parts: list[bytes] = []

    async def receive() -> Message:
        if waiting:
            return waiting.pop()
        await asyncio.Event().wait()  # the caller stays
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal status, found
        if message["type"] == "http.response.start":
            status, found = message["status"], tuple(sorted(message["headers"]))
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    content = b"".join(parts)
    lengths = [value for name, value in found if name == b"content-length"]
    assert lengths == [b"%d" % len(content)]
    return Said(status, tuple(each for each in found if each[0] != b"content-length"), content)
