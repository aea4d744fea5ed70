"""Listening: several ASGI applications in one event loop, and an end that loses no request.

uvicorn's own end closes the listening socket with whatever waits in its backlog, and every connection on which no request
is being worked on, although one may have arrived in the meantime; the callers see a reset connection and cannot know
whether they were heard. Here the end has steps:

1. notice: readiness turns red and every answer says `Connection: close`, while new connections and requests are still
   taken. Proxies and pools have that long to go elsewhere, and those who send all the time have all moved on after it;
2. no more connections: handshakes stop first, what waits in the backlog is taken, then the socket is closed, so a caller
   is either served or refused;
3. connections without a request have a while longer, then they are half closed: whoever sends at that very moment sees an
   orderly end before an answer, which is safe to try elsewhere, and no reset;
4. requests under way are waited for, until the time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import logging
import socket
import struct
import sys
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.accepting import Acceptor
from serving.faces.early import EarlyProtocol
from serving.faces.heads import BoundedHeads

_CLOSE = (b"connection", b"close")
# Idle connections are the caller's to close: a server that closes them first now and then meets a request on its way.
# Longer than the common proxies and pools keep theirs.
_KEEP_ALIVE_SECONDS = 75
# Between the last handshake's first packet and its last, on a slow network.
_HANDSHAKE_SECONDS = 0.05
# Long enough for what is on its way when a connection is half closed. Many callers close theirs only at its next use.
_LINGER_SECONDS = 1
_POLL_SECONDS = 0.01
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPlan:
    """How long the steps of an end take at most, in seconds.

    Attributes:
        notice: new connections are still taken.
        idle: connections without a request are kept for so long after that.
        total: everything, from the signal on.
    """

    notice: float = 1
    idle: float = 1
    total: float = 10


class Door(uvicorn.Server):
    """One application on one socket. The owner of the process calls the steps, which are public for the tests' sake.

    Args:
        app: what to serve.
        listener: bound and listening; closed by `stop_listening`.
        lifespan: whether the application's lifespan is run.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, *, lifespan: bool) -> None:
        self._listener = listener
        self._listener.setblocking(False)
        self._acceptor: Acceptor | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._protocol = EarlyProtocol if hasattr(app, "early_answer") else BoundedHeads
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=self._protocol,
            ws="none",
            interface="asgi3",
            lifespan="on" if lifespan else "off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # nothing asks for the caller's address
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        super().__init__(config)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def busy(self) -> bool:
        """Whether there is a connection, or a request that outlived its own."""
        return bool(self.server_state.connections or self.server_state.tasks)

    async def open(self) -> None:
        """Start the lifespan, and take connections from then on."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[])  # uvicorn's part of it but for listening
        self._acceptor = Acceptor(self._listener, self._make_connection)
        self._acceptor.start()
        self._ticking = asyncio.create_task(self.main_loop())  # renews the Date header

    def announce(self) -> None:
        """Ask every caller to leave after its next answer."""
        state, config = self.server_state, self.config
        state.default_headers = [*state.default_headers, _CLOSE]
        config.encoded_headers = [*config.encoded_headers, _CLOSE]  # of which the others are made once a second
        # A request that was known before has the former headers. Of requests that wait in a row, the last one is `cycle`.
        for connection in _connections(self):
            if connection.cycle is not None and not connection.cycle.response_complete:
                connection.cycle.keep_alive = False

    async def stop_listening(self) -> None:
        """Take the connections that were made, and make no more."""
        if _refuse_handshakes(self._listener):
            await asyncio.sleep(_HANDSHAKE_SECONDS)
        if self._acceptor is not None:
            self._acceptor.close(take_waiting=True)
            await self._acceptor.settled()

    def close_idle(self) -> None:
        """Half close the connections that have no request, not even the beginning of one."""
        for connection in _connections(self):
            if _is_idle(connection):
                _half_close(connection)

    async def end(self) -> None:
        """Cut what is left, and end the lifespan."""
        requests = set(self.server_state.tasks)
        if self.busy:
            counts = {"requests": len(requests), "connections": len(self.server_state.connections)}
            _LOG.error("the time to end is over: closing what is still open", extra=counts)
        for task in requests:
            task.cancel()
        if requests:
            await asyncio.wait(requests, timeout=1)
        self.leave()
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        await self.lifespan.shutdown()

    def leave(self) -> None:
        """Close every socket, whatever is under way. An open one would keep uvloop from closing."""
        if self._acceptor is not None:
            self._acceptor.close()
        self._listener.close()
        for connection in _connections(self):
            connection.transport.abort()

    def _make_connection(self) -> asyncio.Protocol:
        return self._protocol(self.config, self.server_state, self.lifespan.state)


async def serve_until(
    stop: asyncio.Event,
    doors: Sequence[Door],
    *,
    force: asyncio.Event,
    plan: DrainPlan,
    on_open: Callable[[], None],
    on_stop: Callable[[], None],
) -> None:
    """Open the doors in order, wait to be told to stop, and end in the steps above.

    Args:
        stop: begins the end.
        doors: closed together; their lifespans end in the opposite order, after the last request of all.
        force: leaves at once, whatever is under way.
        plan: how long the steps take at most.
        on_open: called when all doors are open, and `on_stop` when the end begins: turns readiness red.
    """
    try:
        for door in doors:
            await door.open()
        on_open()
        await stop.wait()
        on_stop()
        # At once, so that what is read from now on is answered with a farewell.
        for door in doors:
            door.announce()
        draining = asyncio.create_task(_drain(doors, plan))
        forcing = asyncio.create_task(force.wait())
        await asyncio.wait({draining, forcing}, return_when=asyncio.FIRST_COMPLETED)
        forcing.cancel()
        if force.is_set():
            draining.cancel()
        else:
            await draining
    finally:
        for door in doors:
            door.leave()


async def _drain(doors: Sequence[Door], plan: DrainPlan) -> None:
    _LOG.info("draining", extra={"connections": sum(len(door.server_state.connections) for door in doors)})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(plan.total):
            await asyncio.sleep(plan.notice)
            await asyncio.gather(*(door.stop_listening() for door in doors))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(plan.idle):
                    await _quiet(doors)
            for door in doors:
                door.close_idle()
            await _quiet(doors)
    for door in reversed(doors):
        await door.end()
    _LOG.info("drained")


async def _quiet(doors: Sequence[Door]) -> None:
    while any(door.busy for door in doors):
        await asyncio.sleep(_POLL_SECONDS)


def _connections(door: Door) -> list[HttpToolsProtocol]:
    # The type that `Door` configures; a copy, since closing takes them out.
    return list(cast("set[HttpToolsProtocol]", door.server_state.connections))


def _is_idle(connection: HttpToolsProtocol) -> bool:
    """Whether no request is being read or answered, or has arrived without having been read."""
    # uvicorn has a `scope` from a request's first line on, and a `cycle` from the end of its headers on.
    cycle = connection.cycle
    if cycle is None:
        within = connection.scope is not None
    else:
        within = not cycle.response_complete or bool(connection.pipeline) or connection.scope is not cycle.scope
    if within or connection.transport.is_closing():
        return False
    unread = fcntl.ioctl(connection.transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
    return not any(unread)


def _half_close(connection: HttpToolsProtocol) -> None:
    """Say that nothing will come any more, and go on reading, or what arrives would make the kernel send a reset."""
    transport = connection.transport
    transport.write_eof()
    transport.set_protocol(_Deaf(connection))
    connection.loop.call_later(_LINGER_SECONDS, transport.close)


class _Deaf(asyncio.Protocol):
    """A connection whose caller has been told that nobody answers any more."""

    def __init__(self, connection: HttpToolsProtocol) -> None:
        self._connection = connection

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)


def _refuse_handshakes(listener: socket.socket) -> bool:
    """Let the kernel ignore new connections on a socket, but not those that it has made already.

    Closing a listening socket resets what its backlog holds, and emptying the backlog before leaves a moment in which more
    can come. A caller that is ignored tries again a second later, and is refused then.

    Returns:
        Whether it works on this system (Linux).
    """
    if sys.platform != "linux":
        return False
    # Classic BPF over the TCP header: load the byte of flags, drop the packet if SYN is set, else keep it whole.
    steps = [(0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    so_attach_filter = 26
    try:
        listener.setsockopt(socket.SOL_SOCKET, so_attach_filter, struct.pack("HL", len(steps), ctypes.addressof(code)))
    except OSError:
        return False
    return True
