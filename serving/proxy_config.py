"""Envoy's configuration: one generator for `macrofleet serve --replicas`, for `infra/envoy` and for whoever writes another.

What each part is for stands beside it; routes and retries are `serving.proxy_routes`, the ring is `serving.ring`.
`macrofleet proxy-config` prints a configuration.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.errors import InvalidInput
from serving.errors import ELSEWHERE_HEADER
from serving.proxy_routes import PASSED_HEADER, Face, Json, anchor_host, duration, virtual_host
from serving.ring import ANCHOR, LEAST_PLACES, MOST_PLACES, PLACES

# A replica may have so many per cent of the mean of requests under way; what is above goes to another one.
BALANCE_PERCENT: Final = 150
# More often than a server is red before it stops to listen (`serving.doors.DrainPlan.notice`).
HEALTH_SECONDS: Final = 0.5
# Shorter than servers keep idle connections (`serving.doors`), so that none closes one under a request.
IDLE_SECONDS: Final = 60
# A batch's bound (`serving.edge`): what is longer is refused by the server, not here.
_BUFFER_BYTES = 1024 * 1024
_HEALTH_PATHS: dict[Face, str] = {"public": "/readyz", "operator": "/readyz", "sagemaker": "/ping"}
_NOBODY = {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]}
_TYPE = "type.googleapis.com/envoy."
_HTTP = f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


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
        made: Json = {"endpoint": {"address": _socket_address(self.address)}, "load_balancing_weight": PLACES}
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
                "@type": f"{_TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
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
        servers: behind it; or the file that tells of them, which Envoy reads anew when another file takes its place.
        anchor: on loopback, for the ring's anchor (`serving.ring`): what comes there goes on to any server.
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


def proxy_config(settings: ProxySettings) -> Json:
    """Envoy's bootstrap, ready for `json.dump`.

    Raises:
        InvalidInput: the administration would be reachable from elsewhere, or a face is there twice.
    """
    if not _is_loopback(settings.admin.host):
        raise InvalidInput(
            f"Envoy's administration would listen on {settings.admin.host}, where others can end it",
            remedy="Give it a loopback address; `metrics` is for what others may read.",
        )
    if not all(_is_loopback(proxy.anchor.host) for proxy in settings.faces):
        raise InvalidInput("the ring's anchor would be reachable from elsewhere", remedy="Give it a loopback address.")
    names = [proxy.face for proxy in settings.faces]
    if not names or len(set(names)) < len(names):
        raise InvalidInput("a proxy has each face once, and at least one", remedy="Name each face once.")
    listeners = [
        made for proxy in settings.faces for made in (_listener(proxy, settings), _anchor_listener(proxy, settings))
    ]
    clusters = [_cluster(proxy, settings) for proxy in settings.faces]
    if settings.metrics is not None:
        listeners.append(_metrics_listener(settings.metrics))
        clusters.append(_admin_cluster(settings.admin))
    return {
        "node": {"id": "macrofleet", "cluster": "macrofleet"},
        "admin": {"address": _socket_address(settings.admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPE}extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": settings.max_connections,
                    },
                }
            ]
        },
    }


def endpoints_file(face: Face, servers: Sequence[Server], anchor: Address | None) -> bytes:
    """The content of the file that tells Envoy of a face's servers (EDS); without an anchor while its port is not known."""
    resource = {"@type": f"{_TYPE}config.endpoint.v3.ClusterLoadAssignment", **_assignment(face, servers, anchor)}
    return json.dumps({"resources": [resource]}, indent=1).encode() + b"\n"


def _assignment(face: Face, servers: Sequence[Server], anchor: Address | None) -> Json:
    endpoints = [server.endpoint() for server in servers]
    if anchor is not None:
        made = Server(address=anchor, key=ANCHOR).endpoint()
        made["endpoint"]["health_check_config"] = {"disable_active_health_check": True}
        endpoints.insert(0, {**made, "load_balancing_weight": 1})
    return {"cluster_name": face, "endpoints": [{"lb_endpoints": endpoints}] if endpoints else []}


