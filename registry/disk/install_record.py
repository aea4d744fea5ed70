"""The install record: the promise that a model's files are on disk to stay, and were verified as they are now.

It is written last, when everything that it speaks of was synced. A crash before that leaves a folder without one, or
with one that cannot be read: that is no error, its files are hashed again when they are next used.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from registry.documents import Document
from registry.errors import BundleCorrupt, StoreError
from registry.files import MAX_FILE_BYTES, Digest, FileState, read_whole, sync_file, sync_folder, write_durably

RECORD = "installed.json"
_MAX_BYTES = 64 * 1024


class _InstalledFile(Document):
    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]
    inode: int
    mtime_ns: int


class _Record(Document):
    manifest: Digest
    files: dict[str, _InstalledFile]


def read_record(folder: Path, manifest_digest: str) -> dict[str, FileState] | None:
    """The states that a folder's files had when they were verified; None where nothing says so that can be relied on."""
    try:
        data = read_whole(folder / RECORD, _MAX_BYTES, error=BundleCorrupt)
        record = _Record.parse(data, what=RECORD, error=BundleCorrupt)
    except (BundleCorrupt, StoreError):
        return None
    if record.manifest != manifest_digest:
        return None
    return {name: FileState(file.size, file.inode, file.mtime_ns) for name, file in record.files.items()}


def sync_model(folder: Path, names: Iterable[str], *, root: Path) -> None:
    """Make a model's files durable, and the names of all folders from `root` down to it. Raises OSError."""
    for name in names:
        sync_file(folder / name)
    sync_folder(folder)
    for parent in folder.parents:
        sync_folder(parent)
        if parent == root:
            return


def write_record(folder: Path, manifest_digest: str, files: Mapping[str, FileState], *, waiting: Path) -> None:
    """Write a folder's record durably; its files must be already. Raises OSError.

    Args:
        files: the states that were verified.
        waiting: an existing folder of the same file system, for the file while it is written.
    """
    record = _Record(
        manifest=manifest_digest,
        files={
            name: _InstalledFile(size=state.size, inode=state.inode, mtime_ns=state.mtime_ns)
            for name, state in files.items()
        },
    )
    with tempfile.TemporaryDirectory(dir=waiting) as beside:
        write_durably(Path(beside) / RECORD, record.to_bytes())
        os.replace(Path(beside) / RECORD, folder / RECORD)
    with contextlib.suppress(OSError):  # without it the record may be lost in a crash, which costs a hash
        sync_folder(folder)
