"""The serving image and the locks it is made from, checked without a container engine."""

from __future__ import annotations

import http.server
import importlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import macrofleet
from registry.model.program import RELEASED_PROGRAMS
from registry.store.local import LocalStore
from serving.app import create_app
from serving.main import _sagemaker_port
from serving.settings import ServingSettings
from tests.infra.images import PYPROJECT, PYTHONS, SERVING, pins
from tests.released_programs import build_as_the_image_does

SERVE = typer.main.get_command(macrofleet.app).commands["serve"]  # type: ignore[attr-defined]
TEXT = SERVING.text
BUILDER, FINAL = SERVING.builder, SERVING.final


def test_the_entry_point_is_the_projects_script() -> None:
    (script,) = FINAL.the("ENTRYPOINT").arguments
    module, _, name = PYPROJECT["project"]["scripts"][script].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_command_is_one_of_the_command_line() -> None:
    command = FINAL.the("CMD").arguments
    result = CliRunner().invoke(macrofleet.app, [*command, "--help"])
    assert result.exit_code == 0, result.output
    assert "Serve the fleet over HTTP" in result.output
    assert FINAL.the("STOPSIGNAL").rest == "SIGTERM"


def test_the_ports_are_the_servers() -> None:
    public, operator = (ServingSettings.model_fields[name].default for name in ("port", "operator_port"))
    assert FINAL.the("EXPOSE").rest == f"{public} {operator} {_sagemaker_port({})}"
    assert f"'MACROFLEET_PORT', '{public}'" in FINAL.the("HEALTHCHECK").rest


def test_the_programs_are_where_sagemakers_face_looks_for_them() -> None:
    (build,) = [rest for rest in BUILDER.every("RUN") if " programs build " in rest]
    assert re.findall(r"programs build (\w+)", build) == list(RELEASED_PROGRAMS)
    (folder,) = [option.default for option in SERVE.params if option.name == "programs_folder"]
    assert build.endswith(f"&& cp --recursive store/programs {folder}")
    assert folder.is_relative_to("/opt/macrofleet"), "what the final stage copies"


def test_the_programs_are_built_without_what_the_image_lacks(tmp_path: Path) -> None:
    """The released ones: the command refuses others."""
    build_as_the_image_does("bag", tmp_path / "built")
    described = tmp_path / "built" / "store" / "programs" / RELEASED_PROGRAMS["bag"] / "program.json"
    assert described.stat().st_mode & 0o044 == 0o044


def test_the_encoder_is_built_without_what_the_image_lacks(released_encoder_folder: Path) -> None:
    assert (released_encoder_folder / "program.json").stat().st_mode & 0o044 == 0o044


def test_sagemaker_starts_the_image_with_serve_and_the_environment_says_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    began: list[Path] = []
    monkeypatch.setattr("serving.main.run_sagemaker", lambda _, __, folder, **___: began.append(folder))
    monkeypatch.setattr("serving.main.run", lambda *_, **__: None)  # or a failure would be a server that goes on
    for name in [name for name in os.environ if name.startswith("MACROFLEET_")]:
        monkeypatch.delenv(name)
    environment = {"MACROFLEET_SAGEMAKER": "true", "MACROFLEET_PROGRAMS_FOLDER": str(tmp_path)}
    result = CliRunner().invoke(macrofleet.app, ["serve"], env=environment)
    assert (result.exit_code, began) == (0, [tmp_path]), result.output


def health_check() -> list[str]:
    python, *arguments = FINAL.the("HEALTHCHECK").arguments
    assert python == "python"
    return [sys.executable, *arguments]


def test_the_health_check_asks_for_a_route_of_the_app(tmp_path: Path) -> None:
    (path,) = re.findall(r"'GET', '([^']+)'", health_check()[-1])
    app = create_app(ServingSettings(disk_folder=tmp_path / "disk"), LocalStore(tmp_path / "store"))
    assert "get" in app.openapi()["paths"][path]


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers /healthz with `status` and everything else with 404; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_tells_an_alive_server(status: int, healthy: bool) -> None:
    with answering(status) as port:
        environment = os.environ | {"MACROFLEET_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
        assert (subprocess.run(health_check(), env=environment, check=False).returncode == 0) == healthy


def test_the_health_check_fails_without_a_server() -> None:
    with answering(200) as port:
        pass
    environment = os.environ | {"MACROFLEET_PORT": str(port)}
    assert subprocess.run(health_check(), env=environment, stderr=subprocess.DEVNULL, check=False).returncode != 0


def test_it_says_what_sagemaker_asks_of_an_image() -> None:
    for capability in ("multi-models", "accept-bind-to-port"):
        assert FINAL.pairs("LABEL")[f"com.amazonaws.sagemaker.capabilities.{capability}"] == "true"


@pytest.mark.parametrize("python", PYTHONS)
def test_the_serving_lock_is_the_data_planes(python: str) -> None:
    names = set(pins(SERVING.lock, python))
    assert {"tensorflow-cpu", "tensorflow-text", "fastapi", "uvicorn", "boto3"} <= names
    control_plane = ("prefect", "mlflow", "polars", "sqlalchemy", "alembic", "pandas", "scikit-learn", "pytest")
    assert [name for name in names if name.startswith(control_plane)] == []
    assert {"tensorflow", "hatchling"}.isdisjoint(names)
