from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 30.0


class Scripted(asyncio.Protocol):
    """A server that answers as the path says: /200, /503, /never, /hangup, /pieces, /both (two answers in one go)."""

    seen: list[bytes]
    connections = 0
    gate: threading.Event | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        type(self).connections += 1
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: "))
        if not found or len(body) < length:
            return
        request, self.data = self.data, b""
        self.seen.append(request)
        path = request.split(b" ")[1].strip(b"/").decode()
        if path == "hangup":
            self.transport.abort()
        elif path == "chunked":
            self.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        elif path == "pieces":
            answer = _answer(200, body)
            for place in range(len(answer)):
                asyncio.get_running_loop().call_later(place * 1e-4, self.transport.write, answer[place : place + 1])
        elif path != "never":
            self.transport.write(_answer(int(path), body))


def _answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


@contextmanager
def scripted() -> Iterator[tuple[str, type[Scripted]]]:
    """A `Scripted` server in a thread of its own: its URL, and what it saw."""

    class Server(Scripted):
        seen: list[bytes] = []  # noqa: RUF012  # one class a server
        connections = 0

    loop = asyncio.new_event_loop()
    ready: list[int] = []
    started = threading.Event()

    async def serve() -> None:
        server = await loop.create_server(Server, "127.0.0.1", 0)
        ready.append(server.sockets[0].getsockname()[1])
        started.set()
        await server.serve_forever()

    def run() -> None:
        task = loop.create_task(serve())
        loop.call_soon(lambda: stops.append(lambda: loop.call_soon_threadsafe(task.cancel)))
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    stops: list[object] = []
    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(PATIENCE)
    try:
        yield f"http://127.0.0.1:{ready[0]}", Server
    finally:
        stops[0]()  # type: ignore[operator]
        thread.join(PATIENCE)
