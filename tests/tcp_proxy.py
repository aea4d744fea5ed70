"""A TCP proxy on an address that stays, for servers that come and go, and for answers that get lost on the way."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

_CHUNK = 65_536


class TcpProxy:
    """Passes connections on to a server on this machine, as a context.

    Args:
        host: the address that it listens on.

    Attributes:
        port: of the server; may change, and 0 refuses.
        lose_answer: asked with each piece of a request: whether the connection ends instead of its answer.
        cut_after: how many bytes of its first answer's body pass before the next connection ends, one number a connection.
        requests: the first lines of the requests, in order, as far as they are HTTP.
    """

    def __init__(self, port: int = 0, *, host: str = "127.0.0.1") -> None:
        self.port = port
        self.lose_answer: Callable[[bytes], bool] = lambda request: False
        self.cut_after: list[int] = []
        self.requests: list[str] = []
        self._listener = socket.create_server((host, 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """`http://address:port` of the proxy itself."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{host}:{port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone would not wake the thread that waits in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join()

    def drop(self) -> None:
        """End every connection that is open."""
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.ExitStack() as stack:
            try:
                server = stack.enter_context(socket.create_connection(("127.0.0.1", self.port)))
            except OSError:
                return
            with self._lock:
                self._open |= {client, server}
                limit = self.cut_after.pop(0) if self.cut_after else None
            lost = threading.Event()
            answers = threading.Thread(target=self._answers, args=(server, client, lost, limit))
            answers.start()
            self._ask(client, server, lost)
            _end(client, server)
            answers.join()
            with self._lock:
                self._open -= {client, server}

    def _ask(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK):
                if data.split(b" ", 1)[0] in {b"GET", b"PUT", b"POST", b"PATCH", b"HEAD", b"DELETE"}:
                    self.requests.append(data.split(b"\r\n", 1)[0].decode())
                if self.lose_answer(data):
                    lost.set()
                server.sendall(data)

    def _answers(self, server: socket.socket, client: socket.socket, lost: threading.Event, limit: int | None) -> None:
        left = limit
        with contextlib.suppress(OSError):
            while data := server.recv(_CHUNK):
                if lost.is_set():
                    break
                if left is None:
                    client.sendall(data)
                    continue
                if left == limit and b"HTTP/" in data[:5]:
                    while b"\r\n\r\n" not in data:
                        data += server.recv(_CHUNK)
                    head, mark, data = data.partition(b"\r\n\r\n")
                    client.sendall(head + mark)
                client.sendall(data[:left])
                left -= len(data[:left])
                if not left:
                    break
        _end(client, server)


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
