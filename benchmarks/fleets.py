"""Fleets to measure and test with: bundles with random weights at real size.

Two ways. `publish_tenants` publishes each model as training does: slow, and right for a few. `SyntheticFleet` makes
thousands of distinct models in a minute: every model is another stretch of one random block, so making it costs its
hashing and its writing only.
"""

from __future__ import annotations

import functools
import hashlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from registry.catalogue import Macro, make_catalogue, write_catalogue
from registry.disk.tier import DiskTier
from registry.documents import sha256
from registry.errors import InvalidInput
from registry.files import FileDigest
from registry.fleet.state import Change, FleetEntry, TenantLimits, update_fleet
from registry.layout import LABELS, MANIFEST, WEIGHTS, catalogue_key, model_key
from registry.model.bundle import Label, Labels, Manifest, write_bundle
from registry.model.program import ProgramSpec
from registry.model.tensors import write_tensors
from registry.publishing import publish_bundle
from registry.store import ObjectStore, StoredObject

T = TypeVar("T")
R = TypeVar("R")

_THREADS = 4
# The stretches of two neighbouring models begin so many bytes apart: a whole number of float32, and of nothing larger.
_STRIDE = 68
# Of the weights: small enough for scores that are no certainties, large enough for every model to have its own.
_SPREAD = np.float32(0.3)
# Left free on the disk, whatever a fleet needs.
_RESERVE_BYTES = 2 * 1024**3


def make_bundle(
    folder: Path,
    *,
    tenant: str,
    program: str,
    spec: ProgramSpec,
    macros: int = 5,
    seed: int = 0,
    threshold: float = 0.0,
) -> Manifest:
    """Write a bundle with random weights of the shapes that `spec` asks for."""
    wanted = tuple(
        (name, tuple(macros if isinstance(size, str) else size for size in tensor.shape), tensor.dtype)
        for name, tensor in spec.weights("score_f32").items()
    )
    tensors = _random_tensors(wanted, seed)
    folder.mkdir(parents=True, exist_ok=True)
    return write_bundle(
        folder,
        tenant=tenant,
        program=program,
        tensors=tensors,
        macros=[Label(id=f"m{index}", title=f"Macro {index}") for index in range(macros)],
        data_fingerprint="0" * 64,
        settings={"seed": seed},
        metrics={},
        threshold=threshold,
    )


