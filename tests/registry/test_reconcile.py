"""A fleet, a store and an MLflow that are brought apart, and mended from the fleet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from macrofleet import app
from registry.catalogue import Macro, make_catalogue, write_catalogue
from registry.documents import canonical_json
from registry.errors import InvalidTenant, TenantNotFound, TrackingUnavailable
from registry.fleet.control import roll_back
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import LABELS, MANIFEST, PROVENANCE, WEIGHTS, catalogue_key, model_key, program_key
from registry.leases import Lease, Leases
from registry.model.bundle import Manifest
from registry.publishing import record_provenance
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store
from registry.tracking.models import Tracking
from registry.tracking.records import registered_model
from registry.verify import reconcile
from registry.verify.differences import Kind
from registry.verify.reconcile import Verification, verify_fleet
from registry.verify.snapshot import read_snapshot
from tests.registry.conftest import Publish, ask
from tests.registry.lease_world import Clock

NOW = datetime.now(UTC) + timedelta(days=3)
TENANTS = ("acme", "globex", "initech")


class World:
    """Three tenants, one of them of two versions, as training leaves them."""

    def __init__(self, store: ObjectStore, tracking: Tracking, publish: Publish) -> None:
        self.store = store
        self.tracking = tracking
        self.publish = publish
        self.manifests: dict[str, Manifest] = {}
        self.store.put(program_key("a" * 64, "files.json"), b"{}")
        for tenant in TENANTS:
            write_catalogue(store, tenant, make_catalogue([Macro(id="m0", title="Macro 0")]), etag=None)
            self.train(tenant, 0)
        self.train("acme", 1)

    def train(self, tenant: str, seed: int) -> Manifest:
        manifest = self.publish(self.store, tenant, seed=seed)
        registration = self.tracking.register(manifest, parameters={}, tags={})
        provenance = {"mlflow_run_id": registration.run_id}
        record_provenance(self.store, tenant=tenant, version=manifest.version, provenance=provenance)
        serves = (manifest.version, manifest.digest)
        update_fleet(self.store, {tenant: lambda entry: (entry or FleetEntry()).with_version(*serves)})
        self.tracking.set_alias(tenant, "champion", manifest_digest=manifest.digest)
        self.manifests[tenant] = manifest
        return manifest

    def verify(self, **options: Any) -> Verification:
        return verify_fleet(self.store, self.tracking, clock=lambda: NOW, **options)

    def champion(self, tenant: str) -> str:
        found = ask(self.tracking, "get_model_version_by_alias", registered_model(tenant), "champion")
        return str(found.tags["macrofleet.manifest"])


@pytest.fixture
def world(tmp_path: Path, tracking: Tracking, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    return World(open_store(StoreSettings()), tracking, publish)


def kinds(found: Verification) -> list[tuple[str, Kind]]:
    return [(one.difference.tenant, one.difference.kind) for one in found.findings]


# Each brings something apart and says what is found then; all but the last few can be mended.
Break = Callable[[World], Kind]
MENDABLE: list[Break] = []
LASTING: list[Break] = []


def mendable(function: Break) -> Break:
    MENDABLE.append(function)
    return function


def lasting(function: Break) -> Break:
    LASTING.append(function)
    return function


@mendable
def never_registered(world: World) -> Kind:
    ask(world.tracking, "delete_model_version", registered_model("acme"), "1")
    return Kind.NOT_REGISTERED


@mendable
def registered_twice(world: World) -> Kind:
    version = ask(world.tracking, "get_model_version", registered_model("acme"), "2")
    made = ask(
        world.tracking, "create_model_version", version.name, version.source, version.run_id, tags=version.tags,
        await_creation_for=None,
    )  # fmt: skip
    ask(world.tracking, "set_registered_model_alias", version.name, "challenger", made.version)
    return Kind.REGISTERED_TWICE


@mendable
def gone_from_the_store(world: World) -> Kind:
    left_over = world.publish(world.store, "acme", seed=7)
    world.tracking.register(left_over, parameters={}, tags={})
    for name in (MANIFEST, LABELS, WEIGHTS):
        world.store.delete(model_key("acme", left_over.version, name))
    return Kind.BUNDLE_GONE


@mendable
def champion_behind(world: World) -> Kind:
    ask(world.tracking, "set_registered_model_alias", registered_model("acme"), "champion", "1")
    return Kind.ALIAS_DIFFERS


@mendable
def champion_gone(world: World) -> Kind:
    ask(world.tracking, "delete_registered_model_alias", registered_model("acme"), "champion")
    return Kind.ALIAS_DIFFERS


@mendable
def rolled_back(world: World) -> Kind:
    roll_back(world.store, ["acme"])
    return Kind.ALIAS_DIFFERS


@mendable
def taken_away(world: World) -> Kind:
    update_fleet(world.store, {"acme": lambda _: FleetEntry(reason="taken away")})
    return Kind.ALIAS_DIFFERS


@mendable
def provenance_gone(world: World) -> Kind:
    world.store.delete(model_key("acme", world.manifests["acme"].version, PROVENANCE))
    return Kind.PROVENANCE_MISSING


@mendable
def run_left_open(world: World) -> Kind:
    experiment = world.tracking.runs.experiment_id()
    tags = {"macrofleet.tenant": "acme", "macrofleet.manifest": "0" * 64}
    ask(world.tracking, "create_run", experiment, tags=tags)
    return Kind.RUN_UNFINISHED


@mendable
def fleet_run_left_open(world: World) -> Kind:
    world.tracking.runs.get("20261128T020000-aaaaaaaaaaaa")
    return Kind.RUN_UNFINISHED


@lasting
def weights_gone(world: World) -> Kind:
    world.store.delete(model_key("acme", world.manifests["acme"].version, WEIGHTS))
    return Kind.FILES_MISSING


@lasting
def weights_cut_short(world: World) -> Kind:
    world.store.put(model_key("acme", world.manifests["acme"].version, WEIGHTS), b"short")
    return Kind.FILES_DAMAGED


@lasting
def manifest_changed(world: World) -> Kind:
    changed = world.manifests["acme"].model_copy(update={"threshold": 0.9})
    world.store.put(model_key("acme", world.manifests["acme"].version, MANIFEST), changed.to_bytes())
    return Kind.FILES_DAMAGED


@lasting
def manifest_of_another_tenant(world: World) -> Kind:
    theirs = world.manifests["globex"].to_bytes()
    world.store.put(model_key("acme", world.manifests["acme"].version, MANIFEST), theirs)
    return Kind.OTHER_TENANT


@lasting
def manifest_that_is_none(world: World) -> Kind:
    world.store.put(model_key("acme", world.manifests["acme"].version, MANIFEST), b"{" * 2_000_000)
    return Kind.FILES_DAMAGED


@lasting
def catalogue_gone(world: World) -> Kind:
    world.store.delete(catalogue_key("acme"))
    return Kind.CATALOGUE_MISSING


@lasting
def program_gone(world: World) -> Kind:
    world.store.delete(program_key("a" * 64, "files.json"))
    return Kind.PROGRAM_MISSING


@lasting
def registered_by_hand(world: World) -> Kind:
    ask(world.tracking, "create_model_version", registered_model("acme"), "file:///x", await_creation_for=None)
    return Kind.FOREIGN_VERSION


@lasting
def left_the_fleet(world: World) -> Kind:
    ask(world.tracking, "delete_registered_model_alias", registered_model("acme"), "champion")
    update_fleet(world.store, {"acme": lambda _: None})
    return Kind.NOT_IN_FLEET


def test_what_training_leaves_is_whole(world: World) -> None:
    said: list[tuple[str, float]] = []
    found = world.verify(step=lambda text, share: said.append((text, share)))
    assert (found.findings, found.tenants, found.versions) == ((), 3, 4)
    assert world.verify(deep=True).findings == ()
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert any("reading manifests: 0 of 4" in text for text, _ in said)


@pytest.mark.parametrize("apart", MENDABLE, ids=lambda function: function.__name__)
def test_what_the_fleet_can_mend_is_mended_and_stays_so(world: World, apart: Break) -> None:
    kind = apart(world)
    before = world.verify()
    assert {one for _, one in kinds(before)} <= {kind, Kind.ALIAS_DIFFERS}
    assert kind in {one for _, one in kinds(before)}
    assert {tenant for tenant, _ in kinds(before)} <= {"acme", ""}
    assert len(before.open) == len(before.findings), "looking changes nothing"
    assert [one.difference for one in world.verify().findings] == [one.difference for one in before.findings]

    mended = world.verify(repair=True)
    assert [one.mended for one in mended.findings] == [True] * len(before.findings)
    assert mended.open == []
    assert world.verify(deep=True).findings == ()
    assert world.champion("globex") == world.manifests["globex"].digest


@pytest.mark.parametrize("apart", LASTING, ids=lambda function: function.__name__)
def test_what_cannot_be_mended_is_said_and_stays(world: World, apart: Break) -> None:
    kind = apart(world)
    found = world.verify(repair=True)
    assert kind in {one for _, one in kinds(found)}
    assert found.open
    assert [one.difference for one in world.verify(tenants=["acme"]).findings] == [
        one.difference for one in found.findings if one.difference.tenant == "acme"
    ]
    for one in found.open:
        assert one.difference.remedy


def test_other_content_of_the_right_length_takes_a_deep_look(world: World) -> None:
    key = model_key("acme", world.manifests["acme"].version, WEIGHTS)
    data = world.store.get(key).data
    world.store.put(key, data[:-1] + bytes([data[-1] ^ 1]))
    assert world.verify().findings == ()
    (found,) = world.verify(deep=True).findings
    assert (found.difference.kind, found.difference.where) == (Kind.FILES_DAMAGED, f"{world.store.url}/{key}")
    assert "other content" in found.difference.what


def test_a_registration_that_is_mended_says_so_and_the_first_one_stays(world: World) -> None:
    champion_behind(world)
    never_registered(world)
    world.verify(repair=True)
    made = max(
        ask(world.tracking, "search_model_versions", f"name = '{registered_model('acme')}'"),
        key=lambda version: int(version.version),
    )
    assert made.tags["registered_by"] == "verify_fleet"
    assert world.champion("acme") == world.manifests["acme"].digest

    registered_twice(world)
    world.verify(repair=True)
    heir = ask(world.tracking, "get_model_version_by_alias", registered_model("acme"), "challenger")
    assert str(heir.version) == "2", "its aliases went with it"


def test_a_provenance_that_is_mended_names_the_registration(world: World) -> None:
    provenance_gone(world)
    world.verify(repair=True)
    manifest = world.manifests["acme"]
    written = json.loads(world.store.get(model_key("acme", manifest.version, PROVENANCE)).data)
    registration = world.tracking.find("acme", manifest.digest)
    assert registration is not None
    assert written == {
        "mlflow_run_id": registration.run_id,
        "mlflow_version": "2",
        "recorded_by": "verify_fleet",
    }


def test_a_run_that_has_just_begun_is_nobodys_crash(world: World) -> None:
    run_left_open(world)
    fleet_run_left_open(world)
    now = datetime.now(UTC)
    assert verify_fleet(world.store, world.tracking, clock=lambda: now + timedelta(minutes=50)).findings == ()
    (found,) = verify_fleet(world.store, world.tracking, clock=lambda: now + timedelta(minutes=70)).findings
    assert found.difference.tenant == "acme"


def test_what_is_right_at_a_second_look_was_somebodys_work(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training run that publishes between one listing and the next is no difference."""
    looks = []

    def finishing(*arguments: Any, **options: Any) -> Any:
        looks.append(options["tenants"])
        seen = read_snapshot(*arguments, **options)
        if len(looks) == 1:
            world.tracking.set_alias("acme", "champion", manifest_digest=world.manifests["acme"].digest)
        return seen

    champion_behind(world)
    ask(world.tracking, "delete_registered_model_alias", registered_model("globex"), "champion")
    monkeypatch.setattr(reconcile, "read_snapshot", finishing)
    assert kinds(world.verify()) == [("globex", Kind.ALIAS_DIFFERS)]
    assert looks == [None, ["acme", "globex"]]


