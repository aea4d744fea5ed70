"""`macrofleet proxy-config`: Envoy's configuration for servers that something else starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def proxy_config(
    server: Annotated[
        list[str],
        typer.Option("--server", help="A server's host, or KEY=HOST with its key on the ring. Repeatable."),
    ],
    listen: Annotated[str, typer.Option(help="Where callers find the product API: HOST:PORT.")] = "127.0.0.1:8000",
    operator_listen: Annotated[
        str | None, typer.Option(help="Where they find /v2: HOST:PORT. Without it, nowhere.")
    ] = None,
    sagemaker_listen: Annotated[
        str | None, typer.Option(help="The same for SageMaker's contract, of servers started with --sagemaker.")
    ] = None,
    metrics_listen: Annotated[
        str | None, typer.Option(help="Where Prometheus reads Envoy's metrics, and /ready is: HOST:PORT.")
    ] = None,
    admin: Annotated[str, typer.Option(help="Envoy's own administration, on loopback: HOST:PORT.")] = "127.0.0.1:9901",
    anchor_port: Annotated[
        int, typer.Option(min=1, max=65533, help="This one and the next two, on loopback: Envoy's own, to itself.")
    ] = 9903,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The servers' product API.")] = 8000,
    operator_port: Annotated[int, typer.Option(min=1, max=65535, help="Their operator's address.")] = 8001,
    sagemaker_port: Annotated[int, typer.Option(min=1, max=65535, help="Their SAGEMAKER_BIND_TO_PORT.")] = 8080,
    request_timeout_ms: Annotated[
        int, typer.Option(min=1, max=60_000, help="The servers' MACROFLEET_REQUEST_TIMEOUT_MS.")
    ] = 1000,
    access_log: Annotated[str | None, typer.Option(help="A file for a line of JSON a request; none without.")] = None,
    tls_certificate: Annotated[
        str | None, typer.Option(help="A PEM file, as Envoy finds it: every face then speaks HTTPS.")
    ] = None,
    tls_key: Annotated[str | None, typer.Option(help="The certificate's key, likewise.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write it here instead of standard output.")] = None,
) -> None:
    """Print a configuration for Envoy (JSON, which `envoy --config-path FILE.json` reads); see docs/replicas.md.

    Example: macrofleet proxy-config --server a=10.0.0.1 --server b=10.0.0.2 --listen 0.0.0.0:8000 --out envoy.json
    """
    from registry.errors import InvalidInput
    from serving.proxy.config import proxy_config as configure
    from serving.proxy.routes import Face
    from serving.proxy.settings import Address, FaceProxy, ProxySettings, Server, Tls

    if (tls_certificate is None) != (tls_key is None):
        raise InvalidInput("a certificate and its key go together", remedy="Give --tls-certificate and --tls-key.")
    tls = Tls(tls_certificate, tls_key) if tls_certificate is not None and tls_key is not None else None
    wanted: list[tuple[Face, str | None, int]] = [
        ("public", listen, port),
        ("operator", operator_listen, operator_port),
        ("sagemaker", sagemaker_listen, sagemaker_port),
    ]
    faces = [
        FaceProxy(
            face=face,
            listen=Address.parse(where),
            anchor=Address("127.0.0.1", anchor_port + place),
            tls=tls,
            servers=[
                Server(address=Address(host, behind), key=key or None)
                for key, _, host in (text.rpartition("=") for text in server)
            ],
        )
        for place, (face, where, behind) in enumerate(wanted)
        if where is not None
    ]
    config = configure(
        ProxySettings(
            faces=faces,
            admin=Address.parse(admin),
            metrics=None if metrics_listen is None else Address.parse(metrics_listen),
            request_timeout_seconds=request_timeout_ms / 1000,
            access_log=access_log,
        )
    )
    text = json.dumps(config, indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text)
