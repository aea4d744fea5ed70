"""A disk without room: a small file system of its own where one may be mounted, else one that says so when it is written to."""

from __future__ import annotations

import builtins
import errno
import io
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_SIZE = "64k"


@contextmanager
def full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`folder` takes 64 KiB and no more within the context. It is emptied before and after."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode == 0:
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
        return
    # Not permitted here (a container without the right): the operating system's answer is put in its place.
    with monkeypatch.context() as patched:
        real = io.open

        def refusing(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if not isinstance(file, int) and folder in Path(file).parents and set(mode) & set("wax+"):
                raise OSError(errno.ENOSPC, "No space left on device", str(file))
            return real(file, mode, *arguments, **options)

        patched.setattr(io, "open", refusing)
        patched.setattr(builtins, "open", refusing)
        yield
