"""A tenant's serving model as an ordinary SavedModel, which any TensorFlow server loads: text in, labels and scores out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from registry.disk.tier import DiskTier
from registry.errors import InvalidInput
from registry.files import FULL, scratch_folder, sync_file, sync_folder, write_durably
from registry.layout import MANIFEST
from registry.model.freezing import freeze
from registry.models import serving_entry
from registry.names import check_tenant
from registry.store import ObjectStore

# Where TensorFlow keeps what is beside a SavedModel and none of its own.
_EXTRA = "assets.extra"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModelExport:
    """What was exported.

    Attributes:
        path: the SavedModel's folder.
        size: of all its files, in bytes.
        program: digest of the program that is in it.
        threshold: the least score at which our server suggests; a server of the export answers below it too.
    """

    tenant: str
    version: str
    path: Path
    size: int
    program: str
    threshold: float

    def as_dict(self) -> dict[str, str | int | float]:
        """For a report."""
        return {
            "tenant": self.tenant,
            "version": self.version,
            "path": str(self.path),
            "bytes": self.size,
            "program": self.program,
            "threshold": self.threshold,
        }


def export_saved_model(
    store: ObjectStore, tenant: str, *, folder: Path, number: int = 1, trusted: frozenset[str]
) -> SavedModelExport:
    """Write `<folder>/<tenant>/<number>`, a SavedModel of what the fleet serves for a tenant, program and weights.

    Everything is verified while it is read. The same model gives the same bytes under the same TensorFlow.

    Args:
        store: only read.
        tenant: whose model.
        folder: made if missing; TensorFlow Serving's `--model_base_path` is the tenant's folder in it.
        number: of the version, as TensorFlow Serving counts them: it serves the highest.
        trusted: digests of programs; building a SavedModel executes one.

    Raises:
        TenantNotFound, ModelNotFound: there is nothing to export.
        BundleCorrupt, ProgramCorrupt: the store does not hold what the fleet names.
        ProgramUntrusted: the model's program may not be executed here.
        InvalidInput: the folder cannot be written, or the number is taken.
        OutOfResources: there is no room to put it together.
    """
    if number < 1:
        raise InvalidInput(f"a version cannot have the number {number}", remedy="Name a whole number from 1.")
    _, version, digest = serving_entry(store, check_tenant(tenant))
    path = folder / tenant / str(number)
    if os.path.lexists(path):
        raise InvalidInput(f"{path} is there already", remedy="Name another number or folder, or move it away.")
    with scratch_folder("macrofleet-export-") as temporary, DiskTier(temporary, store, trusted=trusted) as disk:
        manifest = disk.install_model(tenant, version, digest)
        program = disk.install_program(manifest.program)
        bundle = disk.model_folder(tenant, version)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{number}.{os.getpid()}.export")
            freeze(program, bundle, beside)
            (beside / _EXTRA).mkdir()
            write_durably(beside / _EXTRA / MANIFEST, (bundle / MANIFEST).read_bytes())
            files = [file for file in beside.rglob("*") if file.is_file()]
            for file in files:
                sync_file(file)
            size = sum(file.stat().st_size for file in files)
            beside.rename(path)
            sync_folder(path.parent)
        except OSError as problem:
            if problem.errno in FULL:
                raise
            raise InvalidInput(
                f"cannot write to {folder} ({problem.strerror})",
                remedy="Name a folder with room that can be written to.",
            ) from problem
    return SavedModelExport(
        tenant=tenant,
        version=version,
        path=path,
        size=size,
        program=manifest.program,
        threshold=manifest.threshold,
    )
