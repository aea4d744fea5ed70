"""The images' Dockerfiles and locks, read without a container engine."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import macrofleet

PROJECT = Path(macrofleet.__file__).parent
INFRA = PROJECT / "infra"
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())
PYTHONS = ("3.11.9", "3.12.9", "3.13.9")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined."""

    word: str
    rest: str

    @property
    def arguments(self) -> list[str]:
        """The exec form's list."""
        found = json.loads(self.rest[self.rest.index("[") :])
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


@dataclass(frozen=True)
class Image:
    """One of the images.

    Attributes:
        name: of the image, without a registry and a tag.
        dockerfile: where it is described.
        lock: what is installed in it.
        extras: of the project, that the lock has.
        volume: the only folder that is written.
    """

    name: str
    dockerfile: Path
    lock: Path
    extras: tuple[str, ...]
    volume: str

    @property
    def text(self) -> str:
        return self.dockerfile.read_text()

    @property
    def builder(self) -> Stage:
        return self._stages()[0]

    @property
    def final(self) -> Stage:
        return self._stages()[1]

    def _stages(self) -> tuple[Stage, Stage]:
        first, second = parse_dockerfile(self.text)
        return first, second


SERVING = Image(
    name="macrofleet-serving",
    dockerfile=INFRA / "serving.Dockerfile",
    lock=PROJECT / "requirements-serving.lock",
    extras=("serving",),
    volume="/var/cache/macrofleet",
)
FLOWS = Image(
    name="macrofleet-flows",
    dockerfile=INFRA / "flows.Dockerfile",
    lock=PROJECT / "requirements-flows.lock",
    extras=("flows", "console", "postgresql", "tracking-server"),
    volume="/var/lib/macrofleet",
)
IMAGES = (SERVING, FLOWS)


def parse_dockerfile(text: str) -> list[Stage]:
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    instructions = [
        Instruction(*line.strip().split(maxsplit=1)) for line in lines.replace("\\\n", " ").splitlines() if line.strip()
    ]
    starts = [index for index, each in enumerate(instructions) if each.word == "FROM"]
    ends = [*starts[1:], len(instructions)]
    return [Stage(tuple(instructions[start:end])) for start, end in zip(starts, ends, strict=True)]


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
