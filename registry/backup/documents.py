"""What a backup consists of, and where its parts lie: a list of objects by their content's digest, and the contents once each."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from registry.conditional import put_over
from registry.documents import Document
from registry.errors import BackupCorrupt, InvalidInput, ObjectNotFound
from registry.files import ContentDigest, download, scratch_folder
from registry.layout import (
    ACCESS_KEYS,
    FLEET_PREFIX,
    FLEET_ROOT,
    MANIFEST,
    PROGRAM_FILES,
    TOMBSTONES_PREFIX,
    never_changes,
)
from registry.store import ObjectStore

BACKUPS_PREFIX: Final = "backups/"
BLOBS_PREFIX: Final = "blobs/"
KEYS: Final = "keys.json"
TRACKING: Final = "mlflow.db"
NAME: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_MAX_BYTES = 512 * 1024 * 1024


class BackedUp(Document):
    """One object of a store: its content, and the entity tag by which the next backup knows it again."""

    content: ContentDigest
    etag: str


class Backup(Document):
    """One backup, whole.

    Attributes:
        name: when it was begun, in UTC.
        source: the store's URL.
        generation: of the fleet that it has.
        objects: by key.
        databases: `keys.json`, the API keys, and `mlflow.db`, where MLflow's records are a file of SQLite.
    """

    format: Annotated[int, Field(ge=1, le=1)] = 1
    name: Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
    source: str
    generation: Annotated[int, Field(ge=0)]
    objects: dict[str, BackedUp]
    databases: dict[str, ContentDigest] = Field(default_factory=dict)

    def contents(self) -> set[str]:
        """The digests of all contents."""
        return {one.content.sha256 for one in self.objects.values()} | {one.sha256 for one in self.databases.values()}


class KeysDump(Document):
    """The control plane's database, as far as it cannot be made again: rows by table, of any kind of database."""

    format: Annotated[int, Field(ge=1, le=1)] = 1
    tables: dict[str, tuple[dict[str, Any], ...]]


def blob_key(sha256: str) -> str:
    """The key of a content."""
    return f"{BLOBS_PREFIX}{sha256[:2]}/{sha256}"


def backup_key(name: str) -> str:
    """The key of a backup's list. Raises InvalidInput: that is no backup's name."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:40]!r} is not the name of a backup", remedy="`macrofleet backup list` has the names."
        )
    return f"{BACKUPS_PREFIX}{name}.json.gz"


def backup_names(place: ObjectStore) -> list[str]:
    """The backups that came to their end, the latest first."""
    found = (info.key.removeprefix(BACKUPS_PREFIX).removesuffix(".json.gz") for info in place.list(BACKUPS_PREFIX))
    return sorted(filter(NAME.fullmatch, found), reverse=True)


def read_backup(place: ObjectStore, name: str) -> Backup:
    """A backup's list.

    Raises:
        InvalidInput: there is no such backup.
        BackupCorrupt: it cannot be read.
    """
    key = backup_key(name)
    try:
        data = place.get(key, max_bytes=_MAX_BYTES).data
    except ObjectNotFound:
        raise InvalidInput(
            f"{place.url} has no backup {name}", remedy="`macrofleet backup list` says which there are."
        ) from None
    try:
        text = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as problem:
        raise BackupCorrupt(f"{place.url}/{key} is damaged ({problem})", remedy="Take another backup.") from None
    return Backup.parse(text, what=f"{place.url}/{key}", error=BackupCorrupt)


def write_backup(place: ObjectStore, backup: Backup) -> None:
    """Write a backup's list, which makes a backup of what lies there. Raises PreconditionFailed: there is one of that name."""
    put_over(place, backup_key(backup.name), gzip.compress(backup.to_bytes(), mtime=0), etag=None)


def fetch_content(place: ObjectStore, content: ContentDigest, path: Path) -> None:
    """Write a content to a new file.

    Raises:
        BackupCorrupt: it is not there, or not what it was.
        StoreError: the place failed.
    """
    try:
        download(place, blob_key(content.sha256), path, content, error=BackupCorrupt)
    except ObjectNotFound:
        raise BackupCorrupt(f"{place.url} lacks {blob_key(content.sha256)}", remedy="Restore another backup.") from None


def read_content(place: ObjectStore, content: ContentDigest) -> bytes:
    """A small content whole. Raises as `fetch_content`."""
    with scratch_folder("macrofleet-restore-") as folder:
        fetch_content(place, content, folder / "content")
        return (folder / "content").read_bytes()


def rank(key: str) -> int:
    """The order in which objects come back: what is named before what names it, the fleet's root last."""
    if key == FLEET_ROOT:
        return 6
    if key.startswith(FLEET_PREFIX):
        return 5
    if key == ACCESS_KEYS:
        return 4
    if key.startswith(TOMBSTONES_PREFIX):
        return 0
    if not never_changes(key):
        return 3
    return 2 if key.endswith((f"/{MANIFEST}", f"/{PROGRAM_FILES}")) else 1
