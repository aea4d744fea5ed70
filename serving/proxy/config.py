"""Envoy's configuration: one generator for `macrofleet serve --replicas`, for `infra/envoy` and for whoever writes another.

What each part is for stands beside it; routes and retries are in `serving.proxy.routes`, what callers meet in
`serving.proxy.listeners`, the ring is `serving.proxy.ring`.
`macrofleet proxy-config` prints a configuration.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from registry.errors import InvalidInput
from serving.proxy.listeners import IDLE_SECONDS, anchor_listener, face_listener, metrics_listener
from serving.proxy.ring import ANCHOR, LEAST_PLACES, MOST_PLACES
from serving.proxy.routes import Face, Json, duration
from serving.proxy.settings import TYPE, Address, FaceProxy, ProxySettings, Server, is_loopback, socket_address

# More often than a server is red before it stops to listen (`serving.doors.DrainPlan.notice`).
HEALTH_SECONDS: Final = 0.5
_HEALTH_PATHS: dict[Face, str] = {"public": "/readyz", "operator": "/readyz", "sagemaker": "/ping"}
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def proxy_config(settings: ProxySettings) -> Json:
    """Envoy's bootstrap, ready for `json.dump`.

    Raises:
        InvalidInput: the administration would be reachable from elsewhere, or a face is there twice.
    """
    if not is_loopback(settings.admin.host):
        raise InvalidInput(
            f"Envoy's administration would listen on {settings.admin.host}, where others can end it",
            remedy="Give it a loopback address; `metrics` is for what others may read.",
        )
    if not all(is_loopback(proxy.anchor.host) for proxy in settings.faces):
        raise InvalidInput("the ring's anchor would be reachable from elsewhere", remedy="Give it a loopback address.")
    names = [proxy.face for proxy in settings.faces]
    if not names or len(set(names)) < len(names):
        raise InvalidInput("a proxy has each face once, and at least one", remedy="Name each face once.")
    listeners = [
        made for proxy in settings.faces for made in (face_listener(proxy, settings), anchor_listener(proxy, settings))
    ]
    clusters = [
        made for proxy in settings.faces for made in (_ring_cluster(proxy, settings), _any_cluster(proxy, settings))
    ]
    if settings.metrics is not None:
        listeners.append(metrics_listener(settings.metrics))
        clusters.append(_admin_cluster(settings.admin))
    return {
        "node": {"id": "macrofleet", "cluster": "macrofleet"},
        "admin": {"address": socket_address(settings.admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{TYPE}extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": settings.max_connections,
                    },
                }
            ]
        },
    }


def endpoints_files(face: Face, servers: Sequence[Server], anchor: Address | None) -> dict[str, bytes]:
    """The files that tell Envoy of a face's servers (EDS), by name.

    Args:
        anchor: None while its port is not known.
    """
    assignments = {face: _assignment(face, servers, anchor), f"{face}-any": _assignment(f"{face}-any", servers, None)}
    return {
        endpoints_name(cluster): json.dumps(
            {"resources": [{"@type": f"{TYPE}config.endpoint.v3.ClusterLoadAssignment", **assignment}]}, indent=1
        ).encode()
        for cluster, assignment in assignments.items()
    }


def endpoints_name(cluster: str) -> str:
    """What the file of a cluster's servers is called."""
    return f"{cluster}.endpoints.json"


def _assignment(cluster: str, servers: Sequence[Server], anchor: Address | None) -> Json:
    endpoints = [server.endpoint() for server in servers]
    if anchor is not None:
        made = Server(address=anchor, key=ANCHOR).endpoint()
        made["endpoint"]["health_check_config"] = {"disable_active_health_check": True}
        endpoints.insert(0, {**made, "load_balancing_weight": 1})
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}] if endpoints else []}


def _ring_cluster(proxy: FaceProxy, settings: ProxySettings) -> Json:
    """The servers and the anchor, of which a tenant has one."""
    made = _cluster(proxy, settings, proxy.face, anchor=proxy.anchor)
    made |= {
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {
            "hash_function": "XX_HASH",
            "minimum_ring_size": LEAST_PLACES,
            "maximum_ring_size": MOST_PLACES,
        },
    }
    made["common_lb_config"]["consistent_hashing_lb_config"] = {"hash_balance_factor": settings.balance_percent}
    return made


def _any_cluster(proxy: FaceProxy, settings: ProxySettings) -> Json:
    """The same servers without a ring, for what the ring gives to its anchor."""
    return {**_cluster(proxy, settings, f"{proxy.face}-any", anchor=None), "lb_policy": "LEAST_REQUEST"}


def _cluster(proxy: FaceProxy, settings: ProxySettings, name: str, *, anchor: Address | None) -> Json:
    if isinstance(proxy.servers, Path):
        path = str(proxy.servers / endpoints_name(name))
        source: Json = {
            "type": "EDS",
            "eds_cluster_config": {"eds_config": {"resource_api_version": "V3", "path_config_source": {"path": path}}},
        }
    else:
        source = {
            "cluster_type": {
                "name": "envoy.cluster.dns",
                "typed_config": {
                    "@type": f"{TYPE}extensions.clusters.dns.v3.DnsCluster",
                    "dns_refresh_rate": "2s",
                    "dns_failure_refresh_rate": {"base_interval": "0.5s", "max_interval": "2s"},
                },
            },
            "load_assignment": _assignment(name, proxy.servers, anchor),
        }
    return {
        "name": name,
        **source,
        "connect_timeout": duration(settings.connect_timeout_seconds),
        "common_lb_config": {
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


def _admin_cluster(address: Address) -> Json:
    return {
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "admin",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(address)}}]}],
        },
    }
