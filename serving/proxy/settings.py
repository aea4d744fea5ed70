"""What an Envoy before servers is told: where it listens, whom it asks, and how patient it is."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.errors import InvalidInput
from serving.proxy.ring import PLACES
from serving.proxy.routes import Face, Json

# A replica may have so many per cent of the mean of requests under way; what is above goes to another one.
BALANCE_PERCENT: Final = 150
TYPE: Final = "type.googleapis.com/envoy."


@dataclass(frozen=True, slots=True)
class Address:
    """Where something listens. An IPv6 address stands without brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """`host:port`, or `[host]:port`. Raises InvalidInput."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
            raise InvalidInput(f"{text[:80]!r} is no address", remedy="Write host:port.")
        return cls(host, int(port))


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server behind the proxy.

    Attributes:
        address: of one face; a name is looked up again and again.
        key: its name on the ring; None is its address. A key of its own keeps a server's tenants with it when it comes
            back under another address, and gives it the same ones on every face.
    """

    address: Address
    key: str | None = None

    @property
    def ring_key(self) -> str:
        """What Envoy hashes."""
        return self.key or f"{self.address.host}:{self.address.port}"

    def endpoint(self) -> Json:
        """As Envoy has it."""
        made: Json = {"endpoint": {"address": socket_address(self.address)}, "load_balancing_weight": PLACES}
        if self.key is not None:
            made["metadata"] = {"filter_metadata": {"envoy.lb": {"hash_key": self.key}}}
        return made


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: the certificate with what stands between it and its root, and its key. Envoy reads them at its start."""

    certificate: str
    key: str

    def transport_socket(self) -> Json:
        """As Envoy has it: TLS 1.2 at least, HTTP/2 where callers speak it."""
        return {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificates": [
                        {"certificate_chain": {"filename": self.certificate}, "private_key": {"filename": self.key}}
                    ],
                },
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceProxy:
    """One face of the servers, and where the proxy has it.

    Attributes:
        face: "public" is the product API, "operator" the Open Inference Protocol, "sagemaker" SageMaker's contract.
        listen: where.
        servers: behind it; or a folder with two files that tell of them (`serving.proxy.config.endpoints_files`), which Envoy
            reads anew when another file takes their place.
        anchor: on loopback, for the ring's anchor (`serving.proxy.ring`): what comes there goes on to any server.
        tls: what callers are shown; None speaks plain HTTP.
    """

    face: Face
    listen: Address
    anchor: Address
    servers: Sequence[Server] | Path
    tls: Tls | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """What is configured.

    Attributes:
        faces: each at most once.
        admin: Envoy's own administration, which can end it: on loopback.
        metrics: where Prometheus may read, and a platform ask for `/ready`, without reaching `admin`; None is nowhere.
        request_timeout_seconds: the servers' deadline of a request that names none.
        connect_timeout_seconds: to a server.
        balance_percent: see BALANCE_PERCENT.
        max_connections: of callers, at once.
        access_log: a line of JSON for each request, without what was asked; None writes none.
    """

    faces: Sequence[FaceProxy]
    admin: Address
    metrics: Address | None = None
    request_timeout_seconds: float = 1.0
    connect_timeout_seconds: float = 1.0
    balance_percent: int = BALANCE_PERCENT
    max_connections: int = 20_000
    access_log: str | None = None


def socket_address(address: Address) -> Json:
    """An address as Envoy has it."""
    # The proxy's own addresses may be written as a name for loopback, which Envoy does not look up.
    host = "127.0.0.1" if address.host == "localhost" else address.host or "0.0.0.0"  # noqa: S104  # as `serve` has it
    return {"socket_address": {"address": host, "port_value": address.port}}


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