class Watched(Leases):
    """Leases that are in nobody's way, and something that happens when one is taken."""

    def __init__(self, store: ObjectStore, then: Callable[[str], object] = lambda tenant: None) -> None:
        super().__init__(store, holder="verify")
        self.held: list[str] = []
        self.then = then

    @contextmanager
    def hold(self, tenant: str, *, seize: bool = False) -> Iterator[Lease]:
        with super().hold(tenant, seize=seize) as lease:
            self.held.append(tenant)
            self.then(tenant)
            yield lease


def test_the_champion_is_what_serves_when_it_is_set_and_not_when_it_was_found(world: World) -> None:
    champion_gone(world)
    leases = Watched(world.store, lambda tenant: roll_back(world.store, [tenant]))
    world.verify(repair=True, leases=leases)
    assert leases.held == ["acme"]
    assert world.champion("acme") != world.manifests["acme"].digest
    assert world.verify().findings == ()


def test_what_was_trained_until_the_lease_was_taken_is_not_mended(world: World) -> None:
    """What a run did in between stays: the tenant is looked at under its lease."""
    never_registered(world)
    trained = []
    leases = Watched(world.store, lambda _: trained.append(world.train("acme", 0)))
    assert world.verify(repair=True, leases=leases).findings == ()
    assert trained
    assert len(ask(world.tracking, "search_model_versions", f"name = '{registered_model('acme')}'")) == 2


