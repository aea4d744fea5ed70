"""What a comparison of plain snapshots finds, and what would mend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from registry.files import FileDigest
from registry.fleet.state import FleetEntry
from registry.layout import LABELS, MANIFEST, PROVENANCE, WEIGHTS, catalogue_key, model_key, program_key
from registry.model.bundle import Manifest
from registry.store import ObjectInfo
from registry.tracking.records import TrackedRun, TrackedVersion, bundle_address
from registry.verify.differences import (
    Difference,
    DropVersion,
    EndRun,
    Kind,
    Problem,
    Register,
    SetChampion,
    Snapshot,
    WriteProvenance,
    compare,
    named_versions,
)
from registry.verify.stored import Listings, Usable, whole_programs

STORE = "s3://models/prod"
PROGRAM = "b" * 64
ANY = FileDigest(sha256="a" * 64, size=1)


def manifest_of(tenant: str = "acme", seed: int = 0) -> Manifest:
    return Manifest(
        tenant=tenant,
        program=PROGRAM,
        files={WEIGHTS: ANY, LABELS: ANY},
        data_fingerprint="c" * 64,
        settings={"seed": seed},
        metrics={},
        threshold=0.5,
    )


OLD, NEW, OTHER = (manifest_of(seed=seed) for seed in range(3))


def objects(manifest: Manifest, *, without: str = "") -> dict[str, int]:
    names = (WEIGHTS, LABELS, MANIFEST, PROVENANCE)
    return {model_key(manifest.tenant, manifest.version, name): 1 for name in names if name != without}


def usable(manifest: Manifest) -> Usable:
    return Usable(program=manifest.program, digest=manifest.digest)


SIZES = {**objects(OLD), **objects(NEW), catalogue_key("acme"): 1, program_key(PROGRAM, "files.json"): 1}


def tracked(manifest: Manifest, number: int, /, **update: Any) -> TrackedVersion:
    made = TrackedVersion(
        tenant=manifest.tenant,
        number=number,
        run_id=f"run-{number}",
        version=manifest.version,
        manifest=manifest.digest,
        bundle=bundle_address(STORE, manifest.tenant, manifest.version),
    )
    return replace(made, **update)


def good(**update: Any) -> Snapshot:
    """acme serves NEW after OLD, and all is as it should be but for the update; of the store, `sizes` is a listing."""
    entry = FleetEntry().with_version(OLD.version, OLD.digest).with_version(NEW.version, NEW.digest)
    whole: dict[str, Any] = {
        "store_url": STORE,
        "generation": 2,
        "entries": {"acme": entry},
        "manifests": {("acme", OLD.version): usable(OLD), ("acme", NEW.version): usable(NEW)},
        "problems": {},
        "versions": [tracked(OLD, 1), tracked(NEW, 2)],
        "aliases": {"acme": {"champion": 2}},
        "dead_runs": [],
    }
    sizes = update.pop("sizes", SIZES)
    listing = [ObjectInfo(key=key, size=size, etag="") for key, size in sorted(sizes.items())]
    tenants = Listings().by_tenant(info for info in listing if info.key.startswith("tenants/"))
    whole["stored"] = {tenant: stored for tenant, stored, _ in tenants}
    whole["programs"] = whole_programs(info for info in listing if info.key.startswith("programs/"))
    return Snapshot(**{**whole, **update})


def only(snapshot: Snapshot) -> Difference:
    (found,) = compare(snapshot)
    return found


def test_nothing_differs_where_all_is_as_the_fleet_says() -> None:
    assert compare(good()) == []


def test_an_entry_names_its_versions_once_whatever_they_are_for() -> None:
    entry = FleetEntry.model_validate(
        {
            "version": NEW.version,
            "manifest": NEW.digest,
            "previous": OLD.version,
            "shadow": OTHER.version,
            "shadow_manifest": OTHER.digest,
            "candidate": NEW.version,
        }
    )
    assert named_versions(entry) == {NEW.version: NEW.digest, OTHER.version: OTHER.digest, OLD.version: None}
    assert named_versions(FleetEntry(reason="none yet")) == {}


@pytest.mark.parametrize(("manifest", "role"), [(NEW, "which serves"), (OLD, "which would be rolled back to")])
@pytest.mark.parametrize("name", [WEIGHTS, LABELS, MANIFEST])
def test_a_file_that_the_fleet_needs_and_the_store_lacks(manifest: Manifest, role: str, name: str) -> None:
    sizes = {key: size for key, size in SIZES.items() if key != model_key("acme", manifest.version, name)}
    found = only(good(sizes=sizes))
    assert (found.kind, found.tenant, found.repair) == (Kind.FILES_MISSING, "acme", None)
    assert role in found.what
    assert found.where == f"{STORE}/{model_key('acme', manifest.version, name)}"
    assert "train" in found.remedy


@pytest.mark.parametrize("kind", [Kind.FILES_DAMAGED, Kind.OTHER_TENANT])
def test_what_reading_found_is_reported_with_what_the_version_is_for(kind: Kind) -> None:
    problem = Problem(kind=kind, what="its weights have other content", where="there")
    found = only(good(problems={("acme", NEW.version): [problem]}))
    assert (found.kind, found.where, found.repair) == (kind, "there", None)
    assert found.what == f"version {NEW.version}, which serves: its weights have other content"


def test_a_program_a_catalogue_and_a_provenance_that_are_missing() -> None:
    def without(key: str) -> Difference:
        return only(good(sizes={name: size for name, size in SIZES.items() if name != key}))

    program = without(program_key(PROGRAM, "files.json"))
    assert (program.kind, program.repair) == (Kind.PROGRAM_MISSING, None)
    assert "macrofleet programs build" in program.remedy
    catalogue = without(catalogue_key("acme"))
    assert (catalogue.kind, catalogue.repair) == (Kind.CATALOGUE_MISSING, None)
    provenance = without(model_key("acme", OLD.version, PROVENANCE))
    assert provenance.kind is Kind.PROVENANCE_MISSING
    assert provenance.repair == WriteProvenance(version=OLD.version, manifest=OLD.digest)


def test_a_tenant_that_serves_nothing_needs_no_catalogue() -> None:
    assert compare(good(entries={"acme": FleetEntry(reason="none yet")}, sizes={}, versions=[], aliases={})) == []


def test_a_published_version_that_is_not_registered_comes_before_the_alias_that_needs_it() -> None:
    found = compare(good(versions=[tracked(OLD, 1)], aliases={"acme": {"champion": 1}}))
    assert [(one.kind, one.repair) for one in found] == [
        (Kind.NOT_REGISTERED, Register(version=NEW.version)),
        (Kind.ALIAS_DIFFERS, SetChampion()),
    ]


def test_what_is_published_and_not_in_the_fleet_is_registered_too() -> None:
    found = only(good(sizes={**SIZES, **objects(OTHER)}))
    assert (found.kind, found.repair) == (Kind.NOT_REGISTERED, Register(version=OTHER.version))


def test_what_cannot_be_read_cannot_be_registered_nor_be_champion() -> None:
    problem = Problem(kind=Kind.FILES_DAMAGED, what="its manifest is not in canonical form", where="there")
    found = compare(
        good(
            manifests={("acme", OLD.version): usable(OLD)},
            problems={("acme", NEW.version): [problem]},
            versions=[tracked(OLD, 1)],
            aliases={"acme": {"champion": 1}},
        )
    )
    assert [one.kind for one in found] == [Kind.FILES_DAMAGED, Kind.NOT_REGISTERED, Kind.ALIAS_DIFFERS]
    assert [one.repair for one in found] == [None, None, None]


def test_a_version_in_part_is_garbage_collections_unless_the_fleet_names_it() -> None:
    found = only(good(sizes={**SIZES, **objects(OTHER, without=MANIFEST)}))
    assert (found.kind, found.repair, found.left_over) == (Kind.UNFINISHED_BUNDLE, None, True)


@pytest.mark.parametrize("aliases", [{}, {"acme": {"challenger": 2}}, {"acme": {"champion": 1}}])
def test_a_champion_that_is_not_what_serves(aliases: Mapping[str, Mapping[str, int]]) -> None:
    found = only(good(aliases=aliases))
    assert (found.kind, found.repair) == (Kind.ALIAS_DIFFERS, SetChampion())
    assert f"the fleet serves {NEW.version}" in found.what


def test_a_champion_of_a_tenant_that_serves_nothing() -> None:
    found = only(good(entries={"acme": FleetEntry(reason="taken away")}))
    assert (found.kind, found.repair) == (Kind.ALIAS_DIFFERS, SetChampion())
    assert "the fleet serves nothing" in found.what


def test_the_later_of_two_registrations_goes_and_its_alias_moves_first() -> None:
    found = compare(
        good(versions=[tracked(OLD, 1), tracked(NEW, 2), tracked(NEW, 3)], aliases={"acme": {"champion": 3}})
    )
    assert [(one.kind, one.repair) for one in found] == [
        (Kind.ALIAS_DIFFERS, SetChampion()),
        (Kind.REGISTERED_TWICE, DropVersion(number=3, heir=2)),
    ]


def test_a_registration_of_what_is_gone_is_removed_unless_it_may_be_elsewhere() -> None:
    here = tracked(OTHER, 3)
    versions = [tracked(OLD, 1), tracked(NEW, 2)]
    found = only(good(versions=[*versions, here]))
    assert (found.kind, found.repair) == (Kind.BUNDLE_GONE, DropVersion(number=3))
    elsewhere = tracked(OTHER, 3, bundle=f"s3://another/tenants/acme/models/{OTHER.version}")
    found = only(good(versions=[*versions, elsewhere]))
    assert (found.kind, found.repair) == (Kind.BUNDLE_GONE, None)
    assert "s3://another" in found.remedy
    emptied = compare(good(generation=0, entries={}, sizes={}, manifests={}, versions=[here], aliases={}))
    assert [(one.kind, one.repair) for one in emptied] == [(Kind.NOT_IN_FLEET, None), (Kind.BUNDLE_GONE, None)]


def test_the_registration_of_what_the_fleet_names_stays_though_its_files_are_gone() -> None:
    kept = {key: size for key, size in SIZES.items() if f"/{OLD.version}/" not in key}
    found = compare(good(sizes=kept, manifests={("acme", NEW.version): usable(NEW)}))
    assert {one.kind for one in found} == {Kind.FILES_MISSING}


@pytest.mark.parametrize("update", [{"manifest": "", "version": ""}, {"version": "0" * 16}])
def test_a_version_that_somebody_else_registered_is_left_to_them(update: Mapping[str, str]) -> None:
    found = only(good(versions=[tracked(OLD, 1), tracked(NEW, 2), tracked(OTHER, 3, **update)]))
    assert (found.kind, found.repair) == (Kind.FOREIGN_VERSION, None)


def test_a_tenant_with_models_that_the_fleet_does_not_know() -> None:
    found = compare(good(entries={}, aliases={"acme": {}}))
    assert [(one.kind, one.repair) for one in found] == [(Kind.NOT_IN_FLEET, None)]


def test_a_run_that_a_crash_left_open_ends_as_what_it_came_to() -> None:
    def run(run_id: str, **update: str) -> TrackedRun:
        given = {"tenant": "acme", "manifest": NEW.digest, "fleet_run": "", **update}
        began = datetime(2026, 11, 28, 2, tzinfo=UTC)
        return TrackedRun(run_id=run_id, experiment_id="1", parent="", status="RUNNING", started_at=began, **given)

    fleet = run("f", tenant="", manifest="", fleet_run="2026-11-28-x")
    found = compare(good(dead_runs=[run("run-2"), run("nowhere"), fleet]))
    assert {one.kind for one in found} == {Kind.RUN_UNFINISHED}
    assert [one.repair for one in found] == [
        EndRun(run_id="run-2", status="FINISHED"),
        EndRun(run_id="nowhere", status="KILLED"),
        EndRun(run_id="f", status="KILLED"),
    ]
    assert [one.tenant for one in found] == ["acme", "acme", ""]


def test_names_that_are_no_tenants_are_not_ours() -> None:
    assert compare(good(sizes={**SIZES, "tenants/A.B/models/x/manifest.json": 1})) == []
