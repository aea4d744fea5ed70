"""Envoy's listeners: how it bears with callers, and what it answers by itself."""

from __future__ import annotations

from typing import Final

from serving.errors import ELSEWHERE_HEADER
from serving.proxy.routes import Face, Json, anchor_host, deadline_filter, duration, virtual_host
from serving.proxy.settings import TYPE, Address, FaceProxy, ProxySettings, Tls, socket_address

# Shorter than servers keep idle connections (`serving.doors`), so that none closes one under a request.
IDLE_SECONDS: Final = 60
# A batch's bound (`serving.faces.edge`): what is longer is refused by the server, not here.
_BUFFER_BYTES = 1024 * 1024
_NOBODY = {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]}
_HTTP = f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def face_listener(proxy: FaceProxy, settings: ProxySettings) -> Json:
    """What callers see."""
    host = virtual_host(proxy.face, proxy.face, request_timeout_seconds=settings.request_timeout_seconds)
    manager = _manager(proxy.face, proxy.face, host)
    if settings.access_log is not None:
        manager["access_log"] = [_access_log(settings.access_log)]
    return _listening(proxy.face, proxy.listen, manager, proxy.tls)


def anchor_listener(proxy: FaceProxy, settings: ProxySettings) -> Json:
    """The ring's anchor: an endpoint that is always there. What the ring gives to it goes on to a server by chance."""
    host = anchor_host(proxy.face, f"{proxy.face}-any", request_timeout_seconds=settings.request_timeout_seconds)
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
                    "@type": f"{TYPE}extensions.filters.http.buffer.v3.Buffer",
                    "max_request_bytes": _BUFFER_BYTES,
                },
            },
            deadline_filter(),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{TYPE}extensions.filters.http.router.v3.Router",
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
        "address": socket_address(address),
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
            "@type": f"{TYPE}extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": fields},
        },
    }


def metrics_listener(address: Address) -> Json:
    """`/stats/prometheus` and `/ready` of the administration, and nothing else of it."""
    allowed = [{"path": "/stats/prometheus"}, {"path": "/ready"}]
    get = [{"name": ":method", "string_match": {"exact": "GET"}}]
    return {
        "name": "metrics",
        "address": socket_address(address),
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
                                    "typed_config": {"@type": f"{TYPE}extensions.filters.http.router.v3.Router"},
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
