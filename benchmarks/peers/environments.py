"""Virtual environments of the other servers, made from the package index, one each, outside the checkout.

TensorFlow is a gigabyte and more, so they share this project's: a `.pth` file puts its site-packages behind the
environment's own, whose packages therefore come first. Every server hence runs the same TensorFlow.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.console_output import Step
from registry.errors import OutOfResources
from registry.settings import user_cache

_MARK = ".macrofleet"
_SHARED = "macrofleet-shared.pth"
#: What every server is reported with, besides its own packages.
_COMMON = ("numpy", "protobuf", "tensorflow", "tensorflow-text", "uvloop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What is installed where.

    Attributes:
        name: of its folder.
        requirements: as pip takes them.
        packages: whose versions are reported.
    """

    name: str
    requirements: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return environments_folder() / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def installed(self) -> bool:
        """Whether it is there, whole, and of these requirements and this interpreter."""
        try:
            return (self.folder / _MARK).read_text() == self._mark()
        except OSError:
            return False

    def install(self) -> None:
        """Make it, unless it is there. Raises OutOfResources: pip failed; says how."""
        if self.installed:
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(self.folder)], self.name)
        _run([str(self.python), "-m", "pip", "install", "--quiet", *self.requirements], self.name)
        own = next((self.folder / "lib").glob("python*/site-packages"))
        (own / _SHARED).write_text(sysconfig.get_path("purelib") + "\n")
        (self.folder / _MARK).write_text(self._mark())

    def versions(self) -> dict[str, str]:
        """What its interpreter imports of the packages that matter, and the interpreter itself."""
        program = (
            "import importlib.metadata as m, json, platform, sys\n"
            "found = {'python': platform.python_version()}\n"
            "for name in sys.argv[1:]:\n"
            "    try: found[name] = m.version(name)\n"
            "    except m.PackageNotFoundError: pass\n"
            "print(json.dumps(found))"
        )
        done = _run([str(self.python), "-c", program, *self.packages, *_COMMON], self.name)
        found: dict[str, str] = json.loads(done)
        return found

    def _mark(self) -> str:
        return json.dumps([*self.requirements, sys.version, sysconfig.get_path("purelib")])


ENVIRONMENTS: Mapping[str, Environment] = {
    one.name: one
    for one in (
        Environment(
            name="fastapi",
            requirements=("fastapi>=0.120,<0.151", "uvicorn>=0.40", "uvloop>=0.22", "httptools>=0.7"),
            packages=("fastapi", "starlette", "uvicorn", "httptools", "pydantic"),
        ),
        Environment(
            name="mms",
            requirements=("multi-model-server==1.1.11",),
            packages=("multi-model-server", "model-archiver"),
        ),
        Environment(
            name="mlserver",
            # MLServer does not start with later ones.
            requirements=("mlserver==1.7.1", "uvloop<0.22"),
            packages=("mlserver", "fastapi", "uvicorn", "pydantic", "grpcio"),
        ),
        Environment(
            name="ray",
            requirements=("ray[serve]==2.60.0",),
            packages=("ray", "fastapi", "starlette", "uvicorn"),
        ),
    )
}


def environments_folder() -> Path:
    """Where they lie: below the user's cache, `XDG_CACHE_HOME` or `~/.cache`."""
    return user_cache() / "peers"


def install_environments(names: list[str], step: Step) -> dict[str, str]:
    """Make environments, and say which could not be, and why, by name."""
    failed = {}
    for place, name in enumerate(names):
        step(f"installing {name}", place / max(1, len(names)))
        try:
            ENVIRONMENTS[name].install()
        except OutOfResources as problem:
            failed[name] = str(problem)
    return failed


def _run(command: list[str], what: str) -> str:
    # Other environments' variables would lead pip and Python back to this one.
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise OutOfResources(f"the environment {what} cannot be used: {done.stderr.strip()[-500:]}")
    return done.stdout
