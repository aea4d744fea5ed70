"""Clients in the event loop's own thread, for tests in which the order of its turns matters."""

from __future__ import annotations

import asyncio
import socket

from tests.serving.helpers import PATIENCE_SECONDS


def listener() -> socket.socket:
    """Listens on loopback, on any port."""
    return socket.create_server(("127.0.0.1", 0))


def connect(address: tuple[str, int]) -> socket.socket:
    """A connection that the kernel makes by itself: the server need not have taken it."""
    made = socket.create_connection(address)
    made.setblocking(False)
    return made


async def receive(connection: socket.socket, until: bytes) -> bytes:
    """What arrives up to and with certain bytes, or up to the end if it comes first."""
    received = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while until not in received:
            piece = await asyncio.get_running_loop().sock_recv(connection, 65_536)
            if not piece:
                break
            received += piece
    return received
