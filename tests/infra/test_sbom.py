"""The images' bills of materials, held to the locks and to CycloneDX's schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra import sbom
from registry.model.program import RELEASED_PROGRAMS
from tests.infra.images import FLOWS, IMAGES, PROJECT, PYPROJECT, SERVING, Image, entries, pins
from training.minilm import DIGESTS, REQUIREMENT, TENSORS

each_image = pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
# Built into the images beside packages.
MODELS = {f"program-{name}" for name in RELEASED_PROGRAMS} | {f"pkg:pypi/{REQUIREMENT.replace('==', '@')}"}


def text_of(image: Image) -> str:
    return JsonV1Dot6(sbom.make_bom(image.name, image.lock)).output_as_string(indent=2)


@pytest.fixture(scope="module")
def boms() -> dict[str, Any]:
    return {image.name: json.loads(text_of(image)) for image in IMAGES}


def libraries(bom: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in bom["components"] if each["type"] == "library"}


def test_there_is_one_for_each_image() -> None:
    assert {image.name: image.lock for image in IMAGES} == sbom.LOCKS


@each_image
def test_it_is_cyclonedx(boms: dict[str, Any], image: Image) -> None:
    assert boms[image.name]["specVersion"] == "1.6"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(boms[image.name])) is None


def test_the_validator_refuses_what_is_none(boms: dict[str, Any]) -> None:
    wrong = {**boms[SERVING.name], "components": [{"type": "librarry", "name": "x"}]}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(wrong)) is not None


@each_image
def test_packages_are_those_of_the_lock(boms: dict[str, Any], image: Image) -> None:
    found = libraries(boms[image.name])
    python = sbom.ENVIRONMENT["python_full_version"]
    assert {name: each["version"] for name, each in found.items()} == pins(image.lock, python)
    assert all(each["purl"] == f"pkg:pypi/{name}@{each['version']}" for name, each in found.items())


@each_image
def test_packages_are_of_versions_in_the_lock_of_everything(boms: dict[str, Any], image: Image) -> None:
    everything = pins(PROJECT / "requirements.lock", sbom.ENVIRONMENT["python_full_version"])
    everything["tensorflow-cpu"] = everything["tensorflow"]
    for name, each in libraries(boms[image.name]).items():
        assert everything.get(name) == each["version"], name


@each_image
def test_every_hash_of_the_lock_is_there(boms: dict[str, Any], image: Image) -> None:
    python = sbom.ENVIRONMENT["python_full_version"]
    versions = pins(image.lock, python)
    for requirement, options in entries(image.lock):
        name = canonicalize_name(requirement.name)
        if str(requirement.specifier) == f"=={versions.get(name)}":
            hashes = {each["content"] for each in libraries(boms[image.name])[name]["hashes"]}
            assert hashes == {option.removeprefix("--hash=sha256:") for option in options}, name


@each_image
def test_dependencies_lead_from_the_image_to_everything(boms: dict[str, Any], image: Image) -> None:
    needs = {each["ref"]: each.get("dependsOn", []) for each in boms[image.name]["dependencies"]}
    reached, waiting = set(), [image.name]
    while waiting:
        for ref in needs[waiting.pop()]:
            if ref not in reached:
                reached.add(ref)
                waiting.append(ref)
    assert reached == {each["bom-ref"] for each in boms[image.name]["components"]}


def test_the_image_asks_for_what_the_project_asks_for(boms: dict[str, Any]) -> None:
    project = PYPROJECT["project"]
    wanted = {canonicalize_name(Requirement(each).name) for each in project["dependencies"]}
    wanted |= {canonicalize_name(Requirement(each).name) for each in project["optional-dependencies"]["serving"]}
    (root,) = [each for each in boms[SERVING.name]["dependencies"] if each["ref"] == SERVING.name]
    asked = {re.sub(r"^pkg:pypi/(.*)@.*$", r"\1", ref) for ref in root["dependsOn"] if ref not in MODELS}
    assert asked == wanted - {"tensorflow"} | {"tensorflow-cpu"}


@each_image
def test_programs_and_weights_are_what_is_released(boms: dict[str, Any], image: Image) -> None:
    models = {
        each["bom-ref"]: each for each in boms[image.name]["components"] if each["type"] == "machine-learning-model"
    }
    assert set(models) == MODELS
    for name, digest in RELEASED_PROGRAMS.items():
        assert [each["content"] for each in models[f"program-{name}"]["hashes"]] == [digest]
    (weights,) = [each for ref, each in models.items() if ref.startswith("pkg:")]
    assert [each["content"] for each in weights["hashes"]] == [DIGESTS[TENSORS]]


@each_image
def test_nearly_every_package_says_its_licence(boms: dict[str, Any], image: Image) -> None:
    silent = {name for name, each in libraries(boms[image.name]).items() if not each.get("licenses")}
    # Some say nothing in their metadata, and some are of another version here than under the image's Python.
    assert len(silent) < 0.1 * len(libraries(boms[image.name])), silent


def test_the_same_locks_give_the_same_file() -> None:
    assert text_of(SERVING) == text_of(SERVING)


def test_other_packages_give_another_serial_number(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    text = FLOWS.lock.read_text()
    (version,) = re.findall(r"^flask-wtf==(\S+)", text, re.MULTILINE)
    lock.write_text(text.replace(f"flask-wtf=={version}", "flask-wtf==0.0.1"))
    before, after = sbom.make_bom(FLOWS.name, FLOWS.lock), sbom.make_bom(FLOWS.name, lock)
    assert before.serial_number != after.serial_number


def test_what_is_no_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("# nothing\n")
    with pytest.raises(ValueError, match="has no entry"):
        sbom.read_lock(tmp_path / "lock")
