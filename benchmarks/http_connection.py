"""A client's connection, no cleverer than a load generator needs: an answer's status, length and body.

Plain and TLS; bodies with a length, or in chunks. An answer that ends with its connection counts as broken.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)


class Owner(Protocol):
    """Who is told what comes."""

    def answered(self, connection: Connection, status: int, data: bytes, body_at: int) -> None:
        """A whole answer; its body begins at `body_at`."""

    def lost(self, connection: Connection) -> None:
        """The connection is closed, by whomever."""


class Connection(asyncio.Protocol):
    """One kept-alive connection; `index` is the request it is busy with."""

    __slots__ = ("_driver", "_part", "closed", "idle_since", "index", "target", "transport")
    transport: asyncio.Transport

    def __init__(self, driver: Owner, target: int = 0) -> None:
        self._driver = driver
        self._part = b""
        self.target = target
        self.index = -1
        self.idle_since = 0.0
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream's is a Transport

    def data_received(self, data: bytes) -> None:
        if self._part:
            data = self._part + data
            self._part = b""
        end = data.find(b"\r\n\r\n")
        if end > 0:
            place = data.find(b"\r\ncontent-length: ", 0, end)
            try:
                status = int(data[9:12])
                if place > 0:
                    size = int(data[place + 18 : data.index(b"\r", place + 18)])
                elif _CHUNKED.search(data, 0, end + 2):
                    data, size = _unchunked(data, end + 4)
                else:
                    size = int(_length(data, end))
            except _Unfinished:
                self._part = data
                return
            except ValueError:
                self.transport.abort()
                return
            missing = end + 4 + size - len(data)
            if not missing:
                self._driver.answered(self, status, data, end + 4)
                return
            if missing < 0:
                self.transport.abort()
                return
        self._part = data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why does not matter
        self.closed = True
        self._driver.lost(self)


def _length(data: bytes, end: int) -> bytes:
    found = _LENGTH.search(data, 0, end + 2)
    return found[1] if found else b""


class _Unfinished(Exception):
    """The last chunk has not come yet."""


def _unchunked(data: bytes, start: int) -> tuple[bytes, int]:
    """An answer in chunks (RFC 9112, 7.1) as if it had come in one piece, and its body's length.

    Raises:
        _Unfinished: more must come first.
        ValueError: these are no chunks.
    """
    body = b""
    place = start
    while True:
        line_end = data.find(b"\r\n", place)
        if line_end < 0:
            raise _Unfinished
        size = int(data[place:line_end].partition(b";")[0], 16)
        if not size:
            trailer_end = data.find(b"\r\n\r\n", line_end)
            if trailer_end < 0:
                raise _Unfinished
            return data[:start] + body + data[trailer_end + 4 :], len(body)
        place = line_end + 2 + size + 2
        if len(data) < place:
            raise _Unfinished
        body += data[line_end + 2 : line_end + 2 + size]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection goes."""

    host: str
    port: int
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str) -> Target:
        parts = urlsplit(url)
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), tls)
