"""A model in memory: a bundle in a local folder, verified and mapped. The disk tier and `map_bundle` come through here."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from registry.disk.pages import forget
from registry.errors import BundleCorrupt, InvalidTenant
from registry.files import FileState, file_digest, file_state, read_failure, read_whole
from registry.layout import LABELS, MANIFEST, WEIGHTS
from registry.model.bundle import MAX_LABEL_BYTES, MAX_MANIFEST_BYTES, Labels, Manifest, parse_labels, parse_manifest
from registry.model.tensors import open_tensors
from registry.names import check_tenant


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class MappedModel:
    """A verified bundle, its tensors mapped.

    Attributes:
        nbytes: length of the mapping in bytes, which is what a memory budget counts.
        path: the file that is mapped; None for weights that come from no file.
    """

    manifest: Manifest
    labels: Labels
    tensors: Mapping[str, NDArray[Any]]
    nbytes: int
    path: Path | None = None
    _mapping: mmap.mmap | None = field(default=None, repr=False)

    def forget_pages(self) -> None:
        """Let the kernel have the weights' memory back, page cache included; for a model that the budget evicts.

        The model stays usable, only slow: what is touched later is read from disk. Never raises, does not wait.
        """
        if self._mapping is not None and self.path is not None:
            forget(self._mapping, self.path)


def file_states(folder: Path, manifest: Manifest) -> dict[str, FileState]:
    """The state of every file that a manifest names. Raises BundleCorrupt when one is missing, StoreError."""
    states = {}
    for name in manifest.files:
        try:
            status = os.stat(f"{folder}/{name}")
        except OSError as problem:
            raise read_failure(folder / name, problem, missing=BundleCorrupt) from None
        states[name] = file_state(status)
    return states


def check_files(folder: Path, manifest: Manifest) -> None:
    """Hash every file that a manifest names.

    Raises:
        BundleCorrupt: one is missing, or is not what the manifest says.
        StoreError: one cannot be read.
    """
    for name, expected in manifest.files.items():
        path = folder / name
        try:
            # The size first: a file that is no longer than it should be is hashed, never an endless one.
            intact = path.stat().st_size == expected.size and file_digest(path) == expected
        except OSError as problem:
            raise read_failure(path, problem, missing=BundleCorrupt) from None
        if not intact:
            raise BundleCorrupt(f"{path} is not what its manifest says")


def map_files(folder: Path, manifest: Manifest, verified: Mapping[str, FileState]) -> MappedModel:
    """Map a folder's files, whose content was verified when their states were `verified`.

    Raises:
        BundleCorrupt: they are others now, or cannot be used.
        StoreError: they cannot be read.
    """
    size = manifest.files[WEIGHTS].size
    opened = open_tensors(folder / WEIGHTS, expected_size=size)
    labels = parse_labels(read_whole(folder / LABELS, MAX_LABEL_BYTES, error=BundleCorrupt), what=str(folder / LABELS))
    # Asked after opening: what was opened in between is what was verified.
    if file_states(folder, manifest) != verified:
        raise BundleCorrupt(f"{folder} was changed while it was mapped")
    return MappedModel(
        manifest=manifest,
        labels=labels,
        tensors=opened.tensors,
        nbytes=size,
        path=folder / WEIGHTS,
        _mapping=opened.mapping,
    )


def map_bundle(folder: Path, *, tenant: str | None) -> MappedModel:
    """Verify a bundle in any local folder, every byte, and map it; no store and no fleet are asked.

    Args:
        folder: holds the manifest, the weights and the label table; must not be written to while the model lives.
        tenant: whose model it must be; None takes the manifest's word.

    Raises:
        BundleCorrupt: something is missing, is not what the manifest says, or belongs to another tenant.
        StoreError: something is there and cannot be read.
    """
    what = str(folder / MANIFEST)
    data = read_whole(folder / MANIFEST, MAX_MANIFEST_BYTES, error=BundleCorrupt)
    if tenant is None:
        named = Manifest.parse(data, what=what, error=BundleCorrupt).tenant
        try:
            tenant = check_tenant(named)
        except InvalidTenant as problem:
            raise BundleCorrupt(f"{what}: {problem}") from None
    manifest = parse_manifest(data, tenant=tenant, digest=None, what=what)
    verified = file_states(folder, manifest)
    check_files(folder, manifest)
    return map_files(folder, manifest, verified)
