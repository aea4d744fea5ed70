"""Files on their way to and from the store: digests taken while the bytes pass, immutable objects, durable writes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from registry.documents import Document
from registry.errors import MacrofleetError, PreconditionFailed, PublishConflict
from registry.store import ObjectStore

# Far above any model (7-15 MB) or program we make; what claims to be larger is refused before it is downloaded.
MAX_FILE_BYTES = 512 * 1024 * 1024
_CHUNK = 256 * 1024

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class FileDigest(Document):
    """Content and length of one file of a bundle or program."""

    sha256: Digest
    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


def file_digest(path: Path) -> FileDigest:
    """Content digest and size of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(sha256=digest, size=file.tell())


def put_immutable(store: ObjectStore, key: str, data: bytes) -> None:
    """Write an object that never changes. Finding the same content there is success: one's own retry, or a rerun.

    Raises:
        PublishConflict: other content is there.
    """
    try:
        store.put(key, data, if_absent=True)
    except PreconditionFailed:
        if store.get(key).data != data:
            raise _conflict(store, key) from None


def put_immutable_file(store: ObjectStore, key: str, path: Path) -> None:
    """Like `put_immutable`, from a file."""
    try:
        store.put_file(key, path, if_absent=True)
    except PreconditionFailed:
        expected = file_digest(path)
        hasher = hashlib.sha256()
        with store.open(key) as stream:
            while chunk := stream.read(_CHUNK):
                hasher.update(chunk)
        if hasher.hexdigest() != expected.sha256:
            raise _conflict(store, key) from None


def _conflict(store: ObjectStore, key: str) -> PublishConflict:
    return PublishConflict(
        f"{store.url}/{key} exists with other content",
        remedy="Published objects never change: find out who wrote it, remove it, and publish again.",
    )


def download(store: ObjectStore, key: str, path: Path, expected: FileDigest, *, error: type[MacrofleetError]) -> None:
    """Copy an object to a new file, checking length and digest while the bytes pass, and sync it to disk.

    Raises:
        error: the object is longer or shorter than expected, or has another digest. The file is left for the caller's
            temporary folder to take away.
    """
    hasher = hashlib.sha256()
    received = 0
    with store.open(key) as stream, path.open("xb") as file:
        while chunk := stream.read(_CHUNK):
            received += len(chunk)
            if received > expected.size:
                break
            hasher.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if received != expected.size or hasher.hexdigest() != expected.sha256:
        raise error(
            f"{store.url}/{key} is not what its manifest says: {received} bytes of {expected.size}, or other content"
        )


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and sync it to disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
