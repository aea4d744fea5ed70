"""Fleets of models that are made quickly and must still be what they say."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from benchmarks.fleets import (
    SyntheticFleet,
    SyntheticModel,
    check_room,
    folder_writer,
    limit,
    serve,
    store_writer,
    tenant_names,
    write_catalogues,
)
from registry.catalogue import parse_catalogue
from registry.disk.tier import DiskTier
from registry.errors import InvalidInput
from registry.fleet.state import FleetEntry, TenantLimits
from registry.layout import LABELS, MANIFEST, WEIGHTS, catalogue_key, model_key
from registry.model.bundle import Manifest, parse_labels
from registry.model.program import ProgramSpec, Signature, TensorSpec
from registry.model.tensors import parse_header
from registry.store.local import LocalStore

MACROS = 3


def tensor(*shape: int | str) -> TensorSpec:
    return TensorSpec(dtype="float32", shape=shape)


SPEC = ProgramSpec(
    name="small",
    least_tensorflow="2.21",
    signatures={
        "featurise": Signature(inputs={}, outputs={"features": tensor("tickets", 8)}),
        "score_f32": Signature(
            inputs={"features": tensor("tickets", 8), "kernel": tensor(8, "macros"), "bias": tensor("macros")},
            outputs={"scores": tensor("tickets", "macros")},
        ),
    },
)


@pytest.fixture
def fleet() -> SyntheticFleet:
    return SyntheticFleet(program="a" * 64, spec=SPEC, macros=MACROS, models=4)


@pytest.fixture
def models(fleet: SyntheticFleet) -> list[SyntheticModel]:
    return fleet.make([("acme", "m-v1"), ("beta", "m-v1"), ("acme", "m-v2")], threshold=0.25)


def test_a_model_is_what_its_manifest_says(fleet: SyntheticFleet, models: list[SyntheticModel]) -> None:
    for model in models:
        data = fleet.weights(model).read()
        named = model.manifest.files[WEIGHTS]
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (named.sha256, named.size)
        assert len(data) == fleet.model_bytes
        shapes = {name: info.shape for name, info in parse_header(data, len(data), what="weights").items()}
        assert shapes == {"kernel": (8, MACROS), "bias": (MACROS,)}
        named = model.manifest.files[LABELS]
        assert (hashlib.sha256(model.labels).hexdigest(), len(model.labels)) == (named.sha256, named.size)
        assert model.manifest.threshold == 0.25
    assert [model.tenant for model in models] == ["acme", "beta", "acme"]
    ids = [[label.id for label in parse_labels(model.labels, what="labels").macros] for model in models]
    assert ids == [[f"{prefix}-{number}" for number in range(MACROS)] for prefix in ("m-v1", "m-v1", "m-v2")]


def test_no_two_models_are_alike(fleet: SyntheticFleet, models: list[SyntheticModel]) -> None:
    more = fleet.make([("acme", "m-v1")])
    assert len({fleet.weights(model).read() for model in [*models, *more]}) == 4
    assert len({model.manifest.version for model in [*models, *more]}) == 4
    with pytest.raises(AssertionError, match="more models"):
        fleet.make([("acme", "m-v1")])


def test_weights_are_small_numbers_of_either_sign(fleet: SyntheticFleet, models: list[SyntheticModel]) -> None:
    data = fleet.weights(models[0]).read()
    numbers = np.frombuffer(data[-4 * 9 * MACROS :], np.float32)
    assert np.isfinite(numbers).all()
    assert numbers.min() < 0 < numbers.max()
    assert 0.1 < numbers.std() < 0.5


def test_models_are_the_same_for_the_same_seed(fleet: SyntheticFleet, models: list[SyntheticModel]) -> None:
    again = SyntheticFleet(program="a" * 64, spec=SPEC, macros=MACROS, models=4)
    other = SyntheticFleet(program="a" * 64, spec=SPEC, macros=MACROS, models=4, seed=1)
    (same,), (different,) = (one.make([("acme", "m-v1")], threshold=0.25) for one in (again, other))
    assert same.manifest == models[0].manifest != different.manifest


def test_weights_are_read_piece_by_piece_as_well(fleet: SyntheticFleet, models: list[SyntheticModel]) -> None:
    stream = fleet.weights(models[1])
    pieces = list(iter(lambda: stream.read(7), b""))
    assert b"".join(pieces) == fleet.weights(models[1]).read()


def test_models_are_published_manifest_last(fleet: SyntheticFleet, models: list[SyntheticModel]) -> None:
    written: dict[str, bytes] = {}

    def put(key: str, stream: IO[bytes]) -> None:
        written[key] = stream.read()

    fleet.publish(put, models)
    assert len(written) == 3 * len(models)
    for model in models:
        prefix = model_key(model.tenant, model.manifest.version, "")
        assert [key for key in written if key.startswith(prefix)][-1] == prefix + MANIFEST
        assert Manifest.parse(written[prefix + MANIFEST], what="manifest", error=InvalidInput) == model.manifest
        assert written[prefix + WEIGHTS] == fleet.weights(model).read()
        assert written[prefix + LABELS] == model.labels


def test_an_installed_model_is_found_without_a_store(
    fleet: SyntheticFleet, models: list[SyntheticModel], tmp_path: Path
) -> None:
    fleet.install(tmp_path / "disk", models)
    with DiskTier(tmp_path / "disk", LocalStore(tmp_path / "no-store"), trusted=frozenset()) as disk:
        for model in models:
            mapped = disk.map_model(model.tenant, model.manifest.version, model.manifest.digest)
            assert mapped.manifest == model.manifest


def test_a_catalogue_has_the_macros_of_all_its_models(fleet: SyntheticFleet, tmp_path: Path) -> None:
    write_catalogues(folder_writer(tmp_path), {"acme": fleet.catalogue(["m-v1", "m-v2"])})
    catalogue = parse_catalogue((tmp_path / catalogue_key("acme")).read_bytes(), what="catalogue")
    assert [macro.id for macro in catalogue.macros] == [f"m-v{v}-{n}" for v in (1, 2) for n in range(MACROS)]


def test_writers_write_what_a_store_reads(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for place, put in enumerate([folder_writer(tmp_path), store_writer(store)]):
        put(f"tenants/acme/{place}", io.BytesIO(b"content"))
        assert store.get(f"tenants/acme/{place}").data == b"content"


def test_serving_a_version_keeps_what_else_the_fleet_says(models: list[SyntheticModel]) -> None:
    first, second = models[0].manifest, models[2].manifest
    limits = TenantLimits(requests_per_second=5)
    entry = limit(limits)(serve(first)(None))
    assert entry is not None
    assert (entry.version, entry.manifest, entry.previous) == (first.version, first.digest, None)
    entry = serve(second)(entry)
    assert entry == FleetEntry(
        version=second.version,
        manifest=second.digest,
        previous=first.version,
        previous_manifest=first.digest,
        limits=limits,
    )
    assert serve(second)(entry) == entry


def test_names_sort_as_they_count() -> None:
    assert tenant_names(2) == ["tenant-00000", "tenant-00001"]
    assert tenant_names(1, "other") == ["other-00000"]


def test_a_disk_without_room_is_refused_early(tmp_path: Path) -> None:
    check_room(tmp_path, 0)
    with pytest.raises(InvalidInput, match="GB free, and this needs"):
        check_room(tmp_path, 1 << 60)
