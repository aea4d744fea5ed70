"""The local disk tier: programs and bundles copied from the store, verified while downloading, mapped without hashing.

A folder appears under its final name by one rename, complete; nothing in it changes afterwards. Several processes may
share a tier: the one whose rename comes second throws its copy away, and one may evict what another has mapped, since
a file that is unlinked keeps its pages.

A model is usable as soon as its folder is in place. It is synced afterwards, in the background, and only then gets its
install record, which says: durable, and verified as it is. Until then this process goes by its own memory of what it
verified; any other process, and this one after an unclean end, finds no record and verifies again by hashing (6 ms for
10 MB). So a crash at any point costs a hash or a download, and never leaves a record over bytes that were lost.

Programs are `registry.disk.programs`; how a folder gets its name is `registry.disk.placing`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Literal, Self

from registry.background import Background
from registry.disk.install_record import read_record, sync_model, write_record
from registry.disk.placing import DiskFull, Placing, have, put_in_place
from registry.disk.programs import install_program
from registry.disk.space import DiskSpace, ModelName, folders
from registry.disk.transfer import Helpers, receive, write_checked
from registry.errors import BundleCorrupt, InvalidInput, ModelNotFound, ObjectNotFound, OutOfResources, StoreError
from registry.files import FULL, FileState, file_state, read_whole
from registry.layout import LABELS, MANIFEST, WEIGHTS, model_key
from registry.model.bundle import MAX_LABEL_BYTES, MAX_MANIFEST_BYTES, Manifest, parse_manifest
from registry.model.mapped import MappedModel, check_files, file_states, map_files
from registry.names import check_tenant
from registry.store import ObjectStore

__all__ = ["DiskTier", "MappedModel"]

_LOG = logging.getLogger(__name__)
_CLOSE_SECONDS = 5.0
_VERSION = re.compile(r"[0-9a-f]{16}")
# What an fsync says when bytes were lost; a later one would not say it again.
_LOST = frozenset({errno.EIO, *FULL})

OnPhase = Callable[[Literal["download", "map"], float], object]


class DiskTier:
    """A folder that holds models and programs of one store. Safe to use from several threads.

    Args:
        folder: made if missing; may be shared by several processes on one machine.
        store: where bundles and programs come from.
        trusted: digests of the programs that this process may execute.
        budget_bytes: what models (weights and label tables) may take; the least recently used are evicted. Programs do
            not count. None for no bound.
        on_evicted: told the bytes and the cause (`budget`, `no_space`, `left_fleet`) of every eviction, from any thread.
        keep: says of a tenant and a version whether it must not be evicted (a pin, say). Called from any thread with a
            lock held: it must be quick and must not use the tier.
        clock: the time as files have it.
    """

    def __init__(
        self,
        folder: Path,
        store: ObjectStore,
        *,
        trusted: frozenset[str],
        budget_bytes: int | None = None,
        on_evicted: Callable[[int, str], None] | None = None,
        keep: Callable[[str, str], bool] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._store = store
        self._trusted = trusted
        self._placing = Placing(folder)
        self._background = Background("disk-tier")
        self._helpers = Helpers()
        self._space = DiskSpace(
            folder / "models",
            budget=budget_bytes,
            keep=keep,
            remove=self._take_away,
            on_evicted=on_evicted,
            later=self._background.submit,
            clock=clock,
        )
        # What this process verified itself or found recorded: the manifest's digest and the files' states, by folder.
        self._verified: dict[Path, tuple[str, Mapping[str, FileState]]] = {}
        # Likewise, for what is to be synced and recorded once whoever asked for it has it.
        self._unrecorded: dict[Path, tuple[str, Mapping[str, FileState]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Sync and record what was installed, for a few seconds at most, and end the tier's threads.

        What was mapped stays so. What is installed afterwards is usable, but not recorded.
        """
        self._background.close(_CLOSE_SECONDS)
        self._helpers.close()

    def settle(self) -> None:
        """Return when what was installed is synced and recorded, and nothing is left to do in the background."""
        self._background.settle()

    # Models

    def model_folder(self, tenant: str, version: str) -> Path:
        """Where a model version lies once installed. Raises BundleCorrupt when `version` cannot be one."""
        folder = self._folder / "models" / check_tenant(tenant)
        if not _VERSION.fullmatch(version):
            raise BundleCorrupt(
                f"{version[:80]!r}, named for tenant {tenant}, is not a model version (16 hex digits)",
                remedy="Find out who wrote it to the fleet or to MLflow, and train the tenant again.",
            )
        return folder / version

    def has_model(self, tenant: str, version: str) -> bool:
        """Whether a model version lies on disk, verified or not. Raises BundleCorrupt as `model_folder`."""
        return os.path.isdir(self.model_folder(tenant, version))

    def installed_bytes(self) -> int:
        """What the models on disk take; cheap, but for the first call, and up to half a minute behind other processes."""
        return self._space.installed_bytes()

    def hold(self, tenant: str, version: str) -> AbstractContextManager[None]:
        """Keep this process from evicting a model version, on disk already or not: between installing and mapping, say.

        Another process may evict it all the same; `open_model` copes with that.
        """
        return self._space.hold(ModelName(tenant, version))

    def note_use(self, tenant: str, version: str) -> None:
        """A model version that is mapped was used again. Cheap enough for every request; written down once a minute."""
        self._space.used(ModelName(tenant, version))

    def install_model(self, tenant: str, version: str, manifest_digest: str, *, evict: bool = True) -> Manifest:
        """Have a model version on disk, verified; downloads what is missing or no longer what was verified.

        It may be evicted as soon as this returns, so whoever maps it next does both within `hold`, or calls
        `open_model`.

        Args:
            evict: make room for it by evicting others; False is for preloading, which would only thrash.

        Raises:
            ModelNotFound: the store does not have it.
            BundleCorrupt: what the store has is not what the fleet names, or the version is not the manifest's.
            OutOfResources: it is larger than the budget, or does not fit beside what must stay.
            StoreError: the store fails, or the tier cannot be read or written.
        """
        folder = self._folder_of(tenant, version, manifest_digest)
        name = ModelName(tenant, version)
        with self._space.hold(name):
            manifest, _ = have(
                folder,
                lambda: self._check_model(folder, tenant, manifest_digest),
                lambda: self._install_model(folder, name, manifest_digest, evict=evict),
                self._set_aside,
            )
            self._have_recorded(folder)
        self._space.used(name)
        return manifest

    def retain(self, keep: Callable[[str], bool]) -> int:
        """Remove every model of a tenant for whom `keep` is false, mapped, pinned or not, and its name with it.

        What is mapped stays so. A model that is being installed meanwhile may appear afterwards.

        Returns:
            How many versions were removed.

        Raises:
            StoreError: one cannot be removed.
        """
        self._placing.sweep(again=True)
        removed = 0
        for tenant in folders(self._folder / "models"):
            if not keep(tenant):
                place = self._folder / "models" / tenant
                removed += sum(
                    self._space.remove(ModelName(tenant, version), "left_fleet") for version in folders(place)
                )
                with contextlib.suppress(OSError):  # another process removes or installs beside us
                    place.rmdir()
        return removed

    def map_model(self, tenant: str, version: str, manifest_digest: str) -> MappedModel:
        """Map an installed model.

        Raises:
            BundleCorrupt: it is not there, or not as it was verified.
            StoreError: it is there and cannot be read.
        """
        folder = self._folder_of(tenant, version, manifest_digest)
        model = self._map_model(folder, tenant, manifest_digest)
        self._note_mapped(ModelName(tenant, version), model)
        self._have_recorded(folder)
        return model

    def open_model(
        self,
        tenant: str,
        version: str,
        manifest_digest: str,
        *,
        evict: bool = True,
        on_phase: OnPhase | None = None,
    ) -> MappedModel:
        """Install a model version where it is not, and map it, with nobody in between; what another process evicts
        meanwhile is installed again.

        Args:
            evict: as for `install_model`.
            on_phase: told the seconds of every `download` (so: there was one) and of the `map` that succeeded.

        Raises:
            What `install_model` raises.
        """
        folder = self._folder_of(tenant, version, manifest_digest)
        name = ModelName(tenant, version)

        def map_it() -> MappedModel:
            with _timed("map", on_phase):
                return self._map_model(folder, tenant, manifest_digest)

        def install() -> None:
            with _timed("download", on_phase):
                self._install_model(folder, name, manifest_digest, evict=evict)

        with self._space.hold(name):
            model = have(folder, map_it, install, self._set_aside)
            self._note_mapped(name, model)
            self._have_recorded(folder)
        return model

    def _folder_of(self, tenant: str, version: str, manifest_digest: str) -> Path:
        folder = self.model_folder(tenant, version)
        if version != manifest_digest[:16]:
            raise BundleCorrupt(
                f"version {version} of tenant {tenant} does not go with the manifest {manifest_digest[:16]!r}…",
                remedy="A version is the start of its manifest's digest: find out who wrote both, and train again.",
            )
        return folder

    def _note_mapped(self, name: ModelName, model: MappedModel) -> None:
        self._space.mapped(name, model)
        self._space.used(name)

    def _map_model(self, folder: Path, tenant: str, manifest_digest: str) -> MappedModel:
        manifest, verified = self._check_model(folder, tenant, manifest_digest)
        return map_files(folder, manifest, verified)

    def _check_model(self, folder: Path, tenant: str, manifest_digest: str) -> tuple[Manifest, Mapping[str, FileState]]:
        """The manifest of a folder, and the states in which its files were verified: before, or now by hashing.

        Raises:
            BundleCorrupt: something is missing, or is not what the manifest says.
            StoreError: something is there and cannot be read.
        """
        data = read_whole(folder / MANIFEST, MAX_MANIFEST_BYTES, error=BundleCorrupt)
        manifest = parse_manifest(data, tenant=tenant, digest=manifest_digest, what=str(folder / MANIFEST))
        # Taken before anything is hashed: a file that is replaced meanwhile does not match it.
        present = file_states(folder, manifest)
        if self._verified.get(folder) != (manifest_digest, present):
            if read_record(folder, manifest_digest) != present:
                check_files(folder, manifest)
                self._unrecorded[folder] = (manifest_digest, present)
            self._verified[folder] = (manifest_digest, present)
        return manifest, present

    def _install_model(self, folder: Path, name: ModelName, manifest_digest: str, *, evict: bool) -> None:
        sizes: list[int] = []
        try:
            self._download_model(folder, name, manifest_digest, evict=evict, on_size=sizes.append)
        except DiskFull as problem:
            if not evict:
                raise OutOfResources(problem.what, remedy=problem.remedy) from problem
            if not self._space.free(sum(sizes), "no_space"):
                raise
            self._download_model(folder, name, manifest_digest, evict=True, on_size=sizes.append)

    def _download_model(
        self, folder: Path, name: ModelName, manifest_digest: str, *, evict: bool, on_size: Callable[[int], object]
    ) -> None:
        """Fetch a model and put it in place. Weights and labels are asked for before the manifest is there."""
        key = partial(model_key, *name)
        weights = self._helpers.start(lambda: self._store.open(key(WEIGHTS)))
        labels = self._helpers.start(lambda: self._store.get(key(LABELS), max_bytes=MAX_LABEL_BYTES).data)
        try:
            what = f"{self._store.url}/{key(MANIFEST)}"
            data = self._store.get(key(MANIFEST), max_bytes=MAX_MANIFEST_BYTES).data
            manifest = parse_manifest(data, tenant=name.tenant, digest=manifest_digest, what=what)
            size = sum(file.size for file in manifest.files.values())
            on_size(size)
            with (
                self._background.urgent(),
                self._space.room(size, evict=evict) as fill_room,
                self._placing.beside() as beside,
            ):
                with weights.finish() as stream:
                    states = {
                        WEIGHTS: receive(
                            stream,
                            beside / WEIGHTS,
                            manifest.files[WEIGHTS],
                            what=f"{self._store.url}/{key(WEIGHTS)}",
                            error=BundleCorrupt,
                            helpers=self._helpers,
                        ),
                        LABELS: write_checked(
                            beside / LABELS, labels.finish(), manifest.files[LABELS], f"{self._store.url}/{key(LABELS)}"
                        ),
                    }
                (beside / MANIFEST).write_bytes(data)
                if put_in_place(beside, folder):
                    self._verified[folder] = self._unrecorded[folder] = (manifest_digest, states)
                fill_room(name)
        except ObjectNotFound as problem:
            raise ModelNotFound(
                f"version {name.version} of tenant {name.tenant} is not in {self._store.url}: {problem.what}",
                remedy="Check MACROFLEET_STORE_URL; if it is right, train the tenant again.",
            ) from None
        except InvalidInput as problem:
            raise BundleCorrupt(str(problem)) from None
        finally:
            labels.drop(lambda _: None)
            weights.drop(lambda stream: stream.close())

    def _have_recorded(self, folder: Path) -> None:
        """Have a model synced and recorded in the background where it is not."""
        if verified := self._unrecorded.pop(folder, None):
            self._background.submit(lambda: self._make_durable(folder, *verified))

    def _make_durable(self, folder: Path, manifest_digest: str, states: Mapping[str, FileState]) -> None:
        """Sync a model and record that it was verified. What cannot be is served, and verified again another day."""
        try:
            sync_model(folder, (*states, MANIFEST), root=self._folder)
        except FileNotFoundError:
            return  # evicted
        except OSError as problem:
            if problem.errno in _LOST:
                _LOG.warning("a model could not be written to disk; it is fetched again", extra={"error": str(problem)})
                with contextlib.suppress(StoreError):
                    self._set_aside(folder)
            return
        with contextlib.suppress(OSError, StoreError):
            # Synced was what has these names now; only what was verified may be recorded.
            if all(file_state(os.stat(folder / name)) == state for name, state in states.items()):
                write_record(folder, manifest_digest, states, waiting=self._placing.waiting())

    # Programs

    def install_program(self, digest: str) -> Path:
        """Have a program on disk, verified, and return its folder. Raises as `registry.disk.programs.install_program`."""
        return install_program(
            digest, root=self._folder, store=self._store, trusted=self._trusted, placing=self._placing
        )

    # Folders

    def _forget(self, folder: Path) -> None:
        self._verified.pop(folder, None)
        self._unrecorded.pop(folder, None)

    def _set_aside(self, folder: Path) -> None:
        """Remove a copy that is bad. Raises StoreError."""
        self._forget(folder)
        self._placing.set_aside(folder)
        self._space.gone(ModelName(folder.parent.name, folder.name))

    def _take_away(self, folder: Path) -> Callable[[], object] | None:
        """Evict a model: its name goes at once, its bytes when what is returned is called. Raises StoreError."""
        self._forget(folder)
        return self._placing.take_away(folder)


@contextlib.contextmanager
def _timed(phase: Literal["download", "map"], on_phase: OnPhase | None) -> Iterator[None]:
    started = time.perf_counter()
    yield
    if on_phase is not None:
        on_phase(phase, time.perf_counter() - started)