def _cluster(proxy: FaceProxy, settings: ProxySettings) -> Json:
    if isinstance(proxy.servers, Path):
        source: Json = {
            "type": "EDS",
            "eds_cluster_config": {
                "eds_config": {"resource_api_version": "V3", "path_config_source": {"path": str(proxy.servers)}}
            },
        }
    else:
        source = {
            "cluster_type": {
                "name": "envoy.cluster.dns",
                "typed_config": {
                    "@type": f"{_TYPE}extensions.clusters.dns.v3.DnsCluster",
                    "dns_refresh_rate": "2s",
                    "dns_failure_refresh_rate": {"base_interval": "0.5s", "max_interval": "2s"},
                },
            },
            "load_assignment": _assignment(proxy.face, proxy.servers, proxy.anchor),
        }
    return {
        "name": proxy.face,
        **source,
        "connect_timeout": duration(settings.connect_timeout_seconds),
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {
            "hash_function": "XX_HASH",
            "minimum_ring_size": LEAST_PLACES,
            "maximum_ring_size": MOST_PLACES,
        },
        "common_lb_config": {
            "consistent_hashing_lb_config": {"hash_balance_factor": settings.balance_percent},
            # A server that is red has not loaded what it shall. Envoy's default would ask it where half of them are.
            "healthy_panic_threshold": {"value": 0},
            "ignore_new_hosts_until_first_hc": True,
            # Otherwise a server whose health changes is treated as before for a second.
            "update_merge_window": "0s",
        },
        # Who is taken out of the list gets nothing more, and what it has is finished. By default Envoy waits for it to
        # become unhealthy.
        "ignore_health_on_host_removal": True,
        "health_checks": [
            {
                "timeout": "1s",
                "interval": duration(HEALTH_SECONDS),
                "no_traffic_interval": duration(HEALTH_SECONDS),
                "no_traffic_healthy_interval": duration(HEALTH_SECONDS),
                "initial_jitter": "0.1s",
                "interval_jitter": "0.05s",
                # An answer other than 200 counts at once; a connection that is refused or late may be tried again.
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": _HEALTH_PATHS[proxy.face]},
            }
        ],
        # Of what a server answers nothing counts: a 503 may be one tenant's (its model, its macros), and a tenant must
        # not have servers taken away. Connections that fail, break or hang do.
        "outlier_detection": {
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_time": "30s",
            "max_ejection_percent": 50,
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 5,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_local_origin_success_rate": 0,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "enforcing_failure_percentage": 0,
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 4096,
                    "max_pending_requests": 4096,
                    "max_requests": 16_384,
                    # All that a server of two had under way may have to go elsewhere; more would be a storm.
                    "retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 64},
                }
            ]
        },
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
                "common_http_protocol_options": {"idle_timeout": duration(IDLE_SECONDS)},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _listener(proxy: FaceProxy, settings: ProxySettings) -> Json:
    """What callers see."""
    host = virtual_host(proxy.face, proxy.face, request_timeout_seconds=settings.request_timeout_seconds)
    manager = _manager(proxy.face, proxy.face, host)
    # Only a request that has been at the anchor says so.
    manager["route_config"]["request_headers_to_remove"] = [PASSED_HEADER]
    if settings.access_log is not None:
        manager["access_log"] = [_access_log(settings.access_log)]
    return _listening(proxy.face, proxy.listen, manager, proxy.tls)


def _anchor_listener(proxy: FaceProxy, settings: ProxySettings) -> Json:
    """The ring's anchor: an endpoint that is always there. What the ring gives to it goes on to a server by chance."""
    host = anchor_host(proxy.face, proxy.face, request_timeout_seconds=settings.request_timeout_seconds)
    name = f"{proxy.face}-anchor"
    return _listening(name, proxy.anchor, _manager(proxy.face, name, host), None)


