from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import calibrations
from benchmarks.calibrations import FILE_BYTES


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrations.make_file(tmp_path_factory.mktemp("calibration") / "model")


def test_its_file_has_the_size_of_a_model_and_is_the_same_each_time(file: Path, tmp_path: Path) -> None:
    again = calibrations.make_file(tmp_path / "again")
    assert again.stat().st_size == FILE_BYTES
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("fetched", [False, True])
def test_what_is_copied_or_fetched_is_all_there(file: Path, tmp_path: Path, fetched: bool) -> None:
    made = calibrations.fetch(file.as_uri(), tmp_path) if fetched else calibrations.copy(file, tmp_path)
    made.sample()
    (target,) = tmp_path.iterdir()
    assert target.read_bytes() == file.read_bytes()


def test_all_can_be_sampled_again_and_again(file: Path, tmp_path: Path) -> None:
    made = [
        calibrations.loop(),
        calibrations.gather(file),
        calibrations.product(),
        calibrations.file_map(file),
        calibrations.digest(file),
        calibrations.sync(tmp_path),
    ]
    for calibration in made:
        assert calibration.units >= 1
        calibration.sample()
        calibration.sample()
