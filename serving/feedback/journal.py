"""The journal of feedback: a server's own files, to which records are added and from which they are shipped. It blocks.

    <disk folder>/feedback/<store>/<writer>/2026-11-03-00000001.journal

`<store>` is a digest of the store's address, so that nothing comes into another store than the one it was given for. Each
server process has a folder of its own, which it holds a lock on while it lives. Files ("segments") are only ever added to;
the newest takes records, the others wait to be shipped, and a file is removed once its records are in the store. A line is
a record's checksum and its JSON, so that what a crash tore is told from a record and left out:

    1f0a2b3c {"tenant":"acme",…}

What a process leaves when it dies is found by whoever starts next to it, or already runs there (`claim_left`): a lock that
nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from registry.errors import FeedbackUnavailable

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"(\d{4}-\d{2}-\d{2})-(\d{8})\.journal")
_WRITER = re.compile(r"[0-9a-f]{16}")
_CHECKSUM = re.compile(rb"[0-9a-f]{8}")
_FULL_RETRY_SECONDS = 30.0
# A segment waits no longer because of the tenants in it: what a disk has that goes with its machine is lost.
LONGEST_SECONDS = 6 * 3600.0
_ATTEMPTS = 8
# In front of a record's JSON.
_HEAD = len(b"1f0a2b3c ")
# Of what all segments may have together, one has an eighth at most, so that others fit beside one that is being shipped.
_LARGEST_SHARE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One file of a journal that takes no more records.

    Attributes:
        path: where it lies.
        writer: whose it is; `number` counts up from 1.
        day: when it was begun.
        begun: the same, in seconds since the epoch.
        size: bytes.
    """

    path: Path
    writer: str
    number: int
    day: str
    begun: float
    size: int

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Where each record's JSON begins, and that JSON, without what was torn or damaged."""
        damaged = begin = 0
        with self.path.open("rb") as file:
            for line in file:
                record = _record_of(line)
                if record is not None:
                    yield begin + _HEAD, record
                elif not line.endswith(b"\n"):
                    _LOG.info("a record that was being written in a crash is left out", extra={"file": str(self.path)})
                else:
                    damaged += 1
                begin += len(line)
        if damaged:
            # Behind what was synced last there may be a hole after a power cut; anything else is the disk's fault.
            _LOG.warning("lines of a journal are no records", extra={"file": str(self.path), "lines": damaged})


@dataclass(slots=True)
class _Current:
    """The segment that takes records, and what of it is known to be whole."""

    descriptor: int
    name: str
    begun: float
    size: int = 0
    tenants: set[str] = field(default_factory=set)


