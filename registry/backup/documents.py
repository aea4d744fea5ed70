"""Where the parts of a backup lie: a list of objects by their content's digest (`registry.backup.lists`), and the contents once
each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

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


class BackedUp(Document):
    """One object of a store: its content, and the entity tag by which the next backup knows it again."""

    content: ContentDigest
    etag: str


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
