"""Exporting programs: the same module gives the same bytes, hence the same digest, on every machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from registry.errors import InvalidInput
from registry.program import SPEC, ProgramSpec, program_digest


def build_program(name: str, folder: Path) -> str:
    """Export a program to `folder`, which must not exist, and return its digest.

    Raises:
        InvalidInput: no program of that name, or the folder exists.
    """
    if name not in _EXPORTERS:
        raise InvalidInput(f"there is no program {name!r}", remedy=f"Programs: {', '.join(sorted(_EXPORTERS))}.")
    if folder.exists():
        raise InvalidInput(f"{folder} exists", remedy="Name a folder that does not exist yet.")
    # Beside, then renamed: a build that is interrupted leaves no half program under the final name.
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        spec = _EXPORTERS[name](beside)
        (beside / "fingerprint.pb").unlink(missing_ok=True)
        (beside / SPEC).write_bytes(spec.to_bytes())
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return program_digest(folder)


def _export_bag(folder: Path) -> ProgramSpec:
    from training.programs import bag

    return bag.export(folder, bag.BagSettings())


_EXPORTERS: dict[str, Callable[[Path], ProgramSpec]] = {"bag": _export_bag}
