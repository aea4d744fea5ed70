"""Addresses to listen on."""

from __future__ import annotations

import os
import socket

from registry.errors import InvalidInput

_BACKLOG = 2048


def listen(host: str, port: int, *, options: tuple[str, ...]) -> socket.socket:
    """A socket that listens on one address: names are looked up as IPv4.

    Args:
        host: a name or an address; empty is every address.
        port: 0 takes a free one.
        options: what a user changes to have another address.

    Raises:
        InvalidInput: it cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Apart from binding, which would hide why a name cannot be looked up. An empty host is every address.
        found = socket.getaddrinfo(host or None, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(found[0][4], family=family, backlog=_BACKLOG)
    except UnicodeError:
        reason = "it cannot be the name of a host"
    except socket.gaierror as problem:
        reason = problem.strerror or str(problem)
    except OSError as problem:
        # Its own text repeats the address.
        reason = os.strerror(problem.errno) if problem.errno else str(problem)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise InvalidInput(
        f"cannot listen on {place} ({reason})",
        remedy=f"Choose another {' or '.join(options)} (0 takes a free port), or stop what listens there.",
    )
