"""Ports for servers that cannot be told to choose one themselves."""

from __future__ import annotations

import random
import socket

# Below those that the kernel gives to whoever asks for any, and to outgoing connections: other tests make many of these, and
# one that was free a moment ago may be taken.
_FIRST, _LAST = 12_000, 32_000


def free_ports(count: int, *, above: int = 0) -> list[int]:
    """Ports of loopback that nobody listens on, and nobody so far above them."""
    chance = random.SystemRandom()  # the common one may be seeded alike in processes that test at once
    found: list[int] = []
    while len(found) < count:
        port = chance.randrange(_FIRST, _LAST - above)
        if port not in found and _is_free(port) and _is_free(port + above):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
