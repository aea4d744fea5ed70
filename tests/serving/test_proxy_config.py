"""The configuration: what Envoy itself says of it, and that what is kept in `infra/envoy` is what the generator makes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

import macrofleet
import registry
from registry.errors import InvalidInput
from serving.proxy.config import endpoints_files, proxy_config
from serving.proxy.envoy import find_envoy
from serving.proxy.routes import duration
from serving.proxy.settings import Address, FaceProxy, ProxySettings, Server
from tests.ports import free_ports
from tests.serving.helpers import PATIENCE_SECONDS
from tests.serving.proxied import StandIn

INFRA = Path(registry.__file__).parent.parent / "infra" / "envoy"
KEPT = sorted(INFRA.glob("*.json"))


def settings(tmp_path: Path, **changes: object) -> ProxySettings:
    """Every part there is."""
    loopback = Address("127.0.0.1", 9903)
    servers = [Server(address=Address("server-0", 8000), key="replica-0"), Server(address=Address("10.0.0.2", 8000))]
    values: dict[str, object] = {
        "faces": [
            FaceProxy(face="public", listen=Address("0.0.0.0", 8000), anchor=loopback, servers=tmp_path),
            FaceProxy(face="operator", listen=Address("::1", 8001), anchor=Address("::1", 9904), servers=servers),
            FaceProxy(
                face="sagemaker", listen=Address("localhost", 8080), anchor=Address("localhost", 9905), servers=servers
            ),
        ],
        "admin": Address("127.0.0.1", 9901),
        "metrics": Address("0.0.0.0", 9902),
        "access_log": "/dev/stdout",
    }
    return ProxySettings(**{**values, **changes})  # type: ignore[arg-type]


def validate(path: Path) -> None:
    done = subprocess.run(
        [str(find_envoy()), "--mode", "validate", "--config-path", str(path), "--log-level", "warning"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no warning of something deprecated, either


def test_envoy_takes_every_part(tmp_path: Path) -> None:
    for name, content in endpoints_files("public", [], None).items():
        (tmp_path / name).write_bytes(content)
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(proxy_config(settings(tmp_path))))
    validate(path)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_is_kept_is_what_is_generated(path: Path, tmp_path: Path) -> None:
    """`make envoy` writes them."""
    validate(path)
    arguments = path.with_suffix(".args").read_text().split()
    made = CliRunner().invoke(macrofleet.app, ["proxy-config", *arguments])
    assert made.exit_code == 0, made.output
    assert made.stdout == path.read_text()


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_has_come_to_the_anchor_does_not_come_back(path: Path) -> None:
    """Or a request could go round while servers are busy, and find nobody."""
    resources = json.loads(path.read_text())["static_resources"]
    listeners = {listener["name"]: listener for listener in resources["listeners"]}
    clusters = {cluster["name"]: addresses_of(cluster) for cluster in resources["clusters"]}
    for face in ("public", "operator"):
        anchor = address_of(listeners[f"{face}-anchor"])
        assert anchor in clusters[face]
        for cluster in clusters_of(listeners[f"{face}-anchor"]):
            assert clusters[cluster] == clusters[face] - {anchor}
        assert clusters_of(listeners[face]) == {face}


def address_of(holder: dict[str, Any]) -> tuple[str, int]:
    found = holder["address"]["socket_address"]
    return found["address"], found["port_value"]


def addresses_of(cluster: dict[str, Any]) -> set[tuple[str, int]]:
    groups = cluster["load_assignment"]["endpoints"]
    return {address_of(one["endpoint"]) for group in groups for one in group["lb_endpoints"]}


def clusters_of(listener: dict[str, Any]) -> set[str]:
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return {route["route"]["cluster"] for host in manager["route_config"]["virtual_hosts"] for route in host["routes"]}


def test_every_list_of_arguments_has_its_configuration() -> None:
    assert (
        [path.stem for path in KEPT]
        == ["compose", "kubernetes"]
        == [path.stem for path in sorted(INFRA.glob("*.args"))]
    )


@pytest.mark.anyio
async def test_names_tls_and_metrics(tmp_path: Path) -> None:
    """Servers by name, two of which do not exist, behind HTTPS; and what is shown of the administration."""
    certificate, key = make_certificate(tmp_path)
    server = StandIn("a")
    await server.open()
    *ports, anchor = free_ports(4)
    listen, metrics, admin = (f"127.0.0.1:{port}" for port in ports)
    options = [
        "--server",
        "a=localhost",
        "--server",
        "b=b.invalid",
        "--server",
        "c.invalid",
        "--port",
        str(server.port),
    ]
    options += [
        "--listen",
        listen,
        "--metrics-listen",
        metrics,
        "--admin",
        admin,
        "--out",
        str(tmp_path / "envoy.json"),
    ]
    options += ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    options += ["--anchor-port", str(anchor)]
    made = CliRunner().invoke(macrofleet.app, ["proxy-config", *options])
    assert made.exit_code == 0, made.output
    process = await asyncio.create_subprocess_exec(
        *(str(find_envoy()), "--config-path", str(tmp_path / "envoy.json"), "--disable-hot-restart"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        trusted = ssl.create_default_context(cafile=str(certificate))
        async with httpx.AsyncClient(timeout=30, verify=trusted) as client:
            await until_ok(client, f"http://{metrics}/ready")
            await until_ok(client, f"https://{listen}/v1/tenants/acme/suggestions")
            shown = await client.get(f"http://{metrics}/stats/prometheus")
            assert "envoy_cluster_upstream_rq_total" in shown.text
            for path in ("/", "/quitquitquit", "/clusters", "/config_dump", "/stats"):
                assert (await client.get(f"http://{metrics}{path}")).status_code == 404, path
            assert (await client.post(f"http://{metrics}/ready")).status_code == 404
    finally:
        process.kill()
        await process.wait()
        await server.close()


async def until_ok(client: httpx.AsyncClient, url: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(url)).status_code == 200:
                    return
            await asyncio.sleep(0.02)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """For 127.0.0.1, signed by itself."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(secret, hashes.SHA256())
    )
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, key


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "envoy.example", ""])
def test_the_administration_is_on_loopback(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidInput, match="administration"):
        proxy_config(settings(tmp_path, admin=Address(host, 9901)))


def test_faces_once_each(tmp_path: Path) -> None:
    face = FaceProxy(face="public", listen=Address("127.0.0.1", 1), anchor=Address("127.0.0.1", 2), servers=tmp_path)
    for faces in ([], [face, face]):
        with pytest.raises(InvalidInput, match="each face once"):
            proxy_config(settings(tmp_path, faces=faces))


@pytest.mark.parametrize(
    ("text", "address"), [("h:1", Address("h", 1)), ("[::1]:80", Address("::1", 80)), ("::1:80", Address("::1", 80))]
)
def test_an_address(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize("text", ["", "h", "h:", ":1", "h:65536", "h:x", "h:1 "])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidInput, match="no address"):
        Address.parse(text)


@pytest.mark.parametrize(("seconds", "text"), [(1, "1s"), (0.25, "0.25s"), (61.5, "61.5s"), (1e-9, "0.000000001s")])
def test_a_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
