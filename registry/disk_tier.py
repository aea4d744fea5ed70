"""The local disk tier: programs and bundles copied from the store, verified while downloading, mapped without hashing.

A folder appears under its final name by one rename, complete and synced; nothing in it changes afterwards. Several
processes may share a tier: the one whose rename comes second throws its copy away. An install record says what was
verified, so that opening costs a few `stat` calls; without a record that holds, everything is hashed again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from numpy.typing import NDArray
from pydantic import Field

from registry.bundle import MAX_LABEL_BYTES, MAX_MANIFEST_BYTES, Labels, Manifest, parse_labels, parse_manifest
from registry.documents import Document
from registry.errors import (
    BundleCorrupt,
    InvalidInput,
    ModelNotFound,
    ObjectNotFound,
    ProgramCorrupt,
    StoreError,
)
from registry.files import MAX_FILE_BYTES, Digest, FileDigest, download, file_digest, sync_folder, write_durably
from registry.layout import LABELS, MANIFEST, PROGRAM_FILES, WEIGHTS, model_key, program_key
from registry.names import check_tenant
from registry.program import check_trusted, parse_program_files
from registry.store import ObjectStore
from registry.tensors import map_tensors

_RECORD = "installed.json"
# More than one only matters where another process keeps finding and replacing a bad copy at the same time.
_INSTALL_ATTEMPTS = 3
_LEFTOVER_SECONDS = 24 * 3600
_MAX_FILE_LIST_BYTES = 1024 * 1024
_FETCHED_AGAIN = "It is fetched again when it is next installed."
_VERSION = re.compile(r"[0-9a-f]{16}")
_PROGRAM = re.compile(r"[0-9a-f]{64}")


class _InstalledFile(Document):
    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]
    inode: int
    mtime_ns: int


class _Record(Document):
    """What was on disk when it was verified."""

    manifest: Digest
    files: dict[str, _InstalledFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedModel:
    """A verified bundle, its tensors mapped.

    Attributes:
        nbytes: length of the mapping in bytes, which is what a memory budget counts.
    """

    manifest: Manifest
    labels: Labels
    tensors: Mapping[str, NDArray[Any]]
    nbytes: int


class DiskTier:
    """A folder that holds models and programs of one store.

    Args:
        folder: made if missing; may be shared by several processes on one machine.
        store: where bundles and programs come from.
        trusted: digests of the programs that this process may execute.
    """

    def __init__(self, folder: Path, store: ObjectStore, *, trusted: frozenset[str]) -> None:
        self._folder = folder
        self._store = store
        self._trusted = trusted
        self._swept = False

    def model_folder(self, tenant: str, version: str) -> Path:
        """Where a model version lies once installed. Raises BundleCorrupt when `version` cannot be one."""
        folder = self._folder / "models" / check_tenant(tenant)
        if not _VERSION.fullmatch(version):
            raise BundleCorrupt(
                f"{version[:80]!r}, named for tenant {tenant}, is not a model version (16 hex digits)",
                remedy="Find out who wrote it to the fleet or to MLflow, and train the tenant again.",
            )
        return folder / version

    def install_model(self, tenant: str, version: str, manifest_digest: str) -> Manifest:
        """Have a model version on disk, verified; downloads what is missing or no longer what was verified.

        Raises:
            ModelNotFound: the store does not have it.
            BundleCorrupt: what the store has is not what the fleet names, or the version is not the manifest's.
            StoreError: the tier cannot be written.
        """
        folder = self._folder_of(tenant, version, manifest_digest)
        self._have(
            folder,
            lambda: self._verified(folder, tenant, manifest_digest),
            lambda beside: self._download_model(beside, tenant, version, manifest_digest),
        )
        return self._verified(folder, tenant, manifest_digest)

    def map_model(self, tenant: str, version: str, manifest_digest: str) -> MappedModel:
        """Map an installed model. Raises BundleCorrupt when it is not there, or not as it was verified."""
        folder = self._folder_of(tenant, version, manifest_digest)
        manifest = self._verified(folder, tenant, manifest_digest)
        size = manifest.files[WEIGHTS].size
        tensors = map_tensors(folder / WEIGHTS, expected_size=size)
        labels = parse_labels(_read(folder / LABELS, MAX_LABEL_BYTES), what=str(folder / LABELS))
        return MappedModel(manifest=manifest, labels=labels, tensors=tensors, nbytes=size)

    def install_program(self, digest: str) -> Path:
        """Have a program on disk, verified, and return its folder.

        Raises:
            ProgramUntrusted: its digest is not trusted; nothing is downloaded.
            ProgramCorrupt: the store has no such program, or another one under its name.
            StoreError: the tier cannot be written.
        """
        check_trusted(digest, self._trusted)
        if not _PROGRAM.fullmatch(digest):
            raise ProgramCorrupt(
                f"{digest[:80]!r} is not the digest of a program (64 hex digits)",
                remedy="Correct MACROFLEET_TRUSTED_PROGRAMS.",
            )
        folder = self._folder / "programs" / digest
        self._have(
            folder, lambda: _check_program(folder, digest), lambda beside: self._download_program(beside, digest)
        )
        return folder

    def _folder_of(self, tenant: str, version: str, manifest_digest: str) -> Path:
        folder = self.model_folder(tenant, version)
        if version != manifest_digest[:16]:
            raise BundleCorrupt(
                f"version {version} of tenant {tenant} does not go with the manifest {manifest_digest[:16]!r}…",
                remedy="A version is the start of its manifest's digest: find out who wrote both, and train again.",
            )
        return folder

    def _have(self, folder: Path, check: Callable[[], object], fill: Callable[[Path], None]) -> None:
        """Install a folder unless it is there and passes its check; what does not pass is set aside first.

        What another process put there in the meantime is checked like one's own; only a folder that was seen to be
        bad is removed, so two processes do not take each other's work away.
        """
        for _ in range(_INSTALL_ATTEMPTS):
            if os.path.isdir(folder):  # the method of Path raises where a parent may not be searched
                try:
                    check()
                    return
                except (BundleCorrupt, ProgramCorrupt):
                    self._set_aside(folder)
            self._install(folder, fill)

    def _set_aside(self, folder: Path) -> None:
        # Gone already: another process has set it aside.
        with self._beside() as beside, contextlib.suppress(FileNotFoundError):
            folder.rename(beside / "bad")

    def _install(self, folder: Path, fill: Callable[[Path], None]) -> None:
        """Fill a folder beside the final place and move it there; a full disk or a failure leaves nothing."""
        with self._beside() as beside:
            folder.parent.mkdir(parents=True, exist_ok=True)
            fill(beside)
            sync_folder(beside)
            try:
                beside.rename(folder)
            except OSError:
                # Another process installed the same version in the meantime; its copy was verified as ours was.
                if not folder.is_dir():
                    raise
            sync_folder(folder.parent)

    @contextlib.contextmanager
    def _beside(self) -> Iterator[Path]:
        """A temporary folder on the tier's file system. Raises StoreError for what the disk refuses meanwhile."""
        try:
            waiting = self._folder / "incoming"
            waiting.mkdir(parents=True, exist_ok=True)
            self._sweep(waiting)
            beside = Path(tempfile.mkdtemp(dir=waiting))
            try:
                yield beside
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        except OSError as problem:
            raise StoreError(
                f"cannot write below {self._folder}: {problem.strerror}",
                remedy="Check free space and permissions of the disk tier.",
            ) from problem

    def _sweep(self, waiting: Path) -> None:
        """Once a tier and process: remove what a process that was killed a day ago or more left unfinished."""
        if self._swept:
            return
        self._swept = True
        oldest = time.time() - _LEFTOVER_SECONDS
        for left in waiting.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if left.stat().st_mtime < oldest:
                    shutil.rmtree(left, ignore_errors=True)

    def _download_model(self, beside: Path, tenant: str, version: str, manifest_digest: str) -> None:
        key = model_key(tenant, version, MANIFEST)
        try:
            data = self._store.get(key, max_bytes=MAX_MANIFEST_BYTES).data
            manifest = parse_manifest(data, tenant=tenant, digest=manifest_digest, what=f"{self._store.url}/{key}")
            for name, expected in manifest.files.items():
                download(self._store, model_key(tenant, version, name), beside / name, expected, error=BundleCorrupt)
        except ObjectNotFound as problem:
            raise ModelNotFound(
                f"version {version} of tenant {tenant} is not in {self._store.url}: {problem.what}",
                remedy="Check MACROFLEET_STORE_URL; if it is right, train the tenant again.",
            ) from None
        except InvalidInput as problem:
            raise BundleCorrupt(str(problem)) from None
        write_durably(beside / MANIFEST, data)
        write_durably(beside / _RECORD, _record(beside, manifest_digest, manifest).to_bytes())

    def _download_program(self, beside: Path, digest: str) -> None:
        key = program_key(digest, PROGRAM_FILES)
        try:
            data = self._store.get(key, max_bytes=_MAX_FILE_LIST_BYTES).data
            listing = parse_program_files(data, digest=digest, what=f"{self._store.url}/{key}")
            for name, expected in listing.files.items():
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                download(self._store, program_key(digest, name), beside / name, expected, error=ProgramCorrupt)
        except ObjectNotFound as problem:
            raise ProgramCorrupt(
                f"program {digest[:16]}… is not in {self._store.url}: {problem}",
                remedy="Publish it with `macrofleet programs build`.",
            ) from None
        write_durably(beside / PROGRAM_FILES, data)

    def _verified(self, folder: Path, tenant: str, manifest_digest: str) -> Manifest:
        """The manifest of a folder that is as it was verified, by its record or by hashing it again."""
        data = _read(folder / MANIFEST, MAX_MANIFEST_BYTES)
        manifest = parse_manifest(data, tenant=tenant, digest=manifest_digest, what=str(folder / MANIFEST))
        try:
            # Taken before anything is hashed: a file that is replaced meanwhile does not match it.
            present = _record(folder, manifest_digest, manifest)
        except OSError as problem:
            raise BundleCorrupt(f"{folder} is not whole ({problem.strerror})", remedy=_FETCHED_AGAIN) from None
        with contextlib.suppress(BundleCorrupt):
            if present == _Record.parse(_read(folder / _RECORD, MAX_MANIFEST_BYTES), what=_RECORD, error=BundleCorrupt):
                return manifest
        for name, expected in manifest.files.items():
            try:
                found: FileDigest | None = file_digest(folder / name)
            except (OSError, ValueError):
                found = None
            if found != expected:
                raise BundleCorrupt(f"{folder / name} is not what its manifest says", remedy=_FETCHED_AGAIN)
        # A record only saves hashing again: a tier that cannot be written, or is full, still serves what it holds.
        with contextlib.suppress(StoreError), self._beside() as beside:
            write_durably(beside / _RECORD, present.to_bytes())
            (beside / _RECORD).replace(folder / _RECORD)
        return manifest


def _record(folder: Path, manifest_digest: str, manifest: Manifest) -> _Record:
    files = {}
    for name in manifest.files:
        status = os.stat(folder / name)
        files[name] = _InstalledFile(size=status.st_size, inode=status.st_ino, mtime_ns=status.st_mtime_ns)
    return _Record(manifest=manifest_digest, files=files)


def _check_program(folder: Path, digest: str) -> None:
    try:
        data = _read(folder / PROGRAM_FILES, _MAX_FILE_LIST_BYTES)
    except BundleCorrupt as problem:
        raise ProgramCorrupt(problem.what) from None
    listing = parse_program_files(data, digest=digest, what=str(folder / PROGRAM_FILES))
    # Programs are few and executed, so they are hashed at every start.
    for name, expected in listing.files.items():
        try:
            intact = file_digest(folder / name) == expected
        except OSError:
            intact = False
        if not intact:
            raise ProgramCorrupt(f"{folder / name} is not what its program's file list says")


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as problem:
        raise BundleCorrupt(f"{path} cannot be read ({problem.strerror})") from None
    if len(data) > limit:
        raise BundleCorrupt(f"{path} is larger than {limit} bytes")
    return data
