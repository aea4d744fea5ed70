"""The end of a server: every request that reached it is answered, which uvicorn's own end does not see to.

The interleavings are made, not hoped for: a client in the event loop's own thread sends between two turns of the loop, so
what it sent waits in the kernel, unread, when the end begins.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from serving import doors
from serving.doors import Door, DrainPlan, _refuse_handshakes, serve_until
from tests.serving.helpers import PATIENCE_SECONDS
from tests.serving.sockets import connect, listener, receive

pytestmark = pytest.mark.anyio
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HELD = b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n"
# The worst case: nobody is given any time. An answer that needed some would be a matter of luck.
AT_ONCE = DrainPlan(notice=0, idle=0, total=PATIENCE_SECONDS)
FOR_EVER = DrainPlan(notice=PATIENCE_SECONDS, idle=PATIENCE_SECONDS, total=PATIENCE_SECONDS)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that servers run in: the order of its steps is what is tested."""
    return "asyncio", {"use_uvloop": True}


class App:
    """Answers at once, but holds `/held`; keeps a record."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.record: list[str] = []
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            self.record.append("lifespan ended")
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.requests += 1
        if scope["path"] == "/held":
            self.entered.set()
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.record.append("cut")
                raise
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        self.record.append("answered")


class Running:
    """A server in this event loop; `begin_end` starts its end, `ended` waits for it."""

    def __init__(self, address: tuple[str, int], begin_end: Callable[[], object], ended: Awaitable[None]) -> None:
        self.address = address
        self.begin_end = begin_end
        self.ended = ended


@asynccontextmanager
async def ours(*apps: App, plan: DrainPlan = AT_ONCE) -> AsyncIterator[Running]:
    opened, stop, force = asyncio.Event(), asyncio.Event(), asyncio.Event()
    made = [Door(app, listener(), lifespan=number == 0) for number, app in enumerate(apps)]
    addresses = [door._listener.getsockname() for door in made]

    def on_stop() -> None:
        apps[0].record.append("told to stop")

    serving = asyncio.create_task(serve_until(stop, made, force=force, plan=plan, on_open=opened.set, on_stop=on_stop))
    await opened.wait()
    running = Running(addresses[-1], stop.set, serving)
    try:
        yield running
    finally:
        stop.set()
        force.set()
        await serving


@asynccontextmanager
async def uvicorns(app: App) -> AsyncIterator[Running]:
    listening = listener()
    config = uvicorn.Config(app, http="httptools", ws="none", access_log=False, log_config=None)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listening])
    await server.on_tick(0)
    ended = asyncio.get_running_loop().create_future()

    async def end() -> None:
        await server.shutdown(sockets=[listening])
        ended.set_result(None)

    tasks: list[asyncio.Task[None]] = []
    try:
        yield Running(listening.getsockname(), lambda: tasks.append(asyncio.create_task(end())), ended)
    finally:
        await asyncio.gather(*tasks)


async def is_answered(connection: socket.socket, answers: int = 1) -> bool:
    """Whether all answers come before the connection ends; the last says that it will."""
    try:
        received = b""
        while received.count(b"HTTP/1.1 200 OK\r\n") < answers or not received.endswith(b"ok"):
            piece = await receive(connection, b"ok")
            if not piece:
                return False
            received += piece
    except ConnectionResetError:
        return False
    return received.count(b"connection: close\r\n") == 1 and await receive(connection, b"more") == b""


async def in_the_backlog(running: Running, app: App) -> bool:
    with connect(running.address) as connection:
        connection.send(REQUEST)
        running.begin_end()
        return await is_answered(connection)


async def in_an_idle_connection(running: Running, app: App) -> bool:
    with connect(running.address) as connection:
        connection.send(REQUEST)
        assert b"connection: close" not in await receive(connection, b"ok")
        # Both in the same turn: the loop looks for what has arrived only after it.
        asyncio.get_running_loop().call_soon(connection.send, REQUEST)
        running.begin_end()
        return await is_answered(connection)


async def half_a_request(running: Running, app: App) -> bool:
    with connect(running.address) as first, connect(running.address) as connection:
        connection.send(REQUEST[:10])
        first.send(REQUEST)
        await receive(first, b"ok")  # so what was sent before it is read as well
        first.close()
        running.begin_end()
        await asyncio.sleep(0)
        try:
            connection.send(REQUEST[10:])
        except ConnectionError:
            return False
        return await is_answered(connection)


async def behind_another(running: Running, app: App) -> bool:
    with connect(running.address) as connection:
        connection.send(HELD + REQUEST)
        await app.entered.wait()
        running.begin_end()
        await asyncio.sleep(0)
        app.gate.set()
        return await is_answered(connection, answers=2)


async def under_way(running: Running, app: App) -> bool:
    with connect(running.address) as connection:
        connection.send(HELD)
        await app.entered.wait()
        running.begin_end()
        await asyncio.sleep(0)
        app.gate.set()
        return await is_answered(connection)


@pytest.mark.parametrize(
    "requested",
    [in_the_backlog, in_an_idle_connection, half_a_request, behind_another, under_way],
    ids=lambda f: f.__name__,
)
async def test_a_request_that_was_sent_is_answered(requested: Callable[[Running, App], Awaitable[bool]]) -> None:
    app = App()
    async with ours(app) as running:
        assert await requested(running, app)
        await running.ended
    assert app.record[-1] == "lifespan ended"


@pytest.mark.parametrize("requested", [in_the_backlog, in_an_idle_connection, half_a_request], ids=lambda f: f.__name__)
async def test_uvicorn_alone_loses_requests(requested: Callable[[Running, App], Awaitable[bool]]) -> None:
    """Why there is `serving.doors`. Once this fails, there need not be."""
    app = App()
    async with uvicorns(app) as running:
        assert not await requested(running, app)
        await running.ended


async def test_during_the_notice_everybody_is_served_once_more() -> None:
    app = App()
    async with ours(app, plan=FOR_EVER) as running:
        with connect(running.address) as before:
            before.send(REQUEST)
            await receive(before, b"ok")
            running.begin_end()
            await asyncio.sleep(0)
            before.send(REQUEST)
            assert await is_answered(before)
        with connect(running.address) as after:
            after.send(REQUEST)
            assert await is_answered(after)
    assert app.record == ["answered", "told to stop", "answered", "answered"]


async def test_who_sends_when_an_idle_connection_is_closed_sees_an_orderly_end() -> None:
    app = App()
    async with ours(app) as running:
        with connect(running.address) as connection:
            connection.send(REQUEST)
            await receive(connection, b"ok")
            running.begin_end()
            assert await receive(connection, b"ok") == b""
            connection.send(REQUEST)  # over loopback a closed connection answers with a reset before `send` returns
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            assert await receive(connection, b"ok") == b""
        await running.ended
    assert app.requests == 1
    assert app.record == ["answered", "told to stop", "lifespan ended"]


async def test_the_last_request_of_all_doors_ends_before_the_lifespan_does() -> None:
    public, operator = App(), App()
    operator.record = public.record
    async with ours(public, operator) as running:  # its address is the last one's
        with connect(running.address) as connection:
            connection.send(HELD)
            await operator.entered.wait()
            running.begin_end()
            await asyncio.sleep(0)
            operator.gate.set()
            assert await is_answered(connection)
        await running.ended
    assert public.record == ["told to stop", "answered", "lifespan ended"]


async def test_a_request_that_does_not_end_is_cut_when_the_time_is_over(caplog: pytest.LogCaptureFixture) -> None:
    public, operator = App(), App()
    operator.record = public.record
    async with ours(public, operator, plan=DrainPlan(notice=0, idle=0, total=0)) as running:
        with connect(running.address) as connection:
            connection.send(HELD)
            await operator.entered.wait()
            with caplog.at_level(logging.ERROR):
                running.begin_end()
                await running.ended
    assert public.record == ["told to stop", "cut", "lifespan ended"]
    assert [record.getMessage() for record in caplog.records if record.name == "serving.doors"] == [
        "the time to end is over: closing what is still open"
    ]


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Door, tuple[str, int]]]:
    """A door whose end is taken step by step."""
    listening = listener()
    door = Door(App(), listening, lifespan=False)
    await door.open()
    try:
        yield door, listening.getsockname()
    finally:
        door.leave()
        await door.end()


@pytest.mark.parametrize("filtered", [True, False])
async def test_the_backlog_is_taken_in_the_step_that_closes_it(filtered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not filtered:
        monkeypatch.setattr(doors, "_refuse_handshakes", lambda _: False)
    async with opened() as (door, address):
        with connect(address) as connection:
            connection.send(REQUEST)
            door.announce()
            await door.stop_listening()
            assert await is_answered(connection)


async def test_nobody_can_connect_while_the_backlog_is_emptied() -> None:
    async with opened() as (door, address):
        stopping = asyncio.create_task(door.stop_listening())
        await asyncio.sleep(0)
        with socket.socket() as late:
            late.setblocking(False)
            late.connect_ex(address)
            assert is_connecting(late)
        await stopping


@pytest.mark.parametrize("requests_before", [0, 1])
@pytest.mark.parametrize("sent_before", [1, 10, len(REQUEST)])
async def test_what_has_begun_to_arrive_is_not_idle(requests_before: int, sent_before: int) -> None:
    async with opened() as (door, address):
        with connect(address) as connection, connect(address) as other:
            for _ in range(requests_before):
                connection.send(REQUEST)
                await receive(connection, b"ok")
            connection.send(REQUEST[:sent_before])
            if sent_before < len(REQUEST):  # it is read; what is whole waits in the kernel
                other.send(REQUEST)
                await receive(other, b"ok")
            door.announce()
            door.close_idle()
            connection.send(REQUEST[sent_before:])
            assert await is_answered(connection)


async def test_force_does_not_wait() -> None:
    app = App()
    async with ours(app, plan=FOR_EVER) as running:
        with connect(running.address) as connection:
            connection.send(HELD)
            await app.entered.wait()
    assert app.record == ["told to stop"]


async def test_a_start_that_fails_leaves_nothing_open() -> None:
    def fail() -> None:
        raise OSError("no space left")

    with listener() as listening:
        address = listening.getsockname()
        door, never = Door(App(), listening, lifespan=True), asyncio.Event()
        with pytest.raises(OSError, match="no space left"):
            await serve_until(never, [door], force=never, plan=AT_ONCE, on_open=fail, on_stop=lambda: None)
        assert listening.fileno() == -1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_refused_handshakes_leave_the_connections_that_were_made() -> None:
    with listener() as listening, socket.create_connection(listening.getsockname()) as made:
        assert _refuse_handshakes(listening)
        made.sendall(b"hello")
        accepted, _ = listening.accept()
        with accepted, socket.socket() as late:
            assert accepted.recv(5) == b"hello"
            late.setblocking(False)
            late.connect_ex(listening.getsockname())
            assert is_connecting(late)
            assert not is_connecting(made)


def is_connecting(connection: socket.socket) -> bool:
    """Whether its handshake goes on. Over loopback one that succeeds is over when `connect` returns."""
    syn_sent = b"\x02"
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == syn_sent