def test_a_tenant_that_somebody_works_on_is_left_out_and_that_is_said(world: World) -> None:
    champion_behind(world)
    run_left_open(world)
    ask(world.tracking, "delete_registered_model_alias", registered_model("globex"), "champion")
    clock = Clock()
    theirs = Leases(world.store, holder="a training run", clock=clock).take("acme")
    clock.meanwhile = theirs.renew
    mine = Leases(world.store, holder="verify", clock=clock, sleep=clock.sleep)
    found = world.verify(repair=True, leases=mine)
    assert [(one.difference.tenant, one.mended, one.left_out) for one in found.findings] == [
        ("acme", False, True),
        ("acme", False, True),
        ("globex", True, False),
    ]
    assert "tenant acme is being worked on by a training run" in found.findings[0].problem
    assert (found.left_out, len(found.open)) == (["acme"], 2)
    assert found.as_dict()["left_out"] == ["acme"]
    assert world.champion("acme") != world.manifests["acme"].digest

    theirs.release()
    again = world.verify(repair=True, leases=mine)
    assert [(one.difference.tenant, one.mended) for one in again.findings] == [("acme", True)] * 2
    assert (again.open, again.left_out, world.verify().findings) == ([], [], ())


def test_a_lease_that_is_lost_ends_the_mending(world: World) -> None:
    champion_behind(world)
    provenance_gone(world)
    clock = Clock()

    class Slow(Watched):
        @contextmanager
        def hold(self, tenant: str, *, seize: bool = False) -> Iterator[Lease]:
            lease = Leases(self._store, holder="verify", clock=clock).take(tenant)
            clock.sleep(61)
            yield lease

    found = world.verify(repair=True, leases=Slow(world.store))
    assert [(one.mended, one.left_out) for one in found.findings] == [(False, False)] * 2
    assert "the lease of tenant acme" in found.findings[0].problem
    assert len(world.verify().findings) == 2


