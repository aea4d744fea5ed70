"""The object store as a folder: for one machine, tests and the demo. Same layout, same conditions as S3."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from registry.errors import InvalidInput, ObjectNotFound, PreconditionFailed, StoreUnavailable
from registry.store.port import (
    LOST_RACE,
    URL_REMEDY,
    ObjectInfo,
    ObjectState,
    StoredObject,
    check_folder,
    check_key,
    is_key,
    too_large,
)

_TEMPORARY = ".tmp"
_LOCKS = ".locks"
# The name of a temporary file begins with that much of its object's key, so that one knows whose it is.
_NAMED = 180
_STRIPES = 64
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_CHUNK = 1 << 20
_ETAG_LENGTH = 32
# No write takes so long; what is older was left by a writer that crashed.
_LEFTOVER_SECONDS = 24 * 3600


class LocalStore:
    """A folder that keeps the `ObjectStore` contract among threads and processes of one machine.

    An object is a file that is never changed: a write goes to a file beside, is synced and takes the name over.
    What a folder cannot hold and S3 can: an object `a` next to an object `a/b`; the second one is refused.

    Args:
        root: the folder; made on the first write. A symbolic link to it is followed, links inside it are refused.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._etags = _Etags()
        self._swept = False

    @property
    def url(self) -> str:
        """`file:///…`, as `open_store` takes it."""
        return self._root.as_uri()

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        """See `ObjectStore.get`."""
        with self.open(key) as file:
            found = os.fstat(file.fileno())
            if max_bytes is not None and found.st_size > max_bytes:
                raise too_large(key, self.url, found.st_size, max_bytes)
            with self._reading(key):
                data = file.read()
        return StoredObject(data=data, etag=_etag(data), modified=found.st_mtime)

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        """See `ObjectStore.get_if_changed`."""
        if etag is not None and self.head(key).etag == etag:
            return None
        stored = self.get(key, max_bytes=max_bytes)
        return None if stored.etag == etag else stored

    def open(self, key: str) -> IO[bytes]:
        """See `ObjectStore.open`."""
        path = self._path(key)
        with self._reading(key):
            return path.open("rb")

    def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""
        return self._info(key, self._path(key))

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        """See `ObjectStore.put`."""

        def write(file: IO[bytes]) -> str:
            file.write(data)
            return _etag(data)

        return self._write(key, write, if_match=if_match, if_absent=if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> str:
        """See `ObjectStore.put_file`. Raises OSError if `path` cannot be read."""

        def write(file: IO[bytes]) -> str:
            digest = hashlib.sha256()
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            return digest.hexdigest()[:_ETAG_LENGTH]

        with path.open("rb") as source:
            return self._write(key, write, if_match=None, if_absent=if_absent)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        return self._list(self._below(prefix))

    def names(self, prefix: str = "") -> Sequence[str]:
        """See `ObjectStore.names`. Nothing is read but folders."""
        folder = self._path(check_folder(prefix)[:-1]) if prefix else self._root
        # A folder that is being made or emptied has no object yet, or none any more.
        return sorted(
            name.rstrip("/")
            for name in self._entries(folder, prefix)
            if not name.endswith("/") or any(True for _ in self._walk(folder / name, prefix + name))
        )

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`. Folders that this empties go too."""
        path = self._path(key)
        with self._storing(key), self._locked(key), suppress(*_ABSENT):
            path.unlink()
        self._prune(path)

    def states(self, prefix: str = "") -> Iterator[ObjectState]:
        """See `ObjectStore.states`. Nothing is read: what a listing costs is one look at each file."""
        return self._states(prefix, self._below(prefix))

    def purge(self, states: Iterable[ObjectState]) -> None:
        """See `ObjectStore.purge`. Exact: what was written since stays."""
        for state in states:
            if state.kind == "unfinished":
                with self._storing(state.key), suppress(*_ABSENT):
                    (self._root / _TEMPORARY / state.id).unlink()
                continue
            # Also what others have put there, under a name that is no key.
            path = self._path(state.key, check=_below_root)
            with self._storing(state.key), self._locked(state.key), suppress(*_ABSENT):
                if _identity(path.stat()) == state.id:
                    path.unlink()
            self._prune(path)

    def _prune(self, path: Path) -> None:
        for folder in path.parents:
            if folder == self._root:
                return
            try:
                folder.rmdir()
            except OSError:
                return  # in use again, or already gone

    def _path(self, key: str, *, check: Callable[[str], str] = check_key) -> Path:
        path = self._root / check(key)
        if os.path.realpath(path) != str(path):
            raise InvalidInput(
                f"{key} in {self.url} passes a symbolic link", remedy="Put what it points to in its place."
            )
        return path

    def _info(self, key: str, path: Path) -> ObjectInfo:
        with self._reading(key), path.open("rb") as file:
            return ObjectInfo(key=key, size=os.fstat(file.fileno()).st_size, etag=self._etags.of(path, file))

    def _write(self, key: str, write: Callable[[IO[bytes]], str], *, if_match: str | None, if_absent: bool) -> str:
        if if_match is not None and if_absent:
            raise InvalidInput("if_match and if_absent exclude each other")
        path = self._path(key)
        with self._storing(key):
            (self._root / _TEMPORARY).mkdir(parents=True, exist_ok=True)
            self._sweep()
            temporary = self._root / _TEMPORARY / f"{key.replace('/', '+')[:_NAMED]}+{uuid.uuid4().hex}"
            try:
                with temporary.open("xb") as file:
                    etag = write(file)
                    file.flush()
                    os.fsync(file.fileno())
                with self._locked(key):
                    self._check(key, path, if_match=if_match, if_absent=if_absent)
                    self._take_over(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        return etag

    def _sweep(self) -> None:
        """Remove what crashed writers left behind, once for each store that is opened and written to."""
        if self._swept:
            return
        self._swept = True
        oldest = time.time() - _LEFTOVER_SECONDS
        with os.scandir(self._root / _TEMPORARY) as leftovers:
            for leftover in leftovers:
                with suppress(OSError):  # taken over, or swept by another process
                    if leftover.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(leftover.path)

    def _check(self, key: str, path: Path, *, if_match: str | None, if_absent: bool) -> None:
        if if_absent and path.is_file():
            raise PreconditionFailed(f"{key} in {self.url} exists", remedy=LOST_RACE)
        if if_match is not None:
            try:
                current = self._info(key, path).etag
            except ObjectNotFound as error:
                raise PreconditionFailed(f"{key} in {self.url} does not exist", remedy=LOST_RACE) from error
            if current != if_match:
                raise PreconditionFailed(f"{key} in {self.url} was changed by another writer", remedy=LOST_RACE)

    def _take_over(self, temporary: Path, path: Path) -> None:
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(path)
                break
            except (*_ABSENT, FileExistsError) as error:
                if not temporary.exists():
                    raise StoreUnavailable(
                        f"{temporary} was removed while it was written",
                        remedy="Keep other programs away from the store's folder, then try again.",
                    ) from error
                if path.is_dir() or any(map(_is_no_folder, path.parents)):
                    raise InvalidInput(
                        f"{path.relative_to(self._root)} in {self.url} cannot be both an object and a folder",
                        remedy="A local store cannot hold an object below another one: choose another key.",
                    ) from error
                # a delete pruned the folder while it was made or filled: make it again
        with suppress(FileNotFoundError):
            _sync_folder(path.parent)

    def _list(self, objects: Iterator[tuple[str, Path]]) -> Iterator[ObjectInfo]:
        for key, path in objects:
            if not is_key(key):
                continue
            try:
                info = self._info(key, path)
            except ObjectNotFound:
                continue  # deleted meanwhile
            yield info

    def _states(self, prefix: str, objects: Iterator[tuple[str, Path]]) -> Iterator[ObjectState]:
        for key, path in objects:
            try:
                with self._reading(key):
                    found = path.stat()
            except ObjectNotFound:
                continue  # deleted meanwhile
            yield ObjectState(key=key, kind="current", size=found.st_size, modified=found.st_mtime, id=_identity(found))
        with self._storing(_TEMPORARY):
            yield from self._unfinished(prefix)

    def _unfinished(self, prefix: str) -> Sequence[ObjectState]:
        states = []
        with suppress(*_ABSENT), os.scandir(self._root / _TEMPORARY) as scan:
            for entry in scan:
                key = entry.name.rpartition("+")[0].replace("+", "/")
                with suppress(FileNotFoundError):  # it has taken its place
                    found = entry.stat(follow_symlinks=False)
                    states.append(
                        ObjectState(
                            key=key, kind="unfinished", size=found.st_size, modified=found.st_mtime, id=entry.name
                        )
                    )
        return [state for state in states if state.key.startswith(prefix[:_NAMED])]

    def _below(self, prefix: str) -> Iterator[tuple[str, Path]]:
        """Keys that start with `prefix`, and their files."""
        if prefix:
            check_key(f"{prefix}0")
        folder, _, start = prefix.rpartition("/")
        return self._walk(self._path(folder) if folder else self._root, f"{folder}/" if folder else "", start)

    def _walk(self, folder: Path, base: str, start: str = "") -> Iterator[tuple[str, Path]]:
        for name in self._entries(folder, base, start):
            if name.endswith("/"):
                yield from self._walk(folder / name, base + name)
            else:
                yield base + name, folder / name

    def _entries(self, folder: Path, base: str, start: str = "") -> Sequence[str]:
        """What is in a folder: names of objects, and of folders with a slash behind them."""
        try:
            with self._reading(base), os.scandir(folder) as scan:
                entries = [entry for entry in scan if entry.name.startswith(start) and entry.name[0] != "."]
        except ObjectNotFound:
            return []
        # "/" counts: `a-b` sorts before `a/b`, as in S3.
        return sorted(
            f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
            for entry in entries
            if not entry.is_symlink()
        )

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Alone among the writers of `key` (and of the keys that share its stripe) on this machine."""
        stripe = hashlib.sha256(key.encode()).digest()[0] % _STRIPES
        (self._root / _LOCKS).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._root / _LOCKS / f"{stripe:02x}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        with self._storing(key):
            try:
                yield
            except _ABSENT as error:
                self._check_root()
                raise ObjectNotFound(f"no object {key} in {self.url}") from error

    @contextmanager
    def _storing(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._check_root()
            raise StoreUnavailable(
                f"{self.url} failed at {key}: {error.strerror}",
                remedy="Check the folder's permissions and the free space of its disk.",
            ) from error

    def _check_root(self) -> None:
        """Raises StoreUnavailable when the root is something else than a folder; one that is not there yet may come."""
        for path in (self._root, *self._root.parents):
            if _is_no_folder(path):
                raise StoreUnavailable(f"{self.url} cannot be a store: {path} is not a folder", remedy=URL_REMEDY)


class _Etags:
    """Entity tags of files that are only ever replaced whole; remembers those it had to read a file for."""

    _CAPACITY = 65_536
    # A file system's clock ticks in milliseconds and inodes are used again: a file that took over within the tick
    # could look like the one before it. Whatever is older than this cannot.
    _SETTLED_NS = 2_000_000_000

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int, int, int], str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, path: Path, file: IO[bytes]) -> str:
        found = os.fstat(file.fileno())
        identity = (str(path), found.st_ino, found.st_mtime_ns, found.st_size)
        with self._lock:
            if identity in self._known:
                self._known.move_to_end(identity)
                return self._known[identity]
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        etag = digest.hexdigest()[:_ETAG_LENGTH]
        if time.time_ns() - found.st_mtime_ns > self._SETTLED_NS:
            with self._lock:
                self._known[identity] = etag
                if len(self._known) > self._CAPACITY:
                    self._known.popitem(last=False)
        return etag


def _identity(found: os.stat_result) -> str:
    """What tells a file from another one that takes its name over: files are never changed in place."""
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _below_root(key: str) -> str:
    """Return the key of something that a listing has found, which may be of others. Raises InvalidInput: it leads elsewhere."""
    if not all(part and not part.startswith(".") and "\0" not in part for part in key.split("/")):
        return check_key(key)
    return key


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_ETAG_LENGTH]


def _is_no_folder(path: Path) -> bool:
    """Whether something else is there, asked once: a folder may be pruned at any moment."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
