"""`macrofleet tenants delete` against real stores: a bucket with versions, MLflow on SQLite, Prefect, disks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import macrofleet
from flows import tenant_deletion
from flows.prefect_traces import PrefectPlace
from registry.disk_tier import DiskTier
from registry.errors import InvalidInput
from registry.fleet import FleetEntry, read_fleet, update_fleet
from registry.layout import examples_key
from registry.publishing import record_provenance
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store
from registry.tracking import Tracking
from tests.buckets import s3_client
from tests.flows.test_prefect_traces import write_artifacts
from tests.registry.garbage_world import TENANT, made, publish, serve, version
from training.examples import Example
from training.tenants import import_examples

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's own: its ephemeral server leaves sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def store(versioned_settings: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A tenant that was trained twice, with all that comes of it, and another one; named by the environment."""
    assert versioned_settings.secret_key
    for name, value in {
        "STORE_URL": versioned_settings.url,
        "STORE_ENDPOINT_URL": versioned_settings.endpoint_url,
        "STORE_REGION": versioned_settings.region,
        "STORE_ACCESS_KEY": versioned_settings.access_key,
        "STORE_SECRET_KEY": versioned_settings.secret_key.get_secret_value(),
        "DISK_FOLDER": str(tmp_path / "disk"),
        "TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }.items():
        monkeypatch.setenv(f"MACROFLEET_{name}", str(value))
    made_store = open_store(versioned_settings)
    tracking = Tracking(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", store=versioned_settings)
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
    write_artifacts(TENANT, 2)
    return made_store


def delete(*arguments: str) -> Result:
    return CliRunner().invoke(macrofleet.app, ["tenants", "delete", TENANT, *arguments], catch_exceptions=False)


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
    result = delete("--yes", "--json")
    report: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["complete"]
    places = {"fleet", "mlflow", "prefect", "this machine's disk", "store"}
    assert report["left"] == {place: [] for place in places}
    assert all(report["removed"][place] > 0 for place in places), report["removed"]
    assert report["removed"]["prefect"] == 2
    assert report["removed"]["mlflow"] == 3

    assert [key for key, data in contents(versioned_settings) if TENANT in key or name in data] == []
    assert [path for path in tmp_path.rglob("*") if TENANT in path.name] == []
    assert [path for path in tmp_path.rglob("*") if path.is_file() and name in path.read_bytes()] == []
    assert PrefectPlace().find(TENANT) == []

    assert read_fleet(store).entries.keys() == {"globex"}
    assert b"globex" in store.get(examples_key("globex")).data

    again = delete("--yes")
    assert again.exit_code == 0
    assert f"nothing is left of tenant {TENANT}, of which there was nothing" in again.stdout


def test_what_cannot_be_undone_is_not_done_unasked(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(store.states())
    for arguments in ([], ["--json"]):
        with pytest.raises(InvalidInput, match=r"cannot be undone\. Add --yes"):
            delete(*arguments)
    monkeypatch.setattr(tenant_deletion, "_somebody_is_there", lambda: True)
    with pytest.raises(InvalidInput, match="Add --yes"):
        delete("--json")
    said_no = CliRunner().invoke(macrofleet.app, ["tenants", "delete", TENANT], input="n\n")
    assert said_no.exit_code == 1
    assert set(store.states()) == before
    said_yes = CliRunner().invoke(macrofleet.app, ["tenants", "delete", TENANT], input="y\n")
    assert said_yes.exit_code == 0
    assert f"nothing is left of tenant {TENANT}" in said_yes.stdout
    assert version(0) not in str(list(store.states()))


class Stubborn:
    name = "attic"
    remedy = "Climb up there."

    def remove(self, tenant: str) -> int:
        return 0

    def find(self, tenant: str) -> list[str]:
        return [f"box {number}" for number in range(30)]


def test_what_is_left_is_named_and_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_deletion, "_places", lambda: [Stubborn()])
    result = delete("--yes")
    assert result.exit_code == 1
    assert "nothing is left" not in result.stdout
    for line in ("left in attic: box 19", "left in attic: 10 more (--json lists them)", "attic: Climb up there."):
        assert line in result.stderr
    assert "box 20" not in result.stderr
    as_json = delete("--yes", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["remedies"] == {"attic": "Climb up there."}
