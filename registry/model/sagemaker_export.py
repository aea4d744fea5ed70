"""A tenant's serving model as the archive that a SageMaker multi-model endpoint takes, made the same every time."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from registry.catalogue import Catalogue, Macro, read_catalogue
from registry.errors import BundleCorrupt, CatalogueUnavailable, InvalidInput, ModelNotFound, ObjectNotFound
from registry.files import download, sync_folder, write_durably
from registry.layout import MANIFEST, model_key
from registry.model.bundle import MAX_MANIFEST_BYTES, parse_manifest
from registry.models import serving_entry
from registry.names import check_tenant
from registry.store import ObjectStore
from registry.suggestion_rules import read_rules

# Beside the bundle's files in an archive: what may be suggested, for a server that has no store to ask.
CATALOGUE = "catalogue.json"
# The table of a tenant with few tickets is mostly zeros and shrinks to a seventh; one that is full saves a fourteenth.
# More than 1 costs time and gains less than a hundredth (docs/sagemaker.md).
_GZIP_LEVEL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SageMakerArchive:
    """What was exported, and what SageMaker is to be told.

    Attributes:
        path: the archive.
        sha256: of the archive.
        program: digest of the program that the image must hold.
        key: where to put the archive, below the endpoint's `ModelDataUrl`. It names the content, because SageMaker
            keeps serving what it loaded from a key, whatever is written there later.
        target_model: what callers of `InvokeEndpoint` pass as `TargetModel`.
    """

    tenant: str
    version: str
    path: Path
    size: int
    sha256: str
    program: str
    key: str
    target_model: str

    def as_dict(self) -> dict[str, str | int]:
        """For a report."""
        return {
            "tenant": self.tenant,
            "version": self.version,
            "path": str(self.path),
            "bytes": self.size,
            "sha256": self.sha256,
            "program": self.program,
            "s3_key": self.key,
            "target_model": self.target_model,
        }


def export_sagemaker(store: ObjectStore, tenant: str, *, folder: Path, replace: bool = True) -> SageMakerArchive:
    """Write `<tenant>.tar.gz`: the bundle that the fleet serves for a tenant, and what may be suggested now.

    Everything is verified while it is read. The same model and the same suggestible macros give the same bytes.

    Args:
        store: only read.
        tenant: whose model.
        folder: made if missing.
        replace: whether an archive that is there already is replaced, once the new one is whole, or refused.

    Raises:
        TenantNotFound, ModelNotFound: there is nothing to export.
        CatalogueUnavailable: the tenant has no macro catalogue; a server would suggest nothing either.
        BundleCorrupt: the store does not hold what the fleet names.
        InvalidInput: the folder cannot be written, or there is an archive in it that may not be replaced.
    """
    _, version, digest = serving_entry(store, check_tenant(tenant))
    path = folder / f"{tenant}.tar.gz"
    if not replace and os.path.lexists(path):
        raise InvalidInput(f"{path} is there already", remedy="Name another folder, or move it away.")
    catalogue = _suggestible(store, tenant)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{tenant}-") as temporary:
            beside = Path(temporary)
            program = _fetch_bundle(store, tenant, version, digest, beside)
            write_durably(beside / CATALOGUE, catalogue.to_bytes())
            archive = beside / "archive"
            _pack(archive, sorted(path for path in beside.iterdir()))
            with archive.open("rb") as written:
                content = hashlib.file_digest(written, "sha256").hexdigest()
                size = written.tell()
                os.fsync(written.fileno())
            archive.replace(path)
        sync_folder(folder)
    except OSError as problem:
        raise InvalidInput(
            f"cannot write to {folder} ({problem.strerror})", remedy="Name a folder with room that can be written to."
        ) from problem
    key = f"{tenant}/{version}-{content[:8]}.tar.gz"
    return SageMakerArchive(
        tenant=tenant,
        version=version,
        path=path,
        size=size,
        sha256=content,
        program=program,
        key=key,
        target_model=key,
    )


def _suggestible(store: ObjectStore, tenant: str) -> Catalogue:
    """Ids, titles and locales of what anybody may be shown and the tenant does not exclude.

    What actions a macro takes is not the server's business.
    """
    found = read_catalogue(store, tenant)
    if found is None:
        raise CatalogueUnavailable(
            f"tenant {tenant} has no macro catalogue in {store.url}",
            remedy="Import it: macrofleet tickets import --macros FILE.",
        )
    excluded = frozenset(read_rules(store, tenant).exclude_macros or ())
    macros = [macro for macro in found[0].suggestible().values() if macro.id not in excluded]
    return Catalogue(macros=tuple(Macro(id=macro.id, title=macro.title, locale=macro.locale) for macro in macros))


def _fetch_bundle(store: ObjectStore, tenant: str, version: str, digest: str, folder: Path) -> str:
    """Copy a bundle to a folder, verified, and return its program's digest."""
    key = model_key(tenant, version, MANIFEST)
    try:
        data = store.get(key, max_bytes=MAX_MANIFEST_BYTES).data
        manifest = parse_manifest(data, tenant=tenant, digest=digest, what=f"{store.url}/{key}")
        if manifest.version != version:
            raise BundleCorrupt(f"{store.url}/{key} is version {manifest.version}, the fleet names {version}")
        for name, expected in manifest.files.items():
            download(store, model_key(tenant, version, name), folder / name, expected, error=BundleCorrupt)
    except ObjectNotFound as problem:
        raise ModelNotFound(f"version {version} of tenant {tenant} is not in {store.url}: {problem.what}") from None
    write_durably(folder / MANIFEST, data)
    return manifest.program


def _pack(archive: Path, files: list[Path]) -> None:
    """A gzipped tar in which nothing depends on when, where and by whom it was made."""
    with (
        archive.open("xb") as raw,
        # Without a name in its header, and with no time.
        gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=raw, mtime=0) as packed,
        tarfile.open(mode="w", fileobj=packed, format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in files:
            entry = tarfile.TarInfo(path.name)  # its time, owner and group are 0
            entry.size = path.stat().st_size
            entry.mode = 0o644
            with path.open("rb") as file:
                tar.addfile(entry, file)
