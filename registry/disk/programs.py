"""Programs on local disk: few, executed, and off the request path; so they are synced before they are used, and hashed at
every start."""

from __future__ import annotations

import os
import re
from pathlib import Path

from registry.disk.placing import Placing, have, put_in_place
from registry.errors import ObjectNotFound, ProgramCorrupt
from registry.files import download, file_digest, read_failure, read_whole, sync_folder, write_durably
from registry.layout import PROGRAM_FILES, program_key
from registry.model.program import check_trusted, parse_program_files
from registry.store import ObjectStore

_MAX_FILE_LIST_BYTES = 1024 * 1024
_PROGRAM = re.compile(r"[0-9a-f]{64}")


def install_program(digest: str, *, root: Path, store: ObjectStore, trusted: frozenset[str], placing: Placing) -> Path:
    """Have a program on disk, verified, and return its folder.

    Args:
        root: the disk tier's folder.

    Raises:
        ProgramUntrusted: its digest is not trusted; nothing is downloaded.
        ProgramCorrupt: the store has no such program, or another one under its name.
        StoreError: the store fails, or the tier cannot be read or written.
    """
    check_trusted(digest, trusted)
    if not _PROGRAM.fullmatch(digest):
        raise ProgramCorrupt(
            f"{digest[:80]!r} is not the digest of a program (64 hex digits)",
            remedy="Correct MACROFLEET_TRUSTED_PROGRAMS.",
        )
    folder = root / "programs" / digest
    have(
        folder,
        lambda: _check_program(folder, digest),
        lambda: _download_program(folder, digest, store, placing),
        placing.set_aside,
    )
    return folder


def _download_program(folder: Path, digest: str, store: ObjectStore, placing: Placing) -> None:
    key = program_key(digest, PROGRAM_FILES)
    with placing.beside() as beside:
        try:
            data = store.get(key, max_bytes=_MAX_FILE_LIST_BYTES).data
            listing = parse_program_files(data, digest=digest, what=f"{store.url}/{key}")
            for name, expected in listing.files.items():
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                download(store, program_key(digest, name), beside / name, expected, error=ProgramCorrupt)
        except ObjectNotFound as problem:
            raise ProgramCorrupt(
                f"program {digest[:16]}… is not in {store.url}: {problem}",
                remedy="Publish it with `macrofleet programs build`.",
            ) from None
        write_durably(beside / PROGRAM_FILES, data)
        for inside, _, _ in os.walk(beside):
            sync_folder(Path(inside))
        put_in_place(beside, folder)
        sync_folder(folder.parent)


def _check_program(folder: Path, digest: str) -> None:
    data = read_whole(folder / PROGRAM_FILES, _MAX_FILE_LIST_BYTES, error=ProgramCorrupt)
    listing = parse_program_files(data, digest=digest, what=str(folder / PROGRAM_FILES))
    for name, expected in listing.files.items():
        try:
            intact = file_digest(folder / name) == expected
        except OSError as problem:
            raise read_failure(folder / name, problem, missing=ProgramCorrupt) from None
        if not intact:
            raise ProgramCorrupt(f"{folder / name} is not what its program's file list says")