class Journal:
    """One process's journal. A call at a time, from any thread; `sealed`, `remove` and figures also beside one.

    Args:
        root: the folder of all journals of one store on this machine.
        max_bytes: of all segments that wait; more is refused.
        segment_bytes, segment_seconds: size and age at which another segment is begun.
        tenant_seconds: so long is a segment given for each tenant in it, up to `LONGEST_SECONDS`, whatever its size and age,
            since each is an object of the store; but none has more than an eighth of `max_bytes`, where that is more than
            `segment_bytes`.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int,
        segment_bytes: int,
        segment_seconds: float,
        tenant_seconds: float = 0.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._tenant_seconds = tenant_seconds
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._wall = wall
        self._folder: _LockedFolder | None = None
        self._current: _Current | None = None
        self._number = 0
        self._sealed: dict[str, Segment] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that are not shipped yet."""
        current = self._current
        return sum(segment.size for segment in list(self._sealed.values())) + (current.size if current else 0)

    @property
    def fill(self) -> float:
        """The same, as a share of what there may be."""
        return self.nbytes / self._max_bytes

    def oldest(self) -> float | None:
        """When the oldest segment with records was begun, in seconds since the epoch; None where there is none."""
        current = self._current
        begun = [segment.begun for segment in list(self._sealed.values())]
        if current is not None and current.size:
            begun.append(current.begun)
        return min(begun, default=None)

    def append(self, lines: Sequence[bytes], *, sync: bool, tenants: Iterable[str] = ()) -> None:
        """Add records, all or none.

        Args:
            lines: of `line_of`.
            tenants: whose they are.
            sync: return only once they are on the disk.

        Raises:
            FeedbackUnavailable: the journal is at its bound, or the disk refuses; none was added.
        """
        data = b"".join(lines)
        if self.nbytes + len(data) > self._max_bytes:
            raise FeedbackUnavailable(
                f"the journal of feedback has {self.nbytes} bytes that are not shipped yet, and may have {self._max_bytes}",
                retry_after_seconds=_FULL_RETRY_SECONDS,
                remedy="See why the store cannot be written, or raise MACROFLEET_FEEDBACK_BYTES.",
            )
        try:
            current = self._current or self._begin()
            self._write(current, data, sync=sync)
            current.tenants.update(tenants)
        except OSError as problem:
            raise FeedbackUnavailable(
                f"the journal of feedback in {self._root} cannot be written ({problem.strerror})",
                remedy="Make room on its disk, or set MACROFLEET_DISK_FOLDER to another one.",
            ) from problem

    def rotate(self, *, force: bool = False) -> None:
        """Seal the current segment where it is large or old enough, or at once. One without records is removed or stays."""
        current = self._current
        if current is None or not current.size:
            return
        # A clock that was set back must not keep records here until it has caught up.
        age = abs(self._wall() - current.begun)
        least = min(len(current.tenants) * self._tenant_seconds, LONGEST_SECONDS)
        due = age >= least and (age >= self._segment_seconds or current.size >= self._segment_bytes)
        if force or due or current.size >= max(self._segment_bytes, self._max_bytes // _LARGEST_SHARE):
            self._seal(current)

    def sealed(self) -> list[Segment]:
        """What may be shipped, oldest first."""
        return sorted(self._sealed.values(), key=lambda segment: segment.number)

    def remove(self, segment: Segment) -> None:
        """Forget a segment whose records are in the store."""
        segment.path.unlink(missing_ok=True)
        self._sealed.pop(segment.path.name, None)

    def close(self) -> None:
        """Seal what there is; a folder with nothing in it goes, and another one is taken over at the next start."""
        if self._current is not None:
            self._seal(self._current)
        if self._folder is not None:
            self._folder.leave()
            self._folder = None

    def _begin(self) -> _Current:
        if self._folder is None:
            self._folder = _LockedFolder.make(self._root)
        self._number += 1
        now = self._wall()
        name = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}-{self._number:08d}.journal"
        descriptor = os.open(
            self._folder.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            self._folder.sync()
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(self._folder.path / name)
            raise
        self._current = _Current(descriptor, name, now)
        return self._current

    def _write(self, current: _Current, data: bytes, *, sync: bool) -> None:
        try:
            written = 0
            while written < len(data):
                written += os.write(current.descriptor, data[written:])
        except OSError:
            self._undo(current, again=True)
            raise
        if sync:
            try:
                os.fdatasync(current.descriptor)
            except OSError:
                # What the kernel could not write it may take for written from now on: this file gets no more records.
                self._undo(current, again=False)
                raise
        current.size += len(data)

    def _undo(self, current: _Current, *, again: bool) -> None:
        """Take back what was written of records that are refused."""
        try:
            os.ftruncate(current.descriptor, current.size)
        except OSError:
            again = False
        if not again:
            self._seal(current)

    def _seal(self, current: _Current) -> None:
        assert self._folder is not None
        self._current = None
        with contextlib.suppress(OSError):
            os.close(current.descriptor)
        segment = _segment(self._folder.path / current.name, current.begun)
        if segment is None:
            return
        if segment.size:
            self._sealed[current.name] = segment
        else:
            segment.path.unlink(missing_ok=True)


@dataclass(slots=True)
class LeftJournal:
    """What a process that is no more has left. Nobody else takes it while this holds it.

    Attributes:
        segments: all of its files, oldest first.
    """

    _folder: _LockedFolder
    segments: list[Segment] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes that are not shipped yet."""
        return sum(segment.size for segment in list(self.segments))

    def remove(self, segment: Segment) -> None:
        """Forget a segment whose records are in the store."""
        segment.path.unlink(missing_ok=True)
        self.segments.remove(segment)

    def close(self) -> None:
        """Let go of it; the folder goes where nothing is left in it."""
        self._folder.leave()


def journals_folder(disk_folder: Path, store_url: str) -> Path:
    """Where the journals of servers of one store are, on a machine."""
    return disk_folder / "feedback" / hashlib.sha256(store_url.encode()).hexdigest()[:16]


def claim_left(root: Path) -> list[LeftJournal]:
    """The journals below a folder whose processes are no more."""
    claimed = []
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return []
    for name in names:
        folder = _LockedFolder.take(root / name) if _WRITER.fullmatch(name) else None
        if folder is not None:
            try:
                found = [_segment(path) for path in sorted(folder.path.iterdir())]
            except OSError:
                folder.leave()  # for another time: what is held here nobody else can take
                continue
            claimed.append(LeftJournal(folder, [segment for segment in found if segment is not None]))
    return claimed


class _LockedFolder:
    """A folder that one process has. The lock is on the folder itself, and ends with the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def make(cls, root: Path) -> _LockedFolder:
        """A new one. Raises OSError."""
        root.mkdir(parents=True, exist_ok=True)
        for _ in range(_ATTEMPTS):
            path = root / secrets.token_hex(8)
            path.mkdir(mode=0o700)
            taken = cls.take(path)  # else somebody took it for left at that very moment
            if taken is not None:
                try:
                    for folder in (root, root.parent, root.parent.parent):
                        _sync_folder(folder)
                except OSError:
                    taken.leave()  # or every attempt would keep a descriptor: of a process that has none left, perhaps
                    raise
                return taken
        raise OSError(0, "folders are taken away as they are made")

    @classmethod
    def take(cls, path: Path) -> _LockedFolder | None:
        """An existing one, unless somebody has it."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return cls(path, descriptor)
        except OSError:
            pass
        os.close(descriptor)
        return None

    def sync(self) -> None:
        """Have its files' names on the disk."""
        os.fsync(self._descriptor)

    def leave(self) -> None:
        with contextlib.suppress(OSError):
            self.path.rmdir()  # while it is held; not where something is in it
        os.close(self._descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _segment(path: Path, begun: float | None = None) -> Segment | None:
    """A file of a journal; None where it is something else, or gone."""
    named = _NAME.fullmatch(path.name)
    if named is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return Segment(
        path=path,
        writer=path.parent.name,
        number=int(named[2]),
        day=named[1],
        begun=status.st_mtime if begun is None else begun,
        size=status.st_size,
    )


def line_of(record: bytes) -> bytes:
    """A record's line in a journal.

    Args:
        record: JSON, without line ends.
    """
    return b"%08x %s\n" % (zlib.crc32(record), record)


def _record_of(line: bytes) -> bytes | None:
    checksum, space, record = line[:8], line[8:9], line[9:-1]
    if space != b" " or line[-1:] != b"\n" or not _CHECKSUM.fullmatch(checksum):
        return None
    return record if int(checksum, 16) == zlib.crc32(record) else None
