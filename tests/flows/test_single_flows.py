"""The flows around one step, and what every flow's run leaves behind: record, pages in Prefect, word to a webhook."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, cast

import pytest
from prefect.artifacts import Artifact
from prefect.client.schemas.objects import Artifact as ArtifactResponse
from prefect.client.schemas.objects import State

from flows import run_book, single_flows
from flows.outcome import Outcome
from flows.retrain_fleet import retrain_fleet
from flows.retraining import Look, Retraining
from flows.runs import RunRecord, list_runs, read_record, read_shards, write_record
from flows.single_flows import collect_garbage, copy_region, import_tickets, retrain_tenant, rollback, verify_fleet
from registry.errors import LeaseHeld, StoreUnavailable, TenantNotFound, WebhookUnavailable
from registry.files import FileDigest
from registry.fleet.state import FleetEntry, read_fleet, update_fleet
from registry.layout import LABELS, MANIFEST, PROVENANCE, WEIGHTS, catalogue_key, model_key, program_key
from registry.leases import Leases
from registry.model.bundle import Manifest
from registry.settings import StoreSettings, TrackingSettings
from registry.store import ObjectStore, open_store
from registry.store.local import LocalStore
from registry.tracking.models import Tracking
from training.connectors.zendesk_sync import SyncOptions, SyncReport
from training.examples import Example
from training.lake import Lake

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
SECRET = "T0000SECRET"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_uri: str) -> ObjectStore:
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    monkeypatch.setenv("MACROFLEET_DISK_FOLDER", str(tmp_path / "disk"))
    monkeypatch.setenv("MACROFLEET_TRACKING_URI", mlflow_uri)
    monkeypatch.delenv("MACROFLEET_WEBHOOK_URL", raising=False)
    return open_store(StoreSettings())


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a webhook is told."""
    bodies: list[dict[str, Any]] = []
    monkeypatch.setattr(run_book, "notify", lambda _settings, body: bodies.append(json.loads(json.dumps(body))))
    return bodies


