"""Models and programs on their way to a second region's store: checked on the way, claimed there, nothing copied twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from registry.errors import BundleCorrupt, ModelNotFound, ObjectNotFound, PreconditionFailed, ProgramCorrupt
from registry.files import download, put_immutable, put_immutable_file, scratch_folder
from registry.fleet.history import named_versions
from registry.fleet.state import FleetEntry
from registry.garbage.collecting import claim
from registry.layout import MANIFEST, PROGRAM_FILES, PROVENANCE, model_key, program_key
from registry.model.bundle import Manifest
from registry.model.program import parse_program_files
from registry.models import read_manifest
from registry.publishing import publish_bundle
from registry.store import ObjectStore

_MAX_BYTES = 1024 * 1024


class ModelCopier:
    """Copies what entries of the fleet name. May be used by several threads at once.

    Args:
        sleep: waits so many seconds for a collector of garbage.

    Attributes:
        models: versions that were copied.
        objects: of programs.
        missing: versions that an entry names beside the one that serves, and that the source does not have.
    """

    def __init__(self, source: ObjectStore, destination: ObjectStore, *, sleep: Callable[[float], None]) -> None:
        self._source = source
        self._destination = destination
        self._sleep = sleep
        self._programs: set[str] = set()
        self._counting = threading.Lock()
        self._one_program = threading.Lock()
        self.models = 0
        self.objects = 0
        self.missing: list[str] = []

    def copy(self, tenant: str, entry: FleetEntry) -> None:
        """Have every version that an entry names in the destination, with its program.

        Raises:
            ModelNotFound: the source lacks the one that serves.
            BundleCorrupt, ProgramCorrupt: it is not what the fleet says; nothing of it was copied that is not right.
            StoreError: one of the stores failed.
        """
        for version in named_versions(entry):
            digest = entry.manifest if version == entry.version else None
            try:
                self._copy_model(tenant, version, digest)
            except (ModelNotFound, ProgramCorrupt):
                if version == entry.version:
                    raise
                self.missing.append(f"{tenant} {version}")  # appending is one step

    def _copy_model(self, tenant: str, version: str, digest: str | None) -> None:
        manifest = read_manifest(self._source, tenant, version, digest=digest)
        self._copy_program(manifest.program)
        if not self._is_whole(manifest) or not claim(self._destination, manifest):
            with scratch_folder("macrofleet-copy-") as folder:
                self._fetch(manifest, folder)
                publish_bundle(self._destination, folder, tenant=tenant, sleep=self._sleep)
            with self._counting:
                self.models += 1
        key = model_key(tenant, version, PROVENANCE)
        if not self._has(key):
            with suppress(ObjectNotFound, PreconditionFailed):
                self._destination.put(key, self._source.get(key, max_bytes=_MAX_BYTES).data, if_absent=True)

    def _is_whole(self, manifest: Manifest) -> bool:
        sizes = {name: file.size for name, file in manifest.files.items()} | {MANIFEST: len(manifest.to_bytes())}
        prefix = model_key(manifest.tenant, manifest.version, "")
        there = {info.key: info.size for info in self._destination.list(prefix)}
        return all(there.get(prefix + name) == size for name, size in sizes.items())

    def _fetch(self, manifest: Manifest, folder: Path) -> None:
        for name, file in manifest.files.items():
            key = model_key(manifest.tenant, manifest.version, name)
            try:
                download(self._source, key, folder / name, file, error=BundleCorrupt)
            except ObjectNotFound:
                raise ModelNotFound(
                    f"{self._source.url} lacks {key}, which its fleet names",
                    remedy="`macrofleet fleet verify` says more: roll back, or train the tenant again.",
                ) from None
        (folder / MANIFEST).write_bytes(manifest.to_bytes())

    def _copy_program(self, digest: str) -> None:
        """The first who needs one copies it, and the others wait."""
        with self._one_program:
            if digest not in self._programs:
                self._fetch_program(digest)
                self._programs.add(digest)

    def _fetch_program(self, digest: str) -> None:
        listing_key = program_key(digest, PROGRAM_FILES)
        if not self._has(listing_key):
            what = f"{self._source.url}/{listing_key}"
            try:
                data = self._source.get(listing_key, max_bytes=_MAX_BYTES).data
            except ObjectNotFound:
                raise ProgramCorrupt(
                    f"{self._source.url} lacks {listing_key}, which a version that serves names",
                    remedy="`macrofleet programs build` publishes a released one again.",
                ) from None
            listing = parse_program_files(data, digest=digest, what=what)
            with scratch_folder("macrofleet-copy-") as folder:
                for place, (name, file) in enumerate(listing.files.items()):
                    path = folder / str(place)
                    download(self._source, program_key(digest, name), path, file, error=ProgramCorrupt)
                    put_immutable_file(self._destination, program_key(digest, name), path)
                    path.unlink()
            put_immutable(self._destination, listing_key, data)
            with self._counting:
                self.objects += len(listing.files) + 1

    def _has(self, key: str) -> bool:
        try:
            self._destination.head(key)
        except ObjectNotFound:
            return False
        return True
