"""infra/compose.yaml as a container engine would read it, with the secrets that `make_secrets` makes."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ruamel.yaml import YAML

from tests.infra.images import IMAGES, INFRA, Image

COMPOSE = INFRA / "compose.yaml"


def read_yaml(path: Path) -> Any:
    """A YAML file's one document, its merge keys resolved."""
    return YAML(typ="safe", pure=True).load(path)


def load_script(path: Path) -> ModuleType:
    """A script of infra/ as a module; it is no package's."""
    spec = importlib.util.spec_from_file_location(f"infra_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Service:
    """A service of the composition.

    Attributes:
        name: by which others reach it.
        spec: what the file says of it.
        secrets: where the secrets were made for this test.
    """

    name: str
    spec: Mapping[str, Any]
    secrets: Path

    @property
    def image(self) -> Image | None:
        """The project's image that it runs; None for those of others."""
        name = self.spec["image"].partition(":")[0]
        return next((image for image in IMAGES if image.name == name), None)

    @property
    def commands(self) -> list[list[str]]:
        """What it runs: several where a shell is given several. Empty where the image says it."""
        words = [*self.spec.get("entrypoint", ()), *self.spec.get("command", ())]
        if words[:2] == ["sh", "-ec"]:
            return [shlex.split(part) for part in words[2].replace("$$", "$").split("&&")]
        return [words] if words else []

    @property
    def environment(self) -> dict[str, str]:
        """Its variables, those of its files included."""
        found: dict[str, str] = {}
        for file in self.spec.get("env_file", ()):
            name = file.removeprefix("compose/secrets/")
            lines = (self.secrets / name).read_text().splitlines()
            found |= dict(line.split("=", 1) for line in lines)
        return found | dict(self.spec.get("environment", {}))

    @property
    def networks(self) -> frozenset[str]:
        return frozenset(self.spec["networks"])

    @property
    def mounts(self) -> list[tuple[str, str]]:
        """(source, target) of its volumes: a volume's name, or a path of this repository."""
        pairs = [volume.split(":") for volume in self.spec.get("volumes", ())]
        return [(source, target) for source, target, *_ in pairs]

    @property
    def names(self) -> set[str]:
        """Under which others find it."""
        networks = self.spec["networks"]
        aliases = [] if isinstance(networks, Sequence) else [one.get("aliases", ()) for one in networks.values()]
        return {self.name, *(alias for some in aliases for alias in some)}


@dataclass(frozen=True)
class Composition:
    """All of it."""

    document: Mapping[str, Any]
    services: Mapping[str, Service]

    @classmethod
    def read(cls, secrets: Path) -> Composition:
        document = read_yaml(COMPOSE)
        services = {name: Service(name, spec, secrets) for name, spec in document["services"].items()}
        return cls(document, services)

    def of_image(self, image: Image) -> list[Service]:
        return [service for service in self.services.values() if service.image == image]

    def named(self, host: str) -> list[Service]:
        """Whom a name leads to."""
        return [service for service in self.services.values() if host in service.names]
