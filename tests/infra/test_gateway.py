"""infra/gateway: TLS and operators' pages before Envoy's servers, tried with the real Envoy."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import subprocess
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import envoy
import httpx
import pytest
import stamina

from flows.console.settings import ConsoleSettings
from serving.settings import ServingSettings
from tests.infra.composition import Composition, load_script
from tests.infra.images import INFRA
from tests.ports import free_ports

GATEWAY = INFRA / "gateway"
MAKE_GATEWAY = load_script(GATEWAY / "make_gateway.py")
MAKE_SECRETS = load_script(INFRA / "compose" / "make_secrets.py")
ENVOY = str(Path(envoy.__file__).parent / "_bin" / "envoy")
NAMES = ("compose", "kubernetes")


def configuration(name: str) -> dict[str, Any]:
    found = json.loads((GATEWAY / f"{name}.json").read_text())
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    MAKE_SECRETS._Book(folder).certificate("tls.crt", "tls.key")
    text = (GATEWAY / "certificate.yaml").read_text().replace("/etc/envoy-tls", str(folder))
    (folder / "certificate.yaml").write_text(text)
    return folder


def here(text: str, secrets: Path) -> str:
    """A configuration that finds its certificate where the test has it."""
    assert MAKE_GATEWAY.CERTIFICATE in text
    return text.replace(MAKE_GATEWAY.CERTIFICATE, str(secrets / "certificate.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_the_proxys_configuration_makes_of_it(name: str) -> None:
    assert (GATEWAY / f"{name}.json").read_text() == MAKE_GATEWAY.made(name), "run infra/gateway/make_gateway.py"


@pytest.mark.parametrize("name", NAMES)
def test_envoy_takes_it(name: str, secrets: Path, tmp_path: Path) -> None:
    file = tmp_path / "envoy.json"
    file.write_text(here((GATEWAY / f"{name}.json").read_text(), secrets))
    command = [ENVOY, "--mode", "validate", "--config-path", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_everything_from_elsewhere_is_encrypted(name: str) -> None:
    listeners = {each["name"]: each for each in configuration(name)["static_resources"]["listeners"]}
    assert set(listeners) == {"public", "public-anchor", "operators", "metrics"}
    assert listeners["public-anchor"]["address"]["socket_address"]["address"] == "127.0.0.1"  # Envoy's own, to itself
    for listener in (listeners["public"], listeners["operators"]):
        for chain in listener["filter_chains"]:
            assert chain["transport_socket"]["name"] == "envoy.transport_sockets.tls"


def test_servers_and_pages_are_services_of_the_composition(tmp_path: Path) -> None:
    MAKE_SECRETS.write_all(MAKE_SECRETS._Book(tmp_path))
    composition = Composition.read(tmp_path)
    gateway = composition.services["envoy"]
    public = ServingSettings.model_fields["port"].default
    ports = {"server-1": public, "server-2": public, "server-3": public}
    ports |= {"console": ConsoleSettings.model_fields["console_port"].default, "grafana": 3000}
    found = {}
    for cluster in configuration("compose")["static_resources"]["clusters"]:
        for endpoint in (each for some in cluster["load_assignment"]["endpoints"] for each in some["lb_endpoints"]):
            where = endpoint["endpoint"]["address"]["socket_address"]
            if where["address"] != "127.0.0.1":
                found[where["address"]] = where["port_value"]
                assert composition.services[where["address"]].networks & gateway.networks
    assert found == ports
    published = {word.rpartition(":")[2] for word in gateway.spec["ports"]}
    assert published == {str(MAKE_GATEWAY.PUBLIC_PORT), str(MAKE_GATEWAY.OPERATORS_PORT)}
    mounted = {target for _, target in gateway.mounts} | {entry["target"] for entry in gateway.spec["secrets"]}
    command = gateway.spec["command"]
    assert command[command.index("--config-path") + 1] in mounted
    assert {MAKE_GATEWAY.CERTIFICATE, "/etc/envoy-tls/tls.crt", "/etc/envoy-tls/tls.key"} <= mounted
    (metrics,) = [
        each for each in configuration("compose")["static_resources"]["listeners"] if each["name"] == "metrics"
    ]
    port = metrics["address"]["socket_address"]["port_value"]
    assert f"/127.0.0.1/{port} " in gateway.spec["healthcheck"]["test"][-1]
    assert f"envoy:{port}" in (INFRA / "compose" / "prometheus.yml").read_text()


@dataclass(frozen=True)
class Running:
    """An Envoy and the context that knows its certificate."""

    public: int
    operators: int
    metrics: int
    trust: ssl.SSLContext

    def get(self, port: int, path: str, *, host: str = "localhost") -> httpx.Response:
        with httpx.Client(verify=self.trust, trust_env=False) as client:
            return client.get(f"https://localhost:{port}{path}", headers={"Host": host})


@contextmanager
def answering(name: str) -> Iterator[int]:
    """A server that answers everything with its name; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = f"{name} {self.path}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def running(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("envoy")
    config = configuration("compose")
    resources = config["static_resources"]
    ports = dict(zip(["public", "public-anchor", "operators", "metrics", "admin"], free_ports(5), strict=True))
    for listener in resources["listeners"]:
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": ports[listener["name"]]}
    config["admin"]["address"]["socket_address"]["port_value"] = ports["admin"]
    with ExitStack() as stack:
        for cluster in resources["clusters"]:
            name = cluster["load_assignment"]["cluster_name"]
            for endpoint in (each for some in cluster["load_assignment"]["endpoints"] for each in some["lb_endpoints"]):
                where = endpoint["endpoint"]["address"]["socket_address"]
                own = ports["admin" if name == "admin" else "public-anchor"]
                port = own if where["address"] == "127.0.0.1" else stack.enter_context(answering(name))
                endpoint["endpoint"]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
        file = folder / "envoy.json"
        # The line of each request goes to the test's file.
        file.write_text(here(json.dumps(config), secrets).replace("/dev/stdout", str(folder / "requests")))
        with (folder / "log").open("wb") as log:
            command = [ENVOY, "--config-path", str(file), "--base-id", str(ports["admin"]), "--concurrency", "1"]
            process = subprocess.Popen([*command, "--log-level", "warning"], stdout=log, stderr=log)
        trust = ssl.create_default_context(cafile=secrets / "tls.crt")
        started = Running(ports["public"], ports["operators"], ports["metrics"], trust)
        try:
            for attempt in stamina.retry_context(
                on=(httpx.HTTPError, AssertionError), timeout=30, attempts=None, wait_max=0.2
            ):
                with attempt:
                    assert process.poll() is None, (folder / "log").read_text()
                    # Until one has passed its first check of health, requests go to whoever there is.
                    assert started.get(started.public, "/readyz").text == "public /readyz"
            yield started
        finally:
            process.terminate()
            process.wait(20)


