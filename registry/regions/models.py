"""Models and programs on their way to a second region's store: checked on the way, claimed there, nothing copied twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from registry.errors import (
    BundleCorrupt,
    InvalidInput,
    MacrofleetError,
    ModelNotFound,
    ObjectNotFound,
    PreconditionFailed,
    ProgramCorrupt,
    PublishConflict,
)
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
from registry.threads import in_threads

_MAX_BYTES = 1024 * 1024
# What is wrong with one version and says nothing of the next; a store that fails is another matter.
_NOT_WHOLE = (ModelNotFound, BundleCorrupt, ProgramCorrupt, PublishConflict, InvalidInput)
_NAMED = 50


class ModelCopier:
    """Copies what entries of the fleet name. May be used by several threads at once.

    Args:
        sleep: waits so many seconds for a collector of garbage.

    Attributes:
        models: versions that were copied.
        objects: of programs.
        missing: versions that an entry names beside the one that serves, and that the source does not have.
        damaged: those of which it has something else than their manifests or programs say, with what is wrong.
        unserved: with its tenant, what is wrong with a version that serves. No root that names it may follow.
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
        self.damaged: list[str] = []
        self.unserved: list[tuple[str, MacrofleetError]] = []

    def copy_all(self, work: Sequence[tuple[str, FleetEntry]], *, threads: int, told: Callable[[float], None]) -> None:
        """`copy` for many tenants, so many at once.

        Args:
            told: the finished share, after each.

        Raises:
            StoreError: one of the stores failed.
        """
        done = 0

        def one(item: tuple[str, FleetEntry]) -> None:
            nonlocal done
            self.copy(*item)
            with self._counting:
                done += 1
                told(done / len(work))

        in_threads(one, work, threads=threads)

    def copy(self, tenant: str, entry: FleetEntry) -> None:
        """Have every version that an entry names in the destination, with its program.

        A version that is not whole in the source is left out and noted, and the next one's turn comes: one tenant's damage is
        not to keep thousands of others from the copy.

        Raises:
            StoreError: one of the stores failed.
        """
        for version in named_versions(entry):
            digest = entry.manifest if version == entry.version else None
            try:
                self._copy_model(tenant, version, digest)
            except _NOT_WHOLE as problem:
                # Appending is one step.
                if version == entry.version:
                    self.unserved.append((tenant, problem))
                elif isinstance(problem, ModelNotFound):
                    self.missing.append(f"{tenant} {version}")
                else:
                    self.damaged.append(f"{tenant} {version}: {problem.what}")

    def check_served(self) -> None:
        """Raise what is wrong with versions that serve.

        Raises:
            ModelNotFound: the source lacks them.
            BundleCorrupt, ProgramCorrupt, PublishConflict: what it has is not what the fleet says; nothing of that was copied.
        """
        problems = sorted(self.unserved, key=lambda one: one[0])
        if not problems:
            return
        if len(problems) == 1 and not isinstance(problems[0][1], InvalidInput):
            raise problems[0][1]
        absent = all(isinstance(problem, ModelNotFound) for _, problem in problems)
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise (ModelNotFound if absent else BundleCorrupt)(
            f"{len(problems)} tenants serve what is not whole in {self._source.url}: "
            + "; ".join(f"{tenant}: {problem.what}" for tenant, problem in problems[:_NAMED])
            + more,
            remedy="All else was copied. Roll these back, or train them again, then copy again.",
        )

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
