"""A server in a thread that answers as the path of a request says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 30.0
SLOW_SECONDS = 0.05
STALL_SECONDS = 0.3
_PROBLEM_BODY = b'{"type":"urn:macrofleet:problem:overloaded","title":"Overloaded","status":503,"request_id":"abc"}'
_PROBLEM = (
    b"HTTP/1.1 503 X\r\nRetry-After: 1\r\ncontent-length: %d\r\ncontent-type: application/problem+json\r\n\r\n%b"
    % (len(_PROBLEM_BODY), _PROBLEM_BODY)
)


class Scripted(asyncio.Protocol):
    """A server that answers as the path says: a status, or one of the words below; the body comes back as it was."""

    seen: list[bytes]
    heads: list[bytes]
    connections: int
    stalled_until: float
    most_open: int
    transports: set[asyncio.Transport]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        server = type(self)
        server.connections += 1
        server.transports.add(transport)
        server.most_open = max(server.most_open, len(server.transports))
        self.transport = transport
        self.data = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self.transports.discard(self.transport)

    @classmethod
    async def hang_up(cls) -> None:
        await asyncio.sleep(0)  # what was accepted becomes a connection first
        while cls.transports:
            for transport in cls.transports:
                transport.abort()
            await asyncio.sleep(0)

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split()[0]):
            return
        self.data = b""
        path = head.split(b" ")[1].partition(b"?")[0].strip(b"/").decode()
        self.seen.append(body)
        self.heads.append(head + b"\r\n")
        self.answer(path, body)

    def answer(self, path: str, body: bytes) -> None:
        """What the path says; everybody's answers wait for the end of a stall."""
        server, loop = type(self), asyncio.get_running_loop()
        if path == "stall" and not server.stalled_until:
            server.stalled_until = loop.time() + STALL_SECONDS
        if loop.time() < server.stalled_until:
            loop.call_at(server.stalled_until, self.answer, path, body)
            return
        later = asyncio.get_running_loop().call_later
        usual = _answer(200, body)
        if path == "never":
            pass
        elif path == "slow":
            later(SLOW_SECONDS, self.transport.write, usual)
        elif path == "pieces":
            for place in range(len(usual)):
                later(place * 1e-4, self.transport.write, usual[place : place + 1])
        elif path == "hangup":
            self.transport.abort()
        elif path == "half":
            self.transport.write(usual[:-1])
            self.transport.close()
        elif path == "bye":
            self.transport.write(usual)
            self.transport.close()
        elif path == "both":
            self.transport.write(usual + usual)
        elif path == "chunked":
            text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x;x=y\r\n%b\r\n0\r\nX: y\r\n\r\n" % (
                len(body),
                body,
            )
            for place in range(len(text)):
                later(place * 1e-4, self.transport.write, text[place : place + 1])
        elif path == "endless":
            self.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnothing\r\n")
        elif path == "closing":
            self.transport.write(usual.replace(b"content-type", b"Connection: close\r\ncontent-type"))
        elif path == "problem":
            self.transport.write(_PROBLEM)
        elif path == "garbage":
            self.transport.write(b"SSH-2.0-OpenSSH\r\nContent-Length: 0\r\n\r\n")
        elif path == "shouted":
            self.transport.write(usual.replace(b"content-length: ", b"CONTENT-LENGTH:"))
        else:
            self.transport.write(_answer(200 if path == "stall" else int(path), body))


def _answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


@contextmanager
def scripted() -> Iterator[tuple[str, type[Scripted]]]:
    """A `Scripted` server in a thread of its own: its URL, and what it saw."""

    class Server(Scripted):
        seen: list[bytes] = []  # noqa: RUF012  # one class a server
        heads: list[bytes] = []  # noqa: RUF012
        transports: set[asyncio.Transport] = set()  # noqa: RUF012
        connections = most_open = 0
        stalled_until = 0.0

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        server = runner.run(loop.create_server(Server, "127.0.0.1", 0))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", Server
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(PATIENCE)
            server.close()
            runner.run(Server.hang_up())
