"""How a folder gets its name, or loses it: by one rename, whole, with everything in place before and nothing changed after.

What is not in place yet, or any more, lies below `incoming/`, on the same file system.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from registry.disk.space import folders
from registry.errors import BundleCorrupt, ProgramCorrupt, StoreError
from registry.files import FULL

_LEFTOVER_SECONDS = 24 * 3600
# More than one only matters where another process keeps finding and replacing a bad copy at the same time.
_INSTALL_ATTEMPTS = 3

Found = TypeVar("Found")


class DiskFull(StoreError):
    """There is no space left on the tier's disk."""


class Placing:
    """The folder of what is not in place. Safe to use from several threads and processes.

    Args:
        folder: the disk tier's; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._swept = False

    @contextlib.contextmanager
    def beside(self) -> Iterator[Path]:
        """A temporary folder on the tier's file system. Raises StoreError for what the disk refuses meanwhile."""
        with self._writing():
            beside = Path(tempfile.mkdtemp(dir=self.waiting()))
            try:
                yield beside
            finally:
                shutil.rmtree(beside, ignore_errors=True)

    def take_away(self, folder: Path) -> Callable[[], object] | None:
        """Have a folder lose its name at once.

        Returns:
            What removes its bytes; None where another process was quicker.

        Raises:
            StoreError: it cannot be moved.
        """
        with self._writing():
            beside = Path(tempfile.mkdtemp(dir=self.waiting()))
            try:
                folder.rename(beside / "evicted")
            except OSError as problem:
                beside.rmdir()
                if isinstance(problem, FileNotFoundError):
                    return None
                raise
        return lambda: shutil.rmtree(beside, ignore_errors=True)

    def set_aside(self, folder: Path) -> None:
        """Remove a copy that is bad. Raises StoreError."""
        # Gone already: another process has set it aside.
        with self.beside() as beside, contextlib.suppress(FileNotFoundError):
            folder.rename(beside / "bad")

    def waiting(self) -> Path:
        """The folder of what is not in place yet, made and swept."""
        waiting = self._folder / "incoming"
        waiting.mkdir(parents=True, exist_ok=True)
        self.sweep()
        return waiting

    def sweep(self, *, again: bool = False) -> None:
        """Once a process, or `again`: remove what a process that was killed a day ago or more left unfinished."""
        if self._swept and not again:
            return
        self._swept = True
        waiting = self._folder / "incoming"
        oldest = time.time() - _LEFTOVER_SECONDS
        for left in folders(waiting):
            with contextlib.suppress(FileNotFoundError):
                if (waiting / left).stat().st_mtime < oldest:
                    shutil.rmtree(waiting / left, ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise (DiskFull if problem.errno in FULL else StoreError)(
                f"cannot write below {self._folder}: {problem.strerror}",
                remedy="Check free space and permissions of the disk tier.",
            ) from problem


def have(
    folder: Path,
    check: Callable[[], Found],
    install: Callable[[], object],
    set_aside: Callable[[Path], object],
) -> Found:
    """What `check` makes of a folder, which is installed unless it is there and passes; a bad one is set aside.

    What another process put there in the meantime is checked like one's own; only a folder that was seen to be
    bad is removed, so two processes do not take each other's work away.
    """
    for _ in range(_INSTALL_ATTEMPTS):
        if os.path.isdir(folder):  # the method of Path raises where a parent may not be searched
            try:
                return check()
            except (BundleCorrupt, ProgramCorrupt):
                set_aside(folder)
        install()
    return check()


def put_in_place(beside: Path, folder: Path) -> bool:
    """Give a whole folder its name; False where another process was quicker, whose copy was verified as this one was."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        beside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        return False
    return True