def test_a_lease_is_taken_for_what_is_mended_alone_and_given_back(world: World) -> None:
    catalogue_gone(world)
    fleet_run_left_open(world)
    leases = Watched(world.store)
    world.verify(repair=True, leases=leases)
    assert leases.held == []
    champion_behind(world)
    world.verify(leases=leases)
    assert leases.held == [], "looking needs none"
    world.verify(repair=True, leases=leases)
    assert leases.held == ["acme"]
    Leases(world.store, holder="somebody", sleep=lambda _: pytest.fail("it is held")).take("acme")


def test_a_tenant_that_is_only_in_mlflow_gets_no_lease_that_would_be_all_there_is_of_it(world: World) -> None:
    manifest = world.publish(world.store, "hooli")
    world.tracking.register(manifest, parameters={}, tags={})
    for found in world.store.list("tenants/hooli/"):
        world.store.delete(found.key)
    world.verify(repair=True)
    assert list(world.store.list("tenants/hooli/")) == []
    assert ask(world.tracking, "search_model_versions", f"name = '{registered_model('hooli')}'") == []


def test_only_the_tenants_asked_for_are_looked_at(world: World) -> None:
    champion_behind(world)
    assert world.verify(tenants=["globex", "initech"]).findings == ()
    assert world.verify(tenants=["globex", "initech"]).tenants == 2
    assert kinds(world.verify(tenants=["acme"])) == [("acme", Kind.ALIAS_DIFFERS)]
    with pytest.raises(TenantNotFound, match="hooli is neither in the fleet"):
        world.verify(tenants=["hooli"])
    with pytest.raises(InvalidTenant):
        world.verify(tenants=["../acme"])


