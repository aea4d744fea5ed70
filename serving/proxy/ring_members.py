"""Who is on Envoy's ring, as a replica can know it: from a list, from a file, or from DNS."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.errors import InvalidInput, NotReady

_MAX_BYTES = 1024 * 1024
_MAX_PODS = 1000


def write_ring(path: Path, keys: Sequence[str]) -> None:
    """Write the file that `ring_members` reads, whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text("".join(f"{key}\n" for key in keys))
    beside.replace(path)


def check_ring(source: str) -> str:
    """What names the members of a ring, as it is.

    Raises:
        InvalidInput: it names none.
    """
    kind, colon, rest = source.partition(":")
    if kind == "file" and colon:
        good = bool(rest)
    elif kind == "hosts" and colon:
        good = all(all(pair) for pair in _hosts(rest)) and bool(_hosts(rest))
    elif kind == "pods" and colon:
        good = _pods(rest) is not None
    elif kind == "dns" and colon:
        host, _, port = rest.rpartition(":")
        good = bool(host) and port.isascii() and port.isdecimal() and int(port) <= 65_535
    else:
        good = bool(_listed(source))
    if not good:
        raise InvalidInput(
            "the ring names no members",
            remedy="Write file:PATH, dns:NAME:PORT, hosts:KEY=HOST,…, pods:SET.SERVICE:MIN..MAX, or keys with commas between.",
        )
    return source


def ring_members(source: str) -> tuple[str, ...]:
    """The keys of the replicas on the ring. May block.

    Args:
        source: `file:PATH`, with a key on each line; `dns:NAME:PORT`, where every address of the name is a replica whose
            key is `ADDRESS:PORT`, as Envoy has it for endpoints without keys; `hosts:KEY=HOST,…`, of which those are members
            whose host has an address now; `pods:SET.SERVICE:MIN..MAX`, the pods of a StatefulSet behind its headless service,
            of which there are so many: SET-0, SET-1 and so on, which are their keys; or the keys themselves, with commas
            between.

    Raises:
        NotReady: the file or the name cannot be read, or whoever knows of names does not answer.
    """
    kind, _, rest = source.partition(":")
    if kind == "file":
        try:
            return _listed(Path(rest).read_bytes()[:_MAX_BYTES].decode().replace("\n", ","))
        except (OSError, UnicodeDecodeError) as problem:
            raise NotReady(f"the ring's file {rest} cannot be read", remedy="It is tried again.") from problem
    if kind == "hosts":
        return tuple(key for key, host in _hosts(rest) if _has_address(host))
    if kind == "pods":
        pods = _pods(rest)
        assert pods is not None  # `check_ring` has seen it
        return pods.there()
    if kind == "dns":
        host, _, port = rest.rpartition(":")
        try:
            found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError as problem:
            raise NotReady(f"the ring's name {host} cannot be looked up", remedy="It is tried again.") from problem
        return tuple(sorted({_place(str(entry[4][0]), port) for entry in found}))
    return _listed(source)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _hosts(text: str) -> list[tuple[str, str]]:
    """Key and host of each; a host that is alone is its own key."""
    pairs = (part.partition("=") for part in _listed(text))
    return [(key, host if equals else key) for key, equals, host in pairs]


@dataclass(frozen=True, slots=True)
class _Pods:
    """A StatefulSet's pods, by number from 0 on without a gap."""

    name: str
    service: str
    least: int
    most: int

    def there(self) -> tuple[str, ...]:
        """The keys of those that there shall be: the least number, and all below the last one that has an address.

        A pod that is being replaced has none for a while, and comes back to its tenants: nobody else is to take them.
        """
        count = self.most
        while count > self.least and not _has_address(f"{self.name}-{count - 1}.{self.service}"):
            count -= 1
        return tuple(f"{self.name}-{number}" for number in range(count))


def _pods(text: str) -> _Pods | None:
    """What `SET.SERVICE:MIN..MAX` says; None where it says nothing."""
    where, _, counts = text.rpartition(":")
    name, _, service = where.partition(".")
    least, dots, most = counts.partition("..")
    if not (name and service and dots and all(part.isascii() and part.isdecimal() for part in (least, most))):
        return None
    return _Pods(name, service, int(least), int(most)) if 1 <= int(least) <= int(most) <= _MAX_PODS else None


def _has_address(host: str) -> bool:
    """Raises NotReady where nobody says: that is not to have none."""
    try:
        return bool(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except socket.gaierror as problem:
        if problem.errno == socket.EAI_AGAIN:
            raise NotReady(f"it is not known whether {host} has an address", remedy="It is tried again.") from problem
        return False
    except OSError:
        return False


def _place(address: str, port: str) -> str:
    """As Envoy writes an address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