def test_the_product_api_is_behind_tls(running: Running) -> None:
    answer = running.get(running.public, "/v1/tenants/acme/suggestions")
    assert (answer.status_code, answer.text) == (200, "public /v1/tenants/acme/suggestions")


@pytest.mark.parametrize("page", sorted(MAKE_GATEWAY.PAGES))
def test_operators_pages_are_told_by_their_name(running: Running, page: str) -> None:
    answer = running.get(running.operators, "/fleet", host=f"{page}.example.com")
    assert (answer.status_code, answer.text) == (200, f"{page} /fleet")
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=")


def test_the_compositions_health_check_tells_whether_it_is_there(running: Running, tmp_path: Path) -> None:
    MAKE_SECRETS.write_all(MAKE_SECRETS._Book(tmp_path))
    kind, *check = Composition.read(tmp_path).services["envoy"].spec["healthcheck"]["test"]
    assert kind == "CMD"
    for port, healthy in ((running.metrics, True), (free_ports(1)[0], False)):
        command = [word.replace("/127.0.0.1/9902 ", f"/127.0.0.1/{port} ") for word in check]
        assert command != check
        done = subprocess.run(command, capture_output=True, check=False, timeout=30)
        assert (done.returncode == 0) == healthy, done.stderr


@pytest.mark.parametrize("page", sorted(MAKE_GATEWAY.PAGES))
def test_the_certificate_that_is_made_names_operators_pages(running: Running, page: str) -> None:
    with socket.create_connection(("127.0.0.1", running.operators), 5) as plain:
        running.trust.wrap_socket(plain, server_hostname=f"{page}.localhost").close()


def test_a_name_that_is_nobodys_is_nothing(running: Running) -> None:
    assert running.get(running.operators, "/", host="elsewhere.example.com").status_code == 404


@pytest.mark.parametrize("page", sorted(MAKE_GATEWAY.PAGES))
def test_the_way_in_for_all_leads_to_no_page_of_operators(running: Running, page: str) -> None:
    assert running.get(running.public, "/", host=f"{page}.example.com").text == "public /"


def test_nothing_is_answered_in_the_clear(running: Running) -> None:
    for port in (running.public, running.operators):
        with pytest.raises(httpx.HTTPError), httpx.Client(trust_env=False) as client:
            client.get(f"http://127.0.0.1:{port}/readyz")


def test_old_tls_is_refused(running: Running) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")  # or this side would not even ask
    with (
        socket.create_connection(("127.0.0.1", running.public), 5) as plain,
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
    ):
        context.wrap_socket(plain, server_hostname="localhost")
