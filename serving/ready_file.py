"""The file that tells whoever started a process where it listens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from registry.errors import InvalidInput


def check_ready_file(path: Path) -> None:
    """See early whether the file can be written.

    Raises:
        InvalidInput: it cannot be written where it shall be.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        problem = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        problem = f"{folder} cannot be written to"
    elif path.is_dir():
        problem = "it is a folder"
    else:
        return
    raise InvalidInput(
        f"the ready file {path} cannot be written: {problem}",
        remedy="Name a file in a folder that exists and can be written to.",
    )


def write_ready_file(path: Path, lines: Sequence[str]) -> None:
    """Write the file, whole or not at all: whoever waits for it may read as soon as it is there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text("".join(f"{line}\n" for line in lines))
    beside.replace(path)