def test_many_tenants_are_looked_at_again_in_one_listing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_ONE_BY_ONE", 1)
    for tenant in TENANTS:
        ask(world.tracking, "delete_registered_model_alias", registered_model(tenant), "champion")
    asked = []

    def listened(*arguments: Any, **options: Any) -> Any:
        asked.append(options["tenants"])
        return read_snapshot(*arguments, **options)

    monkeypatch.setattr(reconcile, "read_snapshot", listened)
    assert [tenant for tenant, _ in kinds(world.verify())] == list(TENANTS)
    assert asked == [None, None]


def test_mlflow_that_does_not_answer_ends_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object, **__: object) -> None:
        raise TrackingUnavailable("MLflow is down")

    monkeypatch.setattr(type(world.tracking.connection), "ask", down)
    with pytest.raises(TrackingUnavailable):
        world.verify()


def test_an_empty_store_and_an_empty_mlflow_agree(tmp_path: Path, tracking: Tracking) -> None:
    store = open_store(StoreSettings(url=str(tmp_path / "store")))
    assert verify_fleet(store, tracking, repair=True).findings == ()


def test_the_wrong_store_takes_nothing_from_mlflow(world: World, tmp_path: Path) -> None:
    elsewhere = open_store(StoreSettings(url=str(tmp_path / "another")))
    elsewhere.put("tenants/acme/macros.json", canonical_json({"macros": []}))
    update_fleet(elsewhere, {"acme": lambda _: FleetEntry(reason="none yet")})
    verify_fleet(elsewhere, world.tracking, repair=True, clock=lambda: NOW)
    assert len(ask(world.tracking, "search_model_versions", "name LIKE 'macrofleet.%'")) == 4


def run(*arguments: str, code: int) -> str:
    result = CliRunner().invoke(app, ["fleet", "verify", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def test_the_command_says_what_differs_what_would_mend_it_and_mends_it(world: World) -> None:
    assert "3 tenants and 4 registered versions" in run(code=0)
    champion_behind(world)
    catalogue_gone(world)
    shown = run(code=1)
    assert "alias_differs" in shown
    assert "--repair: Set it to the registration" in shown
    assert "2 differences, 0 mended, 2 open" in shown
    assert "2 differences, 1 mended, 1 open" in run("--repair", code=1)
    report = json.loads(run("--json", "--deep", "--tenant", "acme", code=1))
    assert (report["open"], report["mended"], report["deep"], report["tenants"]) == (1, 0, True, 1)
    (one,) = report["differences"]
    assert (one["tenant"], one["kind"], one["mendable"], one["mended"]) == ("acme", "catalogue_missing", False, False)
    assert run("--tenant", "globex", code=0)


def test_a_version_in_part_is_listed_and_nobodys_to_see_to(world: World) -> None:
    world.store.put(model_key("acme", "f" * 16, WEIGHTS), b"half")
    assert "1 differences, 0 mended, 0 open" in run(code=0)