@pytest.fixture
def training(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> dict[str, Outcome]:
    """Outcomes that training comes to, by tenant, without training; the tenants are there."""
    outcomes: dict[str, Outcome] = {}
    for tenant in ("acme", "globex"):
        Lake(store).merge(tenant, [Example(ticket_id="1", body="a", macro_id="m")])
    monkeypatch.setattr(Retraining, "look", lambda _, tenants, **__: {name: Look(outcome=None) for name in tenants})
    monkeypatch.setenv("MACROFLEET_TRAINING_PROCESSES", "0")
    monkeypatch.setattr(Retraining, "prepare", lambda *_: None)
    monkeypatch.setattr(Retraining, "train", lambda _, tenant, **__: outcomes[tenant])
    return outcomes


def not_eligible(tenant: str) -> Outcome:
    return Outcome(tenant=tenant, state="not_eligible", reason="it has too few tickets", seconds=0.5)


def failed(tenant: str) -> Outcome:
    return Outcome(tenant=tenant, state="failed", reason="ValueError; where is in this run's log", seconds=2.0)


def last_page(key: str) -> str:
    found = cast(ArtifactResponse | None, Artifact.get(key))
    assert found is not None
    return str(found.data)


def test_a_run_leaves_a_record_pages_a_line_a_tenant_and_word_of_its_end(
    store: ObjectStore, told: list[dict[str, Any]], training: dict[str, Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    training |= {"acme": not_eligible("acme"), "globex": failed("globex")}
    with caplog.at_level(logging.INFO, logger="prefect.flow_runs"):
        summary = retrain_fleet(["acme", "globex"])

    (run,) = list_runs(store)
    record = read_record(store, run)
    assert (record.flow, record.state, record.generation, record.tenants) == ("retrain_fleet", "completed", 1, 2)
    assert record.counts == {"not_eligible": 1, "failed": 1}
    assert [row["tenant"] for row in record.left] == ["globex"]
    (shard,) = read_shards(store, run)
    assert list(shard.outcomes) == [outcome.as_dict() for outcome in summary.outcomes]
    assert shard.done

    page = last_page("retrain-fleet")
    assert "| globex | failed | 0 | 0 | - | - | 0.0 | 2.0 |  | ValueError; where is in this run's log |" in page
    assert "1 not_eligible, 1 failed" in page
    assert last_page("retrain-fleet-progress") == "100"
    assert f"run {run} tenant acme not_eligible in 0.5 s: it has too few tickets" in caplog.text

    (body,) = told
    assert body["text"].startswith("macrofleet retrain_fleet completed in ")
    assert body["text"].endswith("s: 1 not_eligible, 1 failed; left: 1 tenants, 0 warnings")
    assert (body["run"], body["left"][0]["tenant"], body["counts"]) == (run, "globex", record.counts)


def test_a_run_that_fails_says_so_everywhere_and_quotes_no_library(
    store: ObjectStore, told: list[dict[str, Any]], training: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("my card number is 4111")

    training["acme"] = not_eligible("acme")
    monkeypatch.setattr(Retraining, "serve", fails)
    with pytest.raises(ValueError, match="4111"):
        retrain_fleet(["acme"])
    record = read_record(store, list_runs(store)[0])
    assert (record.state, record.reason) == ("failed", "ValueError")
    assert told[0]["text"].endswith("; ValueError")
    assert "4111" not in str(told) + str(record)


def test_a_webhook_that_does_not_answer_is_a_warning(
    store: ObjectStore, training: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(*_: object) -> None:
        raise WebhookUnavailable("the webhook does not answer (ConnectionRefusedError)")

    monkeypatch.setattr(run_book, "notify", down)
    monkeypatch.setenv("MACROFLEET_WEBHOOK_URL", f"https://chat.example/{SECRET}")
    training["acme"] = not_eligible("acme")
    retrain_fleet(["acme"])
    assert read_record(store, list_runs(store)[0]).state == "completed"
    assert "nobody was told: the webhook does not answer" in caplog.text
    assert SECRET not in caplog.text


def test_pages_that_prefect_does_not_take_are_a_warning(
    store: ObjectStore, training: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(*_: object) -> None:
        raise ConnectionError

    for name in ("create_markdown_artifact", "create_progress_artifact"):
        monkeypatch.setattr(run_book, name, down)
    training["acme"] = not_eligible("acme")
    assert retrain_fleet(["acme"]).generation == 1
    assert caplog.text.count("a page in Prefect is missing (ConnectionError)") == 2


def test_a_run_whose_end_cannot_be_written_down_has_served_all_the_same(
    store: ObjectStore, training: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(store: ObjectStore, record: RunRecord) -> None:
        if record.state != "running":
            raise StoreUnavailable("the store does not answer")
        write_record(store, record)

    monkeypatch.setattr(run_book, "write_record", down)
    training["acme"] = not_eligible("acme")
    assert retrain_fleet(["acme"]).generation == 1
    assert "its end is not written down: the store does not answer" in caplog.text


def test_one_tenant_is_retrained_and_its_failure_is_the_runs(
    store: ObjectStore, told: list[dict[str, Any]], training: dict[str, Outcome]
) -> None:
    training |= {"acme": not_eligible("acme"), "globex": failed("globex")}
    good: State[Any] = retrain_tenant("acme", return_state=True)
    assert (good.is_completed(), good.message) == (True, "not_eligible  it has too few tickets")
    bad: State[Any] = retrain_tenant("globex", return_state=True)
    assert (bad.is_failed(), bad.message) == (True, "failed  ValueError; where is in this run's log")
    assert [read_record(store, run).flow for run in list_runs(store)] == ["retrain_tenant"] * 2
    assert "| globex | failed |" in last_page("retrain-tenant")


FILE = FileDigest(sha256="0" * 64, size=1)
OLD, NEW = (
    Manifest(
        tenant="acme",
        program="0" * 64,
        files={WEIGHTS: FILE, LABELS: FILE},
        data_fingerprint="0" * 64,
        settings={"seed": seed},
        metrics={},
        threshold=0.5,
    )
    for seed in (1, 2)
)


def test_a_roll_back_holds_and_a_release_lifts_it(store: ObjectStore, told: list[dict[str, Any]]) -> None:
    for manifest in (OLD, NEW):
        store.put(model_key("acme", manifest.version, MANIFEST), manifest.to_bytes())
    served = FleetEntry().with_version(OLD.version, OLD.digest).with_version(NEW.version, NEW.digest)
    update_fleet(store, {"acme": lambda _: served})

    state: State[Any] = rollback(["acme"], return_state=True)
    assert state.message == "fleet generation 2; changed: acme"
    entry = read_fleet(store).entries["acme"]
    assert (entry.version, entry.hold_version) == (OLD.version, True)
    state = rollback(["acme"], release=True, return_state=True)
    assert not read_fleet(store).entries["acme"].hold_version
    assert [body["flow"] for body in told] == ["rollback"] * 2


def test_a_roll_back_that_cannot_be_is_a_failed_run_with_its_reason(store: ObjectStore) -> None:
    with pytest.raises(TenantNotFound):
        rollback(["nobody"])
    record = read_record(store, list_runs(store)[0])
    assert record.state == "failed"
    assert "not in the fleet" in record.reason


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    emitted: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(single_flows, "emit_event", lambda name, resource: emitted.append((name, resource)))
    return emitted


def test_an_import_asks_for_a_retraining_where_it_is_to_and_changed_anything(
    store: ObjectStore, tmp_path: Path, events: list[tuple[str, dict[str, str]]]
) -> None:
    file = tmp_path / "t.csv"
    file.write_text("text,label\nwhere is it,ship\nmoney back,refund\n")
    first: State[Any] = import_tickets("acme", str(file), return_state=True)
    assert first.message == "tenant acme: added 2, changed 0, unchanged 0, left out 0"
    assert events == []
    import_tickets("acme", str(file), retrain=True)
    assert events == [], "nothing new"
    file.write_text("text,label\nwhere is it,ship\nmoney back,refund\nhello,ship\n")
    import_tickets("acme", str(file), retrain=True)
    resource = {"prefect.resource.id": "macrofleet.tenant.acme", "macrofleet.tenant": "acme"}
    assert events == [("macrofleet.tenant.retrain", resource)]


def test_an_import_from_zendesk(
    store: ObjectStore, events: list[tuple[str, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, SyncOptions]] = []

    def sync(_store: ObjectStore, tenant: str, *, subdomain: str, options: SyncOptions, step: Any) -> SyncReport:
        asked.append((subdomain, options))
        step("reading macros", 0.0)
        return SyncReport(tenant=tenant, added=len(asked) % 2, waiting=4)

    monkeypatch.setattr(single_flows, "sync_zendesk", sync)
    first: State[Any] = import_tickets(
        "acme", zendesk="shop", since="2026-03-01", audits=7, mask=False, retrain=True, return_state=True
    )
    assert first.message == "tenant acme: added 1, changed 0, removed 0, waiting 4"
    assert asked == [("shop", SyncOptions(since=1772323200, audits=7, mask=False))]
    assert len(events) == 1
    import_tickets("acme", zendesk="shop", retrain=True)
    assert len(events) == 1, "nothing new"


@pytest.mark.parametrize("given", [{}, {"path": "a.csv", "zendesk": "shop"}, {"zendesk": "shop", "since": "soon"}])
def test_an_import_has_one_source(store: ObjectStore, given: dict[str, str]) -> None:
    failed: State[Any] = import_tickets("acme", **given, return_state=True)
    assert failed.is_failed()
    assert "source" in str(failed.message) or "since" in str(failed.message)


def test_garbage_is_collected_or_only_counted(store: ObjectStore) -> None:
    store.put(model_key("acme", OLD.version, MANIFEST), OLD.to_bytes())
    counted: State[Any] = collect_garbage(dry_run=True, return_state=True)
    assert counted.message == "would delete 0 versions, 0 objects, 0 bytes in all"
    assert read_record(store, list_runs(store)[0]).flow == "collect_garbage"
    done: State[Any] = collect_garbage(keep=1, return_state=True)
    assert (done.message or "").startswith("deleted 0 versions")


def test_a_copy_in_another_region_is_brought_up_to_date(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: State[Any] = copy_region(return_state=True)
    assert failed.is_failed()
    assert "where the copy is" in str(failed.message)
    update_fleet(store, {"acme": lambda _: FleetEntry(reason="too few tickets")})
    monkeypatch.setenv("MACROFLEET_COPY_STORE_URL", str(tmp_path / "copy"))
    done: State[Any] = copy_region(collect=True, return_state=True)
    generation = read_fleet(store).generation
    assert (done.message or "").startswith(f"generation {generation} (was 0): 0 models")
    assert read_fleet(LocalStore(tmp_path / "copy")).entries.keys() == read_fleet(store).entries.keys()


@pytest.fixture
def served(store: ObjectStore) -> Tracking:
    """MLflow, where one tenant is as training leaves it."""
    tracking = Tracking.from_settings(TrackingSettings(), StoreSettings())
    files = {WEIGHTS: b"w", LABELS: b"l", MANIFEST: OLD.to_bytes(), PROVENANCE: b"{}"}
    for name, data in files.items():
        store.put(model_key("acme", OLD.version, name), data)
    store.put(catalogue_key("acme"), b"{}")
    store.put(program_key(OLD.program, "files.json"), b"{}")
    update_fleet(store, {"acme": lambda _: FleetEntry().with_version(OLD.version, OLD.digest)})
    tracking.register(OLD, parameters={}, tags={})
    tracking.set_alias("acme", "champion", manifest_digest=OLD.digest)
    return tracking


def test_what_differs_fails_a_verification_until_it_is_mended(
    store: ObjectStore, served: Tracking, told: list[dict[str, Any]]
) -> None:
    def verify(**options: Any) -> State[Any]:
        return cast(State[Any], verify_fleet(**options, return_state=True))

    whole = verify()
    assert (whole.is_completed(), whole.message) == (True, "1 tenants: 0 differences, 0 mended, 0 open")
    served.drop_alias("acme", "champion")
    apart = verify(tenants=["acme"])
    assert (apart.is_failed(), apart.message) == (True, "1 tenants: 1 differences, 0 mended, 1 open")
    # By what it found: both may have begun in the same second, which is all that their order goes by.
    (record,) = (found for found in (read_record(store, run) for run in list_runs(store)) if found.warnings)
    assert (record.flow, record.state, len(record.warnings)) == ("verify_fleet", "completed", 1)
    assert record.warnings[0].startswith("tenant acme alias_differs: the alias champion is nothing, and the fleet")
    assert told[-1]["warnings"] == list(record.warnings)
    assert "| acme | alias_differs | the alias champion is nothing, and the fleet serves" in last_page("verify-fleet")

    mended = verify(repair=True)
    assert (mended.is_completed(), mended.message) == (True, "1 tenants: 1 differences, 1 mended, 0 open")
    assert "| mended |" in last_page("verify-fleet")
    assert verify().is_completed()


def test_a_tenant_that_others_work_on_keeps_a_verification_failing(
    store: ObjectStore, served: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(*_: object) -> None:
        raise LeaseHeld("tenant acme is being worked on by a training run")

    served.drop_alias("acme", "champion")
    monkeypatch.setattr(Leases, "take", held)
    state: State[Any] = verify_fleet(repair=True, return_state=True)
    assert state.is_failed()
    assert (state.message or "").endswith("1 open; left out, since others work on them: acme")
    (warning,) = read_record(store, list_runs(store)[0]).warnings
    assert warning.endswith("tenant acme is being worked on by a training run")
