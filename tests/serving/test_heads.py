"""How long a request's head may be."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.faces.heads import MAX_HEAD_BYTES
from tests.serving.sockets import receive
from tests.serving.test_early import App, connected

pytestmark = pytest.mark.anyio
LINE = b"POST /usual HTTP/1.1\r\nHost: x\r\n"
LONG = b"a" * (2 * MAX_HEAD_BYTES)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that servers run in."""
    return "asyncio", {"use_uvloop": True}


async def usual(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers nothing early."""
    app = App()
    scope["seen"] = True
    await app(scope, receive, send)


@pytest.fixture(params=["early", "usual"])
def app(request: pytest.FixtureRequest) -> ASGIApp:
    return App() if request.param == "early" else usual


async def sent(client: socket.socket, *parts: bytes) -> bytes:
    """What comes to these bytes, each part read by itself, up to the connection's end."""
    loop = asyncio.get_running_loop()
    try:
        for part in parts:
            await loop.sock_sendall(client, part)
            await asyncio.sleep(0)
        return await receive(client, b"never")
    except ConnectionError:  # what it had not read when it ended
        return b""


@pytest.mark.parametrize(
    "head",
    [
        [b"GET /" + LONG],
        [LINE, b"X: ", *[LONG[:4096]] * 40],
        [LINE, *[b"X: %b\r\n" % LONG[:4096]] * 40],
        [LINE + b"X: %b\r\n" % LONG, b"\r\n"],
        [LINE + b"X: y\r\n" * 16_000 + b"Content-Length: 0\r\n\r\n"],
    ],
    ids=["target", "value", "headers", "in two", "in one"],
)
async def test_a_head_that_is_too_long_ends_its_connection(app: ASGIApp, head: list[bytes]) -> None:
    async with connected(app) as (client, _):
        answer = await sent(client, *head)
    assert answer[:13] in {b"HTTP/1.1 431 ", b""}
    assert answer.count(b"HTTP/1.1 ") == bool(answer)


@pytest.mark.parametrize("begun", [b"4;", b"4\r\nbody\r\n0\r\nX: "], ids=["chunk", "trailer"])
async def test_what_has_no_end_behind_a_head_ends_its_connection(app: ASGIApp, begun: bytes) -> None:
    async with connected(app) as (client, _):
        # More than one read: what comes with the head's end is not counted.
        answer = await sent(client, LINE + b"Transfer-Encoding: chunked\r\n\r\n" + begun, *[LONG] * 8)
    assert b" 200 " not in answer


async def test_a_head_may_be_as_long_as_it_says_and_a_body_longer(app: ASGIApp) -> None:
    rest = b"Content-Length: %d\r\n\r\n" % len(LONG)
    padding = b"X: %b\r\n" % LONG[: MAX_HEAD_BYTES - len(LINE + rest) - len(b"X: \r\n")]
    async with connected(app) as (client, _):
        for _ in range(3):  # each by itself: what one request had is not counted against the next
            await asyncio.get_running_loop().sock_sendall(client, LINE + padding + rest + LONG)
            assert (await receive(client, b"a 1")).startswith(b"HTTP/1.1 200 OK\r\n")
