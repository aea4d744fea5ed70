"""A listing of a store is sorted by tenant while it passes, and never held."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from registry.fleet.entries import FleetEntry
from registry.layout import LABELS, MANIFEST, PROVENANCE, WEIGHTS, catalogue_key, lease_key, model_key, program_key
from registry.store import ObjectInfo, ObjectStore
from registry.verify import snapshot
from registry.verify.snapshot import Bundles
from registry.verify.stored import Listings, Stored, whole_programs
from tests.registry.memory_store import MemoryStore
from tests.registry.region_world import digest_of_program, made, serve

FILES = frozenset({WEIGHTS, LABELS, MANIFEST})


def info(key: str, size: int = 1) -> ObjectInfo:
    return ObjectInfo(key=key, size=size, etag="")


def test_a_listing_is_sorted_by_tenant_and_version() -> None:
    listing = [
        info(catalogue_key("acme-2")),
        *(
            info(model_key("acme", version, name), size)
            for version, size in (("1", 5), ("2", 7))
            for name in sorted(FILES)
        ),
        info("tenants/acme/models/3/weights.safetensors"),
        info(lease_key("acme")),
        info("tenants/stray.json"),
        info("tenants/NoTenant/models/1/manifest.json"),
    ]
    (first, second) = Listings().by_tenant(listing)
    assert first == ("acme-2", Stored(has_catalogue=True), {})
    tenant, stored, sizes = second
    assert (tenant, stored.has_catalogue, stored.whole()) == ("acme", False, {"1", "2"})
    assert stored.versions["1"] is stored.versions["2"] == FILES
    assert sizes["2"] == dict.fromkeys(FILES, 7)
    programs = [info(program_key("a" * 64, name)) for name in ("files.json", "saved_model.pb")]
    assert whole_programs([*programs, info(program_key("b" * 64, "saved_model.pb"))]) == {"a" * 64}


def test_no_more_of_a_listing_is_held_than_is_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "_AT_ONCE", 2)
    names = [f"t{number}" for number in range(8)]
    store = MemoryStore(versioned=False)
    for name in names:
        serve(store, name, 1)
    entries = {name: FleetEntry().with_version(made(name, 1)[1].version, made(name, 1)[1].digest) for name in names}
    bundles = Bundles(store, entries, deep=False, step=lambda *_: None)
    ahead: list[int] = []

    def listing(store: ObjectStore) -> Iterator[ObjectInfo]:
        for found in store.list("tenants/"):
            if found.key.endswith(f"/{MANIFEST}"):
                ahead.append(names.index(found.key.split("/")[1]) - len(bundles.manifests))
            yield found

    bundles.read(listing(store))
    assert max(ahead) <= 2, ahead
    assert {tenant for tenant, _ in bundles.manifests} == set(names)
    assert {one.program for one in bundles.manifests.values()} == {digest_of_program()}
    assert bundles.problems == {}
    assert all(PROVENANCE not in found for one in bundles.stored.values() for found in one.versions.values())
