"""Envoy before replicas of this machine: whom of them it asks, and who is on the ring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from serving.listening import listen
from serving.proxy.envoy import Proxy
from serving.proxy.ring_members import write_ring
from serving.proxy.routes import Face
from serving.proxy.settings import Address, ProxySettings, Server
from serving.replicas.addresses import proxy_ports, ring_key
from serving.settings import ServingSettings

# A replica's two addresses, in the order in which it names them.
_FACES: tuple[Face, Face] = ("public", "operator")
_CONNECT_SECONDS = 0.5
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nothing listens by it


class Gateway:
    """Envoy and what it is told of replicas. Owned by one event loop.

    Args:
        settings: of the servers; the addresses are Envoy's.
        folder: for Envoy's configuration.
        access_log: where it writes a line for each request; None is nowhere.

    Raises:
        InvalidInput: an address cannot be listened on, or there is no Envoy.
    """

    def __init__(self, settings: ServingSettings, folder: Path, *, access_log: str | None = None) -> None:
        port, operator_port = proxy_ports(settings)
        listens = {
            "public": _free(settings.host, port, "--host", "--port"),
            "operator": _free(settings.operator_host, operator_port, "--operator-host", "--operator-port"),
        }
        folder.mkdir(exist_ok=True)
        given = ProxySettings(
            faces=(),
            admin=Address("127.0.0.1", 0),
            request_timeout_seconds=settings.request_timeout_ms / 1000,
            connect_timeout_seconds=_CONNECT_SECONDS,
            access_log=access_log,
        )
        self.proxy = Proxy(folder, {face: listens[face] for face in _FACES}, given)
        self.ring_file = folder / "ring"

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it is: public, operator's."""
        return tuple(self.proxy.url(face) for face in _FACES)

    def place(self, numbers: Iterable[int]) -> None:
        """Have these replicas on the ring, by which each knows its own tenants; some may not have started yet."""
        write_ring(self.ring_file, [ring_key(number) for number in sorted(numbers)])

    def show(self, replicas: Mapping[int, Sequence[str]]) -> None:
        """Have Envoy ask these replicas, once each is healthy, and no others.

        Args:
            replicas: their public and operator's URL, by number.
        """
        for place, face in enumerate(_FACES):
            servers = [
                Server(address=_address(urls[place]), key=ring_key(number)) for number, urls in sorted(replicas.items())
            ]
            self.proxy.tell(face, servers)

    async def follows(self, replicas: Iterable[Sequence[str]], *, seconds: float) -> bool:
        """Wait until Envoy asks these replicas and no others; whether that came in time."""
        urls = list(replicas)
        for place, face in enumerate(_FACES):
            ports = [_address(pair[place]).port for pair in urls]
            if not await self.proxy.settled(face, ports, seconds=seconds):
                return False
        return True


def _free(host: str, port: int, *options: str) -> Address:
    """An address that can be listened on, as a number: found out now, since Envoy's own words are no advice."""
    with listen(host, port, options=options) as listener:
        return Address(listener.getsockname()[0], port)


def _address(url: str) -> Address:
    """Where Envoy finds a replica that listens there."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return Address(_EVERYWHERE.get(host, host), parts.port or 0)