def _manager(face: Face, name: str, host: Json) -> Json:
    return {
        "@type": _HTTP,
        "stat_prefix": name,
        # Headers that steer Envoy (x-envoy-…) are nobody's to send: they are taken away, since no caller is "internal". An
        # empty list of internal addresses would make private ones and loopback internal, so one stands there that no
        # caller has.
        "use_remote_address": True,
        "internal_address_config": _NOBODY,
        # SageMaker's names of models may have dots and slashes in them.
        "normalize_path": face != "sagemaker",
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "server_header_transformation": "PASS_THROUGH",
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "common_http_protocol_options": {
            "idle_timeout": duration(IDLE_SECONDS),
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": 100,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
        },
        "max_request_headers_kb": 32,
        # Slow callers are the proxy's: a server sees a request when it is whole.
        "request_headers_timeout": "10s",
        "request_timeout": "30s",
        "stream_idle_timeout": "70s",
        "drain_timeout": "1s",
        "http_filters": [
            {
                "name": "envoy.filters.http.buffer",
                "typed_config": {
                    "@type": f"{_TYPE}extensions.filters.http.buffer.v3.Buffer",
                    "max_request_bytes": _BUFFER_BYTES,
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{_TYPE}extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
        "route_config": {"name": name, "response_headers_to_remove": [ELSEWHERE_HEADER], "virtual_hosts": [host]},
        "local_reply_config": _local_replies(face),
    }


def _listening(name: str, address: Address, manager: Json, tls: Tls | None) -> Json:
    return {
        "name": name,
        "address": _socket_address(address),
        # Or another process that listens here already would go unnoticed, and have a part of the callers.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [
            {
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
                **({} if tls is None else {"transport_socket": tls.transport_socket()}),
            }
        ],
    }


# What Envoy itself answers, in the servers' words; `serving.errors` has theirs.
_REPLIES: Final = (
    (404, "not-found", "Not Found", "This is not served here.", None),
    (413, "too-large", "Request too large", "The request's body is too long.", None),
    (503, "not-ready", "Not ready", "No server takes requests now.", 1),
    (504, "deadline-exceeded", "Deadline exceeded", "No answer within the deadline.", None),
)


def _local_replies(face: Face) -> Json:
    mappers = []
    for status, kind, title, detail, retry_after in _REPLIES:
        mapper: Json = {
            "filter": {
                "status_code_filter": {
                    "comparison": {
                        "op": "EQ",
                        "value": {"default_value": status, "runtime_key": f"macrofleet.reply.{status}"},
                    }
                }
            },
            "body_format_override": _problem(face, kind, title, detail),
        }
        if retry_after is not None:
            mapper["headers_to_add"] = [
                {
                    "header": {"key": "Retry-After", "value": str(retry_after)},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ]
        mappers.append(mapper)
    return {
        "mappers": mappers,
        "body_format": _problem(face, "bad-request", "Bad request", "The request was not understood."),
    }


def _problem(face: Face, kind: str, title: str, detail: str) -> Json:
    if face == "operator":
        return {"json_format": {"error": detail}, "content_type": "application/json"}
    return {
        "json_format": {
            "type": f"urn:macrofleet:problem:{kind}",
            "title": title,
            "status": "%RESPONSE_CODE%",
            "detail": detail,
            "instance": "%PATH(NQ:PATH)%",
            "request_id": "%REQ(X-REQUEST-ID)%",
        },
        "content_type": "application/problem+json",
    }


def _access_log(path: str) -> Json:
    fields = {
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%6fZ)%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ:PATH)%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "microseconds": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
        "server": "%UPSTREAM_HOST%",
        "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "request_id": "%REQ(X-REQUEST-ID)%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPE}extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": fields},
        },
    }


def _metrics_listener(address: Address) -> Json:
    """`/stats/prometheus` and `/ready` of the administration, and nothing else of it."""
    allowed = [{"path": "/stats/prometheus"}, {"path": "/ready"}]
    get = [{"name": ":method", "string_match": {"exact": "GET"}}]
    return {
        "name": "metrics",
        "address": _socket_address(address),
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": _HTTP,
                            "stat_prefix": "metrics",
                            "use_remote_address": True,
                            "internal_address_config": _NOBODY,
                            "normalize_path": True,
                            "http_filters": [
                                {
                                    "name": "envoy.filters.http.router",
                                    "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"},
                                }
                            ],
                            "route_config": {
                                "name": "metrics",
                                "virtual_hosts": [
                                    {
                                        "name": "metrics",
                                        "domains": ["*"],
                                        "routes": [
                                            {"match": {**match, "headers": get}, "route": {"cluster": "admin"}}
                                            for match in allowed
                                        ],
                                    }
                                ],
                            },
                        },
                    }
                ]
            }
        ],
    }


def _admin_cluster(address: Address) -> Json:
    return {
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "admin",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket_address(address)}}]}],
        },
    }


def _socket_address(address: Address) -> Json:
    # The proxy's own addresses may be written as a name for loopback, which Envoy does not look up.
    host = "127.0.0.1" if address.host == "localhost" else address.host or "0.0.0.0"  # noqa: S104  # as `serve` has it
    return {"socket_address": {"address": host, "port_value": address.port}}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
