"""Taking connections: all that wait, a bounded number in each turn of the event loop."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

from serving import accepting
from serving.accepting import Acceptor
from tests.serving.sockets import connect, listener, receive

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that servers run in: the order of its steps is what is tested."""
    return "asyncio", {"use_uvloop": True}


class Connections:
    """Those that were taken; each is greeted, and asked for in `turns`."""

    def __init__(self) -> None:
        self.made: list[asyncio.BaseTransport] = []

    def protocol(self) -> asyncio.Protocol:
        made = self.made

        class Greeting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.append(transport)
                transport.write(b"hello")  # type: ignore[attr-defined]  # a stream's can

        return Greeting()

    async def by_turn(self, count: int) -> list[int]:
        """How many there are after each turn of the loop, until there are so many."""
        counts: list[int] = []
        async with asyncio.timeout(60):
            while len(self.made) < count:
                await asyncio.sleep(0)
                counts.append(len(self.made))
        return counts


@asynccontextmanager
async def accepting_on(listening: socket.socket) -> AsyncIterator[tuple[Acceptor, Connections]]:
    listening.setblocking(False)
    connections = Connections()
    acceptor = Acceptor(listening, connections.protocol)
    try:
        yield acceptor, connections
    finally:
        acceptor.close()
        await acceptor.settled()
        for transport in connections.made:
            transport.close()


async def test_whoever_waits_is_taken_at_once_however_long_a_turn_takes() -> None:
    with ExitStack() as stack, listener() as listening:
        for _ in range(20):
            stack.enter_context(connect(listening.getsockname()))
        async with accepting_on(listening) as (acceptor, connections):
            acceptor.start()
            turns = await connections.by_turn(20)
    # The loop of itself takes one a turn.
    assert len(turns) < 10


async def test_a_turn_takes_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_AT_ONCE", 4)
    with ExitStack() as stack, listener() as listening:
        for _ in range(20):
            stack.enter_context(connect(listening.getsockname()))
        async with accepting_on(listening) as (acceptor, connections):
            acceptor.start()
            turns = await connections.by_turn(20)
    steps = [after - before for before, after in zip([0, *turns], turns, strict=False)]
    assert max(steps) == 4


async def test_a_machine_without_descriptors_is_asked_again_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Exhausted(socket.socket):
        refusals = 2

        def accept(self) -> tuple[socket.socket, Any]:
            if self.refusals:
                self.refusals -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    monkeypatch.setattr(accepting, "_PAUSE_SECONDS", 0)
    with Exhausted() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with connect(listening.getsockname()) as client, caplog.at_level(logging.ERROR):
            async with accepting_on(listening) as (acceptor, _):
                acceptor.start()
                assert await receive(client, b"hello") == b"hello"
    assert [record.getMessage() for record in caplog.records] == ["no connection can be taken for now"] * 2


async def test_a_failure_of_one_connection_is_that_ones(caplog: pytest.LogCaptureFixture) -> None:
    class Flaky(socket.socket):
        failures = 3

        def accept(self) -> tuple[socket.socket, Any]:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EHOSTUNREACH, "No route to host")
            return super().accept()

    with Flaky() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with connect(listening.getsockname()) as client:
            async with accepting_on(listening) as (acceptor, _):
                acceptor.start()
                assert await receive(client, b"hello") == b"hello"
    assert not caplog.records


async def test_one_that_is_closed_while_it_pauses_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            raise OSError(errno.EMFILE, "Too many open files")

    loop = asyncio.get_running_loop()
    with Exhausted() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with connect(listening.getsockname()):
            async with accepting_on(listening) as (acceptor, connections):
                acceptor._take(1)
                assert acceptor._again is not None
                pause = acceptor._again
                acceptor.close()
                assert pause.cancelled()
                acceptor.close()
                assert listening.fileno() == -1
                assert not connections.made
    assert loop.is_running()


async def test_a_caller_who_left_does_not_stop_the_next() -> None:
    with listener() as listening:
        async with accepting_on(listening) as (acceptor, _):
            with connect(listening.getsockname()) as gone:
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves with a reset
            with connect(listening.getsockname()) as client:
                acceptor.start()
                assert await receive(client, b"hello") == b"hello"


async def test_the_end_takes_all_that_wait() -> None:
    with ExitStack() as stack, listener() as listening:
        clients = [stack.enter_context(connect(listening.getsockname())) for _ in range(40)]
        async with accepting_on(listening) as (acceptor, _):
            acceptor.close(take_waiting=True)
            await acceptor.settled()
            for client in clients:
                assert await receive(client, b"hello") == b"hello"
