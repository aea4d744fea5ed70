"""The archive for a SageMaker multi-model endpoint."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from registry.catalogue import Catalogue, Macro, make_catalogue, parse_catalogue, read_catalogue, write_catalogue
from registry.errors import (
    BundleCorrupt,
    CatalogueUnavailable,
    InvalidInput,
    InvalidTenant,
    MacrofleetError,
    ModelNotFound,
    TenantNotFound,
)
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import LABELS, MANIFEST, WEIGHTS, catalogue_key, model_key
from registry.model.bundle import Label, Manifest, write_bundle
from registry.model.mapped import map_bundle
from registry.model.sagemaker_export import CATALOGUE, export_sagemaker
from registry.publishing import publish_bundle
from registry.store.local import LocalStore

PROGRAM = "ab" * 32
FILES = (CATALOGUE, LABELS, MANIFEST, WEIGHTS)
MACROS = (
    Macro(id="m0", title="Refund", actions=({"field": "comment", "value": "what agents say"},)),
    Macro(id="m1", title="Off", active=False),
    Macro(id="m2", title="For some", restriction={"type": "Group", "id": 7}),
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def manifest(store: LocalStore, tmp_path: Path) -> Manifest:
    return publish(store, tmp_path)


def publish(store: LocalStore, tmp_path: Path, *, tenant: str = "acme", value: float = 0.5) -> Manifest:
    folder = tmp_path / f"bundle-{tenant}-{value}"
    folder.mkdir()
    write_bundle(
        folder,
        tenant=tenant,
        program=PROGRAM,
        tensors={"kernel": np.full((3, 3), value, np.float32)},
        macros=[Label(id=f"m{index}", title=f"then {index}") for index in range(3)],
        data_fingerprint="0" * 64,
        settings={},
        metrics={},
        threshold=0.0,
    )
    made = publish_bundle(store, folder, tenant=tenant)
    found = read_catalogue(store, tenant)
    write_catalogue(store, tenant, make_catalogue(MACROS), etag=found[1] if found else None)
    update_fleet(store, {tenant: lambda _: FleetEntry(version=made.version, manifest=made.digest)})
    return made


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path, "r:gz") as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def test_an_archive_is_the_bundle_and_the_catalogue(store: LocalStore, manifest: Manifest, tmp_path: Path) -> None:
    made = export_sagemaker(store, "acme", folder=tmp_path / "out" / "deep")
    assert made.path == tmp_path / "out" / "deep" / "acme.tar.gz"
    assert (made.tenant, made.version, made.program) == ("acme", manifest.version, PROGRAM)
    assert made.size == made.path.stat().st_size
    found = members(made.path)
    assert tuple(found) == FILES
    for name in (LABELS, MANIFEST, WEIGHTS):
        assert found[name] == store.get(model_key("acme", manifest.version, name)).data
    assert os.listdir(made.path.parent) == ["acme.tar.gz"]


def test_an_unpacked_archive_is_a_bundle(store: LocalStore, manifest: Manifest, tmp_path: Path) -> None:
    made = export_sagemaker(store, "acme", folder=tmp_path)
    with tarfile.open(made.path) as tar:
        tar.extractall(tmp_path / "model", filter="data")
    assert map_bundle(tmp_path / "model", tenant="acme").manifest == manifest


def test_only_what_anybody_may_be_shown_leaves_the_store(store: LocalStore, manifest: Manifest, tmp_path: Path) -> None:
    data = members(export_sagemaker(store, "acme", folder=tmp_path).path)[CATALOGUE]
    assert parse_catalogue(data, what="") == Catalogue(macros=(Macro(id="m0", title="Refund"),))
    assert b"what agents say" not in data


def test_the_same_model_gives_the_same_bytes(store: LocalStore, manifest: Manifest, tmp_path: Path) -> None:
    first = export_sagemaker(store, "acme", folder=tmp_path / "one")
    again = export_sagemaker(store, "acme", folder=tmp_path / "another")
    assert first.path.read_bytes() == again.path.read_bytes()
    assert first.key == again.key
    with tarfile.open(first.path) as tar:
        for entry in tar:
            assert (entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, 0, "", "")
            assert (entry.mode, entry.type) == (0o644, tarfile.REGTYPE)
    with gzip.open(first.path) as packed:
        packed.read(1)
        assert packed.mtime == 0


def test_a_key_names_the_content(store: LocalStore, manifest: Manifest, tmp_path: Path) -> None:
    made = export_sagemaker(store, "acme", folder=tmp_path)
    digest = hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert made.sha256 == digest
    assert made.key == made.target_model == f"acme/{manifest.version}-{digest[:8]}.tar.gz"
    found = read_catalogue(store, "acme")
    assert found
    write_catalogue(store, "acme", make_catalogue([Macro(id="m0", title="Money back")]), etag=found[1])
    renamed = export_sagemaker(store, "acme", folder=tmp_path)
    assert renamed.version == made.version
    assert renamed.key != made.key, "SageMaker would go on serving the old titles"


def test_a_report_is_json(store: LocalStore, manifest: Manifest, tmp_path: Path) -> None:
    made = export_sagemaker(store, "acme", folder=tmp_path)
    assert made.as_dict() == {
        "tenant": "acme",
        "version": manifest.version,
        "path": str(tmp_path / "acme.tar.gz"),
        "bytes": made.size,
        "sha256": made.sha256,
        "program": PROGRAM,
        "s3_key": made.key,
        "target_model": made.key,
    }


def test_what_the_fleet_serves_is_exported(store: LocalStore, manifest: Manifest, tmp_path: Path) -> None:
    newer = publish(store, tmp_path, value=0.25)
    update_fleet(store, {"acme": lambda _: FleetEntry(version=manifest.version, manifest=manifest.digest)})
    assert newer.version != manifest.version
    assert export_sagemaker(store, "acme", folder=tmp_path).version == manifest.version


@pytest.mark.parametrize("name", [LABELS, WEIGHTS, MANIFEST])
@pytest.mark.parametrize("damage", ["changed", "longer", "gone"])
def test_a_damaged_bundle_leaves_the_old_archive(
    store: LocalStore, manifest: Manifest, tmp_path: Path, name: str, damage: str
) -> None:
    out = tmp_path / "out"
    before = export_sagemaker(store, "acme", folder=out).path.read_bytes()
    key = model_key("acme", manifest.version, name)
    data = bytearray(store.get(key).data)
    data[-2] ^= 1
    if damage == "gone":
        store.delete(key)
    else:
        store.put(key, bytes(data) if damage == "changed" else store.get(key).data + b" ")
    with pytest.raises(ModelNotFound if damage == "gone" else BundleCorrupt):
        export_sagemaker(store, "acme", folder=out)
    assert os.listdir(out) == ["acme.tar.gz"]
    assert (out / "acme.tar.gz").read_bytes() == before


def test_a_version_that_is_not_its_manifests(store: LocalStore, manifest: Manifest, tmp_path: Path) -> None:
    for name in (LABELS, WEIGHTS, MANIFEST):
        store.put(model_key("acme", "0" * 16, name), store.get(model_key("acme", manifest.version, name)).data)
    update_fleet(store, {"acme": lambda _: FleetEntry(version="0" * 16, manifest=manifest.digest)})
    with pytest.raises(BundleCorrupt):
        export_sagemaker(store, "acme", folder=tmp_path)


def test_a_tenant_without_a_catalogue(store: LocalStore, manifest: Manifest, tmp_path: Path) -> None:
    store.delete(catalogue_key("acme"))
    with pytest.raises(CatalogueUnavailable):
        export_sagemaker(store, "acme", folder=tmp_path)


@pytest.mark.parametrize(
    ("tenant", "error"), [("globex", TenantNotFound), ("new", ModelNotFound), ("../acme", InvalidTenant)]
)
def test_a_tenant_without_a_model(
    store: LocalStore, manifest: Manifest, tmp_path: Path, tenant: str, error: type[MacrofleetError]
) -> None:
    update_fleet(store, {"new": lambda _: FleetEntry(reason="too few examples")})
    with pytest.raises(error):
        export_sagemaker(store, tenant, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(store: LocalStore, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot write to"):
        export_sagemaker(store, "acme", folder=tmp_path / "file" / "out")
