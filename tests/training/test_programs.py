from pathlib import Path

import pytest

from registry.errors import InvalidInput, ProgramCorrupt
from registry.model.program import RELEASED_PROGRAMS, program_digest
from registry.model.runtime import Program
from registry.store.local import LocalStore
from training.programs import release
from training.programs.export import build_program
from training.programs.release import build_and_publish


def test_building_again_gives_the_same_bytes_whatever_ran_before(bag: Program, tmp_path: Path) -> None:
    assert bag.featurise(["a TensorFlow that was used"]).tickets == 1
    assert build_program("bag", tmp_path / "again") == bag.digest == RELEASED_PROGRAMS["bag"]


def test_a_digest_is_of_names_and_contents(bag_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in bag_folder.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(bag_folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    assert program_digest(copy) == program_digest(bag_folder)
    (copy / "fingerprint.pb").write_bytes(b"differs between exports")
    assert program_digest(copy) == program_digest(bag_folder)
    (copy / "variables" / "extra").write_bytes(b"")
    assert program_digest(copy) != program_digest(bag_folder)


def test_a_build_needs_a_known_name_and_a_free_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no program 'rag'"):
        build_program("rag", tmp_path / "x")
    with pytest.raises(InvalidInput, match="exists"):
        build_program("bag", tmp_path)


def test_a_build_that_is_not_the_released_one_is_not_published(
    bag_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(name: str, folder: Path, *, wheel: Path | None) -> str:
        assert name == "bag"
        folder.mkdir()
        return "f" * 64

    monkeypatch.setattr(release, "build_program", other)
    store = LocalStore(tmp_path)
    with pytest.raises(ProgramCorrupt, match=r"requirements\.lock"):
        build_and_publish("bag", store)
    assert list(store.list()) == []
