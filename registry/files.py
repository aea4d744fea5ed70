"""Local files and immutable objects: digests, reads whose failure means something, durable writes."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, StringConstraints

from registry.documents import Document, sha256
from registry.errors import (
    MacrofleetError,
    ObjectNotFound,
    OutOfResources,
    PreconditionFailed,
    PublishConflict,
    StoreError,
)
from registry.store import ObjectStore
from registry.store.port import LOST_RACE

# Far above any model (7-15 MB) or program we make; what claims to be larger is refused before it is downloaded.
MAX_FILE_BYTES = 512 * 1024 * 1024
_CHUNK = 256 * 1024
_PUT_ATTEMPTS = 3
# What a disk says that has no room.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_SUCH_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ContentDigest(Document):
    """A content's digest and length in bytes, however long it is."""

    sha256: Digest
    size: Annotated[int, Field(ge=0)]


class FileDigest(ContentDigest):
    """Content and length of one file of a bundle or program."""

    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


class FileState(NamedTuple):
    """What tells that a file is still the one that was verified: size, inode and time of the last change."""

    size: int
    inode: int
    mtime_ns: int


def file_state(status: os.stat_result) -> FileState:
    """The state of a file, of its `stat`."""
    return FileState(status.st_size, status.st_ino, status.st_mtime_ns)


def read_failure(path: Path, problem: OSError, *, missing: type[MacrofleetError]) -> MacrofleetError:
    """What a failed read of a local file means.

    Returns:
        `missing` where the file is not there or is no file: the copy is bad, another one helps. Otherwise a StoreError:
        the process has no descriptors left, the disk fails, permissions are wrong; throwing the copy away would not help.
    """
    if problem.errno in _NO_SUCH_FILE:
        return missing(f"{path} cannot be opened ({problem.strerror})")
    return StoreError(
        f"cannot read {path}: {problem.strerror}",
        remedy="Check the disk, its permissions, and the limits on open files and mappings.",
    )


def read_whole(path: Path, limit: int, *, error: type[MacrofleetError]) -> bytes:
    """A small local file whole.

    Raises:
        error: it is not there, or larger than `limit` bytes.
        StoreError: it is there and cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Not a buffer of `limit` bytes for a file of a few thousand.
            data = os.read(descriptor, min(os.fstat(descriptor).st_size, limit) + 1)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise read_failure(path, problem, missing=error) from None
    if len(data) > limit:
        raise error(f"{path} is larger than {limit} bytes")
    return data


def content_digest(path: Path) -> ContentDigest:
    """Content digest and size of a file of any length."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ContentDigest(sha256=digest, size=file.tell())


def file_digest(path: Path) -> FileDigest:
    """Content digest and size of a file of a bundle or program."""
    found = content_digest(path)
    return FileDigest(sha256=found.sha256, size=found.size)


def put_immutable(store: ObjectStore, key: str, data: bytes) -> bool:
    """Write an object that never changes. Finding the same content there is success: one's own retry, or a rerun.

    Returns:
        Whether it was written; False where it was found.

    Raises:
        PublishConflict: other content is there.
        PreconditionFailed: something is there, and gone when it is looked at, again and again.
    """
    expected = ContentDigest(sha256=sha256(data), size=len(data))
    return _put_immutable(store, key, lambda: store.put(key, data, if_absent=True), lambda: expected)


def put_immutable_file(store: ObjectStore, key: str, path: Path) -> bool:
    """Like `put_immutable`, from a file."""
    return _put_immutable(store, key, lambda: store.put_file(key, path, if_absent=True), lambda: content_digest(path))


def _put_immutable(
    store: ObjectStore, key: str, put: Callable[[], object], expected: Callable[[], ContentDigest]
) -> bool:
    for _ in range(_PUT_ATTEMPTS):
        try:
            put()
            return True
        except PreconditionFailed:
            # Gone when it is looked at: whoever removed it has made the place free again.
            with suppress(ObjectNotFound):
                if holds(store, key, expected()):
                    return False
                raise PublishConflict(
                    f"{store.url}/{key} exists with other content",
                    remedy="Published objects never change: find out who wrote it, remove it, and publish again.",
                ) from None
    raise PreconditionFailed(f"{store.url}/{key} is written and removed by others all the time", remedy=LOST_RACE)


def holds(store: ObjectStore, key: str, expected: ContentDigest) -> bool:
    """Whether an object has a content; no more of it is read than that is long. Raises ObjectNotFound."""
    hasher = hashlib.sha256()
    left = expected.size
    with store.open(key) as stream:
        while left >= 0 and (chunk := stream.read(_CHUNK)):
            hasher.update(chunk)
            left -= len(chunk)
    return hasher.hexdigest() == expected.sha256


def download(
    store: ObjectStore, key: str, path: Path, expected: ContentDigest, *, error: type[MacrofleetError]
) -> None:
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


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder for the length of the context.

    Raises:
        OutOfResources: its disk is full.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=prefix) as folder:
            yield Path(folder)
    except OSError as problem:
        if problem.errno not in FULL:
            raise
        raise OutOfResources(
            f"there is no space left in {tempfile.gettempdir()}, where a model is put together",
            remedy="Free some there, or set TMPDIR to a folder that has more, then run it again.",
        ) from problem


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and sync it to disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
