"""`macrofleet tenants delete` against real stores: a bucket with versions, MLflow on SQLite, Prefect, disks."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import State
from prefect.states import Completed
from typer.testing import CliRunner, Result

import macrofleet
from flows import tenant_deletion
from flows.deployments import FLOWS
from flows.prefect_traces import PrefectPlace
from flows.runs import RunPlan, ShardRecord, run_name
from flows.single_flows import delete_tenant, retrain_tenant
from registry.database import DatabaseSettings, opened_database
from registry.disk.tier import DiskTier
from registry.errors import InvalidInput, InvalidTenant, TenantNotFound
from registry.fleet.state import FleetEntry, read_fleet, update_fleet
from registry.keys.book import KeyBook
from registry.keys.publishing import publish_keys
from registry.layout import examples_key, run_key, run_shard_key
from registry.leases import Leases
from registry.publishing import record_provenance
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store
from registry.store.local import LocalStore
from registry.tenant_settings import edit_tenant_settings, read_tenant_settings
from registry.tracking.models import Tracking
from tests.buckets import s3_client
from tests.registry.garbage_world import TENANT, made, publish, serve, version
from training.examples import Example
from training.tenants import import_examples

pytestmark = [
    pytest.mark.usefixtures("prefect_server", "logs_at_once"),
    # Prefect's own: its ephemeral server leaves sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def store(
    versioned_settings: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_uri: str
) -> ObjectStore:
    """A tenant that was trained twice, with all that comes of it, and another one; named by the environment."""
    assert versioned_settings.secret_key
    for name, value in {
        "STORE_URL": versioned_settings.url,
        "STORE_ENDPOINT_URL": versioned_settings.endpoint_url,
        "STORE_REGION": versioned_settings.region,
        "STORE_ACCESS_KEY": versioned_settings.access_key,
        "STORE_SECRET_KEY": versioned_settings.secret_key.get_secret_value(),
        "DISK_FOLDER": str(tmp_path / "disk"),
        "TRACKING_URI": mlflow_uri,
        "DATABASE_URL": f"sqlite:///{tmp_path}/macrofleet.db",
    }.items():
        monkeypatch.setenv(f"MACROFLEET_{name}", str(value))
    made_store = open_store(versioned_settings)
    tracking = Tracking(tracking_uri=mlflow_uri, store=versioned_settings)
    for tenant in (TENANT, "globex"):
        for number in range(2):
            rows = [Example(ticket_id=f"{number}", body=f"a ticket of {tenant}", macro_id="m", applied_at=None)]
            import_examples(made_store, tenant, rows)
    for number in range(2):
        publish(made_store, number)
        manifest = made(number)[1]
        registration = tracking.register(manifest, parameters={}, tags={})
        tracking.set_alias(TENANT, "champion", manifest_digest=manifest.digest)
        record_provenance(made_store, tenant=TENANT, version=manifest.version, provenance={"run": registration.run_id})
        serve(made_store, number)
        for folder in (tmp_path / "disk", tmp_path / "disk" / "champions"):
            with DiskTier(folder, made_store, trusted=frozenset()) as tier:
                tier.install_model(TENANT, manifest.version, manifest.digest)
    update_fleet(made_store, {"globex": lambda _: FleetEntry(reason="too few tickets")})
    edit_tenant_settings(made_store, [TENANT, "globex"], {"promotion": "shadow"})
    run = run_name(datetime.now(UTC), "0123456789ab")
    for tenants in ((TENANT, "globex"), ("globex",)):  # written over once
        plan = RunPlan(tenants=tenants, shards=1, options={}).to_bytes()
        made_store.put(run_key(run, "plan.json"), plan)
    shard = ShardRecord(written_at=datetime.now(UTC), working=(TENANT, "globex"), outcomes=({"tenant": TENANT},))
    made_store.put(run_shard_key(run, 0), shard.to_bytes())
    with opened_database(DatabaseSettings()) as database:
        keys = KeyBook(database)
        for tenant in (TENANT, "globex"):
            keys.create(tenant, ["suggest"], note=f"of {tenant}")
            publish_keys(keys, made_store)  # written over once
    Leases(made_store, holder=f"process 1 on the machine of {TENANT}").take(TENANT).release()
    with get_client(sync_client=True) as client:
        page = f"1 trained\n\n| tenant | state |\n|---|---|\n| {TENANT} | trained |\n| globex | trained |"
        client.create_artifact(ArtifactCreate(key="retrain-fleet", type="markdown", data=page))
        client.create_flow_run(retrain_tenant, parameters={"tenant": TENANT}, state=Completed())
        client.create_flow_run(retrain_tenant, parameters={"tenant": "globex"}, state=Completed())
    return made_store


def delete(*arguments: str) -> Result:
    return CliRunner().invoke(macrofleet.app, ["tenants", "delete", TENANT, *arguments], catch_exceptions=False)


def prefect() -> PrefectPlace:
    return PrefectPlace([flow.name for flow in FLOWS])


def contents(settings: StoreSettings) -> list[tuple[str, bytes]]:
    """Everything that the bucket keeps below the prefix, seen by readers or not."""
    bucket, _, prefix = settings.url.removeprefix("s3://").partition("/")
    found = []
    with s3_client(settings) as client:
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
            found += [(marker["Key"], b"") for marker in page.get("DeleteMarkers", ())]
            for item in page.get("Versions", ()):
                body = client.get_object(Bucket=bucket, Key=item["Key"], VersionId=item["VersionId"])["Body"]
                found.append((item["Key"], body.read()))
    return found


def test_nothing_is_left_of_the_tenant_anywhere(
    store: ObjectStore, versioned_settings: StoreSettings, tmp_path: Path
) -> None:
    name = TENANT.encode()
    assert len([key for key, data in contents(versioned_settings) if TENANT in key or name in data]) > 15
    # Other tests' runs may name both tenants: those go whole.
    globex = {run for run in prefect().find("globex") if run.startswith("flow run")} - {*prefect().find(TENANT)}
    assert globex
    before = len(contents(versioned_settings))
    listed = json.loads(delete("--dry-run", "--json").stdout)
    assert listed["dry_run"]
    assert len(contents(versioned_settings)) == before
    places = {"fleet", "keys", "runs", "earlier versions", "mlflow", "prefect", "this machine's disk", "store", "lease"}
    assert listed["left"].keys() == places
    assert all(listed["left"].values()), "the test makes something of each kind"

    result = delete("--yes", "--json")
    report: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["complete"]
    assert [kept.partition(" ")[0] for kept in report["kept"]] == ["deleted/…:", "events"]
    assert report["left"] == {place: [] for place in places}
    assert all(report["removed"][place] > 0 for place in places), report["removed"]
    assert report["removed"]["prefect"] >= 2, "other tests' runs of a tenant of this name may be there, too"
    assert report["removed"]["mlflow"] == 3

    assert [key for key, data in contents(versioned_settings) if TENANT in key or name in data] == []
    assert [path for path in tmp_path.rglob("*") if TENANT in path.name] == []
    assert [path for path in tmp_path.rglob("*") if path.is_file() and name in path.read_bytes()] == []
    assert prefect().find(TENANT) == []

    assert globex <= {*prefect().find("globex")}
    assert read_fleet(store).entries.keys() == {"globex"}
    assert b"globex" in store.get(examples_key("globex")).data
    assert read_tenant_settings(store, "globex").promotion == "shadow"

    again = delete("--yes")
    assert again.exit_code == 0
    assert f"nothing is left of tenant {TENANT}\n" in again.stdout


def test_a_tenant_that_nobody_knows_is_said_to_be(store: ObjectStore) -> None:
    before = set(store.states())
    for arguments in (["--yes"], ["--dry-run"]):
        with pytest.raises(TenantNotFound, match=r"there is no tenant unheard-of in s3://.*tenants list"):
            CliRunner().invoke(macrofleet.app, ["tenants", "delete", "unheard-of", *arguments], catch_exceptions=False)
    with pytest.raises(InvalidTenant):
        CliRunner().invoke(macrofleet.app, ["tenants", "delete", "No/body", "--yes"], catch_exceptions=False)
    assert set(store.states()) == before


def test_a_dry_run_lists_for_people(store: ObjectStore) -> None:
    result = delete("--dry-run")
    assert result.exit_code == 0
    assert f"store: {examples_key(TENANT)}\n" in result.stdout
    assert "mlflow: registered model macrofleet.acme\n" in result.stdout
    assert result.stdout.endswith("would delete tenant acme\n")


def test_the_flow_deletes_and_keeps_nothing_but_its_parameter(
    store: ObjectStore, versioned_settings: StoreSettings
) -> None:
    listed: State[Any] = delete_tenant(TENANT, dry_run=True, return_state=True)
    assert listed.is_completed()
    assert "store: " in str(listed.message)
    done: State[Any] = delete_tenant(TENANT, return_state=True)
    assert done.is_completed(), done.message
    assert str(done.message).endswith("; nothing is left")
    assert TENANT not in str(done.message)
    assert [key for key, data in contents(versioned_settings) if TENANT in key or TENANT.encode() in data] == []
    (own,) = prefect().find(TENANT)
    assert "completed" in own
    with pytest.raises(TenantNotFound):
        delete_tenant("unheard-of")


def test_the_flow_fails_where_something_is_left(store: ObjectStore) -> None:
    store.put("notes/of-somebody.json", b'{"about": [{"tenant": "acme"}]}')
    done: State[Any] = delete_tenant(TENANT, return_state=True)
    assert done.is_failed()
    assert str(done.message).endswith("; left, see the log: store (1)")


def test_what_cannot_be_undone_is_not_done_unasked(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(store.states())
    for arguments in ([], ["--json"]):
        with pytest.raises(InvalidInput, match=r"cannot be undone\. Add --yes"):
            delete(*arguments)
    monkeypatch.setattr(tenant_deletion, "_somebody_is_there", lambda: True)
    with pytest.raises(InvalidInput, match="Add --yes"):
        delete("--json")
    said_no = CliRunner().invoke(macrofleet.app, ["tenants", "delete", TENANT], input="acm\n")
    assert isinstance(said_no.exception, InvalidInput)
    assert "'acm' is not acme: nothing was deleted" in str(said_no.exception)
    assert set(store.states()) == before
    said_yes = CliRunner().invoke(macrofleet.app, ["tenants", "delete", TENANT], input="acme\n")
    assert said_yes.exit_code == 0
    assert f"nothing is left of tenant {TENANT}" in said_yes.stdout
    assert version(0) not in str(list(store.states()))


class Stubborn:
    name = "attic"
    remedy = "Climb up there."
    certain = True

    def remove(self, tenant: str) -> int:
        return 0

    def find(self, tenant: str) -> list[str]:
        return [f"box {number}" for number in range(30)]


class Gone(Stubborn):
    def __init__(self, name: str) -> None:
        self.name = name

    def find(self, tenant: str) -> list[str]:
        return []


def test_what_is_left_is_named_and_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    leases = Leases(store, holder="the deletion")
    work = tenant_deletion.TenantDeletion(store=store, leases=leases, places=[Gone("fleet"), Stubborn(), Gone("lease")])
    monkeypatch.setattr(tenant_deletion, "open_deletion", lambda: work)
    result = delete("--yes")
    assert result.exit_code == 1
    assert "nothing is left" not in result.stdout
    for line in ("left in attic: box 19", "left in attic: 10 more (--json lists them)", "attic: Climb up there."):
        assert line in result.stderr
    assert "box 20" not in result.stderr
    as_json = delete("--yes", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["remedies"] == {"attic": "Climb up there."}
