"""A backup's list of objects: written and read line by line, so that no store is too large to be backed up.

Lines of JSON under gzip: what the backup is, then an object a line, in the order of their keys. The list before this form (format
1) was one document, which is still read, whole.
"""

from __future__ import annotations

import gzip
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, cast

from pydantic import Field

from registry.backup.documents import NAME, BackedUp, backup_key
from registry.documents import Document, canonical_json
from registry.errors import BackupCorrupt, InvalidInput, ObjectNotFound
from registry.files import ContentDigest, put_immutable_file, scratch_folder
from registry.store import ObjectStore

# A line is a key, a digest, a length and an entity tag; what the backup is, is no more.
_MAX_LINE = 64 * 1024
_MAX_WHOLE = 2 * 1024**3
_LEVEL = 6


class Heading(Document):
    """What a backup is.

    Attributes:
        name: when it was begun, in UTC.
        source: the store's URL.
        generation: of the fleet that it has.
        objects: how many; `bytes`: of their contents, each counted as often as it is there.
        databases: `keys.json`, the API keys, and `mlflow.db`, where MLflow's records are a file of SQLite.
    """

    format: Annotated[int, Field(ge=2, le=2)] = 2
    name: Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
    source: str
    generation: Annotated[int, Field(ge=0)]
    objects: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    databases: dict[str, ContentDigest] = Field(default_factory=dict)


class _Line(BackedUp):
    """One object of the list."""

    key: str


class _Whole(Document):
    """The list as format 1 has it."""

    format: Annotated[int, Field(ge=1, le=1)] = 1
    name: Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
    source: str
    generation: Annotated[int, Field(ge=0)]
    objects: dict[str, BackedUp]
    databases: dict[str, ContentDigest] = Field(default_factory=dict)

    def heading(self) -> Heading:
        return Heading(
            name=self.name,
            source=self.source,
            generation=self.generation,
            objects=len(self.objects),
            bytes=sum(one.content.size for one in self.objects.values()),
            databases=self.databases,
        )


class Backup:
    """One backup, of which the list is at hand. Made by `opened_backup`.

    Attributes:
        heading: what it is.
    """

    def __init__(self, heading: Heading, path: Path, *, what: str, whole: Mapping[str, BackedUp] | None) -> None:
        self.heading = heading
        self._path = path
        self._what = what
        self._whole = whole

    def objects(self) -> Iterator[tuple[str, BackedUp]]:
        """Every object by its key, in the order of these, as often as it is asked for.

        Raises:
            BackupCorrupt: the list is damaged; what came before that is right.
        """
        if self._whole is not None:
            yield from sorted(self._whole.items())
            return
        last, count = "", 0
        with _legible(self._what), gzip.open(self._path) as file:
            file.readline(_MAX_LINE)
            while line := file.readline(_MAX_LINE):
                one = _Line.parse(line, what=self._what, error=BackupCorrupt)
                if one.key <= last:
                    raise _damaged(self._what, f"{one.key[:80]!r} after {last[:80]!r}")
                last, count = one.key, count + 1
                yield one.key, one
        if count != self.heading.objects:
            raise _damaged(self._what, f"{count} objects of {self.heading.objects}")


class ListWriter:
    """Writes a list to a folder, as its objects come.

    Attributes:
        objects, bytes: of what was added.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes]
        self.objects = 0
        self.bytes = 0

    @contextmanager
    def opened(self) -> Iterator[ListWriter]:
        """May be added to in this context."""
        with _zipped(self._folder / "objects") as self._file:
            yield self

    def add(self, key: str, one: BackedUp) -> None:
        """Add an object, which has a later key than all before it."""
        self._file.write(canonical_json({"key": key, "content": one.content.model_dump(), "etag": one.etag}))
        self.objects += 1
        self.bytes += one.content.size

    def publish(
        self, place: ObjectStore, name: str, *, source: str, generation: int, databases: dict[str, ContentDigest]
    ) -> None:
        """Write the list to a place, which makes a backup of what lies there.

        Raises:
            PublishConflict: there is one of that name.
            StoreError: the place failed.
        """
        heading = Heading(
            name=name,
            source=source,
            generation=generation,
            objects=self.objects,
            bytes=self.bytes,
            databases=databases,
        )
        path = self._folder / "list"
        with _zipped(path) as file:
            file.write(heading.to_bytes())
        # Two archives, one after the other, are one: so what is counted at the end stands at the beginning.
        with path.open("ab") as whole, (self._folder / "objects").open("rb") as objects:
            shutil.copyfileobj(objects, whole)
        put_immutable_file(place, backup_key(name), path)


def read_heading(place: ObjectStore, name: str) -> Heading:
    """What a backup is.

    Raises:
        InvalidInput: there is no such backup.
        BackupCorrupt: it cannot be read.
    """
    what = f"{place.url}/{backup_key(name)}"
    with _stored(place, name) as stream, _legible(what), gzip.open(stream) as file:
        return _begin(cast("IO[bytes]", file), what=what)[0]


@contextmanager
def opened_backup(place: ObjectStore, name: str) -> Iterator[Backup]:
    """A backup, whose list is a local file as long as the context lasts.

    Raises:
        InvalidInput, BackupCorrupt: as `read_heading`.
    """
    what = f"{place.url}/{backup_key(name)}"
    with scratch_folder("macrofleet-backup-") as folder:
        path = folder / "list"
        with _stored(place, name) as stream, path.open("xb") as copy:
            shutil.copyfileobj(stream, copy)
        with _legible(what), gzip.open(path) as file:
            heading, whole = _begin(cast("IO[bytes]", file), what=what)
        yield Backup(heading, path, what=what, whole=whole)


def _begin(file: IO[bytes], *, what: str) -> tuple[Heading, Mapping[str, BackedUp] | None]:
    """The heading; and all objects, where the list is one document."""
    line = file.readline(_MAX_LINE)
    if line.endswith(b"\n") and b'"objects":{' not in line:
        return Heading.parse(line, what=what, error=BackupCorrupt), None
    line += file.read(_MAX_WHOLE)
    whole = _Whole.parse(line, what=what, error=BackupCorrupt)
    return whole.heading(), whole.objects


@contextmanager
def _stored(place: ObjectStore, name: str) -> Iterator[IO[bytes]]:
    try:
        stream = place.open(backup_key(name))
    except ObjectNotFound:
        raise InvalidInput(
            f"{place.url} has no backup {name}", remedy="`macrofleet backup list` says which there are."
        ) from None
    with stream:
        yield stream


@contextmanager
def _legible(what: str) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        raise _damaged(what, str(problem)) from None


def _damaged(what: str, how: str) -> BackupCorrupt:
    return BackupCorrupt(f"{what} is damaged ({how})", remedy="Take another backup.")


@contextmanager
def _zipped(path: Path) -> Iterator[Any]:
    # Without a time and a name, so that the same list is the same file.
    with path.open("xb") as raw, gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as file:
        yield file
