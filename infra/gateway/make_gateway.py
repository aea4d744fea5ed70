"""Make the gateway's configurations of those in infra/envoy: the way in from elsewhere, which speaks TLS.

    python infra/gateway/make_gateway.py

writes `compose.json` and `kubernetes.json`. What Envoy does with servers (ring, health, retries) is infra/envoy's, which
`macrofleet proxy-config` made. The gateway changes three things:

- the product API is behind TLS, on port 8443;
- `/v2` of the operator's address is not there: who may ask it is inside;
- operators' pages are on port 8444, by the host's name: `console.…` and `grafana.…`, each of them asks who it is by itself.

Needs nothing but Python.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PUBLIC_PORT = 8443
OPERATORS_PORT = 8444
CERTIFICATE = "/etc/envoy/certificate.yaml"
# Where each of the operators' pages is.
PAGES = {"console": 8080, "grafana": 3000}
_TYPE = "type.googleapis.com/envoy."
_HTTP = f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_MODERN = {
    "tls_minimum_protocol_version": "TLSv1_2",
    "cipher_suites": [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ],
}


def gateway(servers: dict[str, Any]) -> dict[str, Any]:
    """What the gateway is, of what Envoy before the servers is."""
    resources = servers["static_resources"]
    listeners = {listener["name"]: listener for listener in resources["listeners"]}
    public = {**listeners.pop("public")}
    public["address"] = _everywhere(PUBLIC_PORT)
    (chain,) = public["filter_chains"]
    public["filter_chains"] = [{**chain, "transport_socket": _tls()}]
    for name in [name for name in listeners if name.partition("-")[0] == "operator"]:
        listeners.pop(name)
    clusters = [cluster for cluster in resources["clusters"] if cluster["name"].partition("-")[0] != "operator"]
    return {
        **servers,
        "static_resources": {
            "listeners": [public, _operators(public), *listeners.values()],
            "clusters": [*clusters, *(_page(name, port) for name, port in PAGES.items())],
        },
    }


def _operators(public: dict[str, Any]) -> dict[str, Any]:
    """The listener of operators' pages; what it has of the public one is how it bears with callers."""
    theirs = public["filter_chains"][0]["filters"][0]["typed_config"]
    kept = ("use_remote_address", "internal_address_config", "common_http_protocol_options", "http2_protocol_options")
    manager = {
        "@type": _HTTP,
        "stat_prefix": "operators",
        **{name: theirs[name] for name in kept},
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "server_header_transformation": "PASS_THROUGH",
        "max_request_headers_kb": 32,
        "request_headers_timeout": "10s",
        "request_timeout": "60s",
        "stream_idle_timeout": "300s",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {"name": "operators", "virtual_hosts": [_host(name) for name in PAGES]},
    }
    return {
        "name": "operators",
        "address": _everywhere(OPERATORS_PORT),
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": public["per_connection_buffer_limit_bytes"],
        "filter_chains": [
            {
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
                "transport_socket": _tls(),
            }
        ],
    }


def _host(name: str) -> dict[str, Any]:
    # Whatever follows the first word: it is one host name for whoever runs this.
    hosts = [f"{name}.*"]
    header = {"key": "Strict-Transport-Security", "value": "max-age=31536000"}
    return {
        "name": name,
        "domains": hosts,
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "60s"}}],
        "response_headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def _page(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": name, "port_value": port}}}}
    return {
        "name": name,
        "cluster_type": {
            "name": "envoy.cluster.dns",
            "typed_config": {"@type": f"{_TYPE}extensions.clusters.dns.v3.DnsCluster", "dns_refresh_rate": "5s"},
        },
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _tls() -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": _MODERN,
                "tls_certificate_sds_secret_configs": [
                    {
                        "name": "certificate",
                        "sds_config": {"resource_api_version": "V3", "path_config_source": {"path": CERTIFICATE}},
                    }
                ],
            },
        },
    }


def _everywhere(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "0.0.0.0", "port_value": port}}  # noqa: S104  # a way in from elsewhere


def made(name: str) -> str:
    """The text of a configuration, of the one of the same name in infra/envoy."""
    servers = json.loads((FOLDER.parent / "envoy" / f"{name}.json").read_text())
    return json.dumps(gateway(servers), indent=2) + "\n"


def main() -> None:
    """Write both."""
    for name in ("compose", "kubernetes"):
        (FOLDER / f"{name}.json").write_text(made(name))
        print(f"made {FOLDER / name}.json", file=sys.stderr)


if __name__ == "__main__":
    main()