# Drawing them takes longer than all else about a bundle, and most fleets have one model under many names.
@functools.lru_cache(maxsize=4)
def _random_tensors(wanted: tuple[tuple[str, tuple[int, ...], str], ...], seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    tensors = {name: _random(rng, shape, dtype) for name, shape, dtype in wanted}
    for tensor in tensors.values():
        tensor.flags.writeable = False
    return tensors


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    return rng.integers(-127, 128, shape, np.int8) if dtype == "int8" else rng.standard_normal(shape, np.float32)


def publish_tenants(
    store: ObjectStore,
    tenants: Sequence[str],
    *,
    program: str,
    spec: ProgramSpec,
    macros: int = 5,
    seed: int = 0,
    threshold: float = 0.0,
) -> dict[str, Manifest]:
    """Publish a random model and a catalogue for each tenant, and a fleet that serves them (as one write)."""
    made = {}
    for tenant in tenants:
        with tempfile.TemporaryDirectory() as folder:
            manifest = make_bundle(
                Path(folder), tenant=tenant, program=program, spec=spec, macros=macros, seed=seed, threshold=threshold
            )
            made[tenant] = publish_bundle(store, Path(folder), tenant=tenant)
        catalogue = make_catalogue(Macro(id=f"m{index}", title=f"Macro {index}") for index in range(macros))
        write_catalogue(store, tenant, catalogue, etag=None)
        assert manifest == made[tenant]
    update_fleet(store, {tenant: serve(manifest) for tenant, manifest in made.items()})
    return made


def serve(manifest: Manifest) -> Change:
    """A change of the fleet: serve this model; everything else the fleet says of the tenant stays."""

    def change(entry: FleetEntry | None) -> FleetEntry:
        before = entry or FleetEntry()
        if before.version == manifest.version:
            return before
        return before.model_copy(
            update={
                "version": manifest.version,
                "manifest": manifest.digest,
                "previous": before.version,
                "previous_manifest": before.manifest,
            }
        )

    return change


def limit(limits: TenantLimits | None) -> Change:
    """A change of the fleet: what a tenant may use of each replica; None for no limits of its own."""
    return lambda entry: (entry or FleetEntry()).model_copy(update={"limits": limits})


def tenant_names(count: int, kind: str = "tenant") -> list[str]:
    """`tenant-00000` and so on."""
    return [f"{kind}-{number:05d}" for number in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticModel:
    """A model of a `SyntheticFleet`: its manifest and label table, and where its weights begin in the block."""

    manifest: Manifest
    labels: bytes
    offset: int

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.manifest.tenant


class SyntheticFleet:
    """Distinct models of one program at real size, quickly.

    Every model's weights are another stretch of one random block (each begins 68 bytes after the last), so no two files
    are alike and none is sparse, linked or compressible; they are hashed, verified and synced like any other.

    Args:
        program: digest of the program that the models are for.
        spec: what that program says of itself.
        macros: how many each model tells apart.
        models: how many will be made at most.
        seed: of the block.
    """

    def __init__(self, *, program: str, spec: ProgramSpec, macros: int = 100, models: int, seed: int = 0) -> None:
        self.program = program
        self._macros = macros
        self._most = models
        self._header, size = _header(spec, macros)
        #: Bytes of one weights file.
        self.model_bytes = len(self._header) + size
        numbers = np.random.default_rng(seed).standard_normal((size + models * _STRIDE) // 4 + 1, np.float32)
        self._block = (numbers * _SPREAD).view(np.uint8).data
        self._size = size
        self._made = 0

    def make(self, wanted: Iterable[tuple[str, str]], *, threshold: float = 0.0) -> list[SyntheticModel]:
        """Models, hashed but not written anywhere.

        Args:
            wanted: for each its tenant, and what its macros' ids begin with: a model's macros are `{prefix}-0`,
                `{prefix}-1` and so on.
            threshold: of every model.
        """
        jobs = [(tenant, prefix, (self._made + place) * _STRIDE) for place, (tenant, prefix) in enumerate(wanted)]
        self._made += len(jobs)
        assert self._made <= self._most, "more models than the block was made for"

        def make_one(job: tuple[str, str, int]) -> SyntheticModel:
            tenant, prefix, offset = job
            labels = Labels(macros=tuple(Label(id=name, title=f"Macro {name}") for name in self._ids(prefix)))
            data = labels.to_bytes()
            hasher = hashlib.sha256(self._header)
            hasher.update(self._stretch(offset))
            manifest = Manifest(
                tenant=tenant,
                program=self.program,
                files={
                    WEIGHTS: FileDigest(sha256=hasher.hexdigest(), size=self.model_bytes),
                    LABELS: FileDigest(sha256=sha256(data), size=len(data)),
                },
                data_fingerprint="0" * 64,
                settings={"offset": offset},
                metrics={},
                threshold=threshold,
            )
            return SyntheticModel(manifest=manifest, labels=data, offset=offset)

        return _in_threads(make_one, jobs)

    def catalogue(self, prefixes: Iterable[str]) -> bytes:
        """A catalogue in which all macros of all these models are active."""
        macros = (Macro(id=name, title=f"Macro {name}") for prefix in prefixes for name in self._ids(prefix))
        return make_catalogue(macros).to_bytes()

    def weights(self, model: SyntheticModel) -> IO[bytes]:
        """The bytes of a model's weights file, nothing copied until they are read."""
        return cast("IO[bytes]", _Parts([memoryview(self._header), self._stretch(model.offset)]))

    def install(self, folder: Path, models: Sequence[SyntheticModel]) -> None:
        """Have models in the disk tier in `folder`, as a server that once fetched them leaves them."""
        by_key = {model_key(model.tenant, model.manifest.version, ""): model for model in models}
        source = cast("ObjectStore", _Source(self, by_key))
        with DiskTier(folder, source, trusted=frozenset()) as disk:
            _in_threads(lambda m: disk.install_model(m.tenant, m.manifest.version, m.manifest.digest), models)
            disk.settle()  # synced and recorded, or the server would have to hash it all again

    def publish(self, put: Callable[[str, IO[bytes]], None], models: Sequence[SyntheticModel]) -> None:
        """Write models to a store, each one's manifest last.

        Args:
            put: writes an object: `folder_writer(root)`, or `store_writer(store)`. May be called by several threads.
        """

        def publish_one(model: SyntheticModel) -> None:
            files = {WEIGHTS: self.weights(model), LABELS: io.BytesIO(model.labels)}
            for name, stream in files.items():
                put(model_key(model.tenant, model.manifest.version, name), stream)
            put(model_key(model.tenant, model.manifest.version, MANIFEST), io.BytesIO(model.manifest.to_bytes()))

        _in_threads(publish_one, models)

    def _ids(self, prefix: str) -> list[str]:
        return [f"{prefix}-{index}" for index in range(self._macros)]

    def _stretch(self, offset: int) -> memoryview:
        return self._block[offset : offset + self._size]


def write_catalogues(put: Callable[[str, IO[bytes]], None], catalogues: Mapping[str, bytes]) -> None:
    """Write a catalogue for each tenant."""
    _in_threads(lambda item: put(catalogue_key(item[0]), io.BytesIO(item[1])), list(catalogues.items()))


def folder_writer(root: Path) -> Callable[[str, IO[bytes]], None]:
    """Writes objects of a new store that is a folder, without the store's syncing and locking: nobody reads it yet."""

    def put(key: str, stream: IO[bytes]) -> None:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)

    return put


def store_writer(store: ObjectStore) -> Callable[[str, IO[bytes]], None]:
    """Writes objects of any store."""

    def put(key: str, stream: IO[bytes]) -> None:
        store.put(key, stream.read())

    return put


def check_room(folder: Path, needed: int) -> None:
    """Raises InvalidInput unless the disk below `folder` has room for `needed` bytes and a reserve."""
    free = shutil.disk_usage(folder).free
    if free < needed + _RESERVE_BYTES:
        raise InvalidInput(
            f"the disk below {folder} has {free / 1e9:.1f} GB free, and this needs {(needed + _RESERVE_BYTES) / 1e9:.1f}",
            remedy="Ask for fewer tenants, make room, or point TMPDIR at another disk.",
        )


class _Parts(io.RawIOBase):
    """A file of several parts that are in memory."""

    def __init__(self, parts: Sequence[memoryview]) -> None:
        self._parts = list(parts)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while self._parts:
            part = self._parts[0][: len(buffer)]
            self._parts[0] = self._parts[0][len(part) :]
            if part:
                buffer[: len(part)] = part
                return len(part)
            self._parts.pop(0)
        return 0


class _Source:
    """What a disk tier asks of a store when it installs a model, answered out of memory."""

    url = "memory:"

    def __init__(self, fleet: SyntheticFleet, models: Mapping[str, SyntheticModel]) -> None:
        self._fleet = fleet
        self._models = models

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:  # noqa: ARG002  # a store's
        data = self.open(key).read()
        return StoredObject(data=data, etag="")

    def open(self, key: str) -> IO[bytes]:
        folder, _, name = key.rpartition("/")
        model = self._models[f"{folder}/"]
        if name == WEIGHTS:
            return self._fleet.weights(model)
        return io.BytesIO(model.labels if name == LABELS else model.manifest.to_bytes())


def _header(spec: ProgramSpec, macros: int) -> tuple[bytes, int]:
    """How a weights file of this program begins, and how many bytes of tensors follow."""
    shapes = {
        name: [macros if isinstance(size, str) else size for size in tensor.shape]
        for name, tensor in spec.weights("score_f32").items()
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        write_tensors(path, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            file.seek(0)
            header = file.read(8 + length)
        return header, path.stat().st_size - len(header)


def _in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, items))
