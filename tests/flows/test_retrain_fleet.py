from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows import need, retraining, trainers
from flows.outcome import Outcome
from flows.progress import listener
from flows.retrain_fleet import retrain_fleet
from flows.retraining import Retraining
from flows.run_report import markdown
from flows.runs import list_runs
from registry.errors import InvalidTenant, TrackingUnavailable
from registry.fleet.control import limit, pin, release, roll_back
from registry.fleet.state import FleetEntry, TenantLimits, read_fleet, update_fleet
from registry.layout import model_key
from registry.model.program import RELEASED_PROGRAMS, publish_program
from registry.models import describe_model
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store
from registry.tenant_settings import edit_tenant_settings
from registry.tracking.models import Tracking
from training.examples import Example
from training.fitting import FitSettings
from training.synthetic import DEFAULT_END, make_tenant
from training.tenants import import_examples
from training.trainer import Trainer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's own: its ephemeral server leaves sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bag_folder: Path, bag_loaded: None, mlflow_uri: str
) -> ObjectStore:
    """A store of the test's own, which the flow finds in the environment."""
    # Building the program takes longer than all else in here; one that is built already will do.
    monkeypatch.setattr(trainers, "build_and_publish", lambda _name, store: publish_program(store, bag_folder))
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    monkeypatch.setenv("MACROFLEET_DISK_FOLDER", str(tmp_path / "disk"))
    monkeypatch.setenv("MACROFLEET_TRACKING_URI", mlflow_uri)
    monkeypatch.setattr(need, "FIT", FitSettings(least_steps=60))  # good enough to pass the gate
    # When the made-up tickets end.
    monkeypatch.setattr(retraining, "_utc_now", lambda: DEFAULT_END)
    return open_store(StoreSettings())


def fill(store: ObjectStore, tenant: str, *, tickets: int = 120, end: datetime = DEFAULT_END) -> None:
    made = make_tenant(tenant, seed=1, tickets=tickets, macros=8, end=end)
    rows = [
        Example(ticket_id=t.ticket_id, subject=t.subject, body=t.body, macro_id=t.macro_id, applied_at=t.applied_at)
        for t in made.tickets
    ]
    import_examples(store, tenant, rows, titles={macro.id: macro.title for macro in made.macros})


def test_a_fleet_is_trained_registered_published_and_served_and_one_tenants_trouble_stays_its_own(
    store: ObjectStore, tmp_path: Path
) -> None:
    fill(store, "acme")
    fill(store, "globex")
    import_examples(store, "tiny", [Example(ticket_id="1", body="a", macro_id="m")])
    import_examples(store, "broken", [Example(ticket_id="1", body="a", macro_id="m")])
    store.put("lake/tenants/broken/examples.parquet", b"not parquet")
    told: list[tuple[str, int, int, float]] = []
    token = listener.set(lambda *event: told.append(event))
    try:
        summary = retrain_fleet()
    finally:
        listener.reset(token)

    assert [outcome.why for outcome in summary.outcomes] == ["new: never trained", "", "new: never trained", ""]
    assert "new: never trained |" in markdown(summary.outcomes)
    states = {outcome.tenant: outcome.state for outcome in summary.outcomes}
    assert states == {"acme": "trained", "broken": "failed", "globex": "trained", "tiny": "not_eligible"}
    reasons = {outcome.tenant: outcome.reason for outcome in summary.outcomes}
    assert "is not a lake file" in reasons["broken"]
    assert "1 ticket with a shared macro in the last 9 months, 100 are needed" in reasons["tiny"]
    for tenant in states:
        assert tenant in markdown(summary.outcomes)

    fleet = read_fleet(store)
    assert fleet.generation == summary.generation == 1, "one write for the whole run"
    assert set(fleet.serving()) == {"acme", "globex"}
    assert "100 are needed" in (fleet.entries["tiny"].reason or "")
    assert fleet.entries["broken"].reason == "the last training run failed", "what callers are told says no more"
    shown = describe_model(store, "acme")
    assert shown["provenance"]["mlflow_version"] == "1"
    by_macro = shown["provenance"]["by_macro"]
    assert sum(row["support"] for row in by_macro) == shown["manifest"]["metrics"]["test_rows"]
    assert [row["support"] for row in by_macro] == sorted((row["support"] for row in by_macro), reverse=True)

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    champion = client.get_model_version_by_alias("macrofleet.acme", "champion")
    assert champion.tags["macrofleet.manifest"] == fleet.entries["acme"].manifest
    assert told[0] == ("tiny", 1, 4, 0.25), "who is not eligible takes no time"
    assert next(event for event in told if event[0] == "acme") == ("acme", 1, 4, 0.25), "it begins"
    assert told[-1] == ("globex", 4, 4, 1.0)

    again = retrain_fleet(["acme"], retrain=True)
    assert [(o.state, o.why) for o in again.outcomes] == [("trained", "asked for")]
    assert [outcome.version for outcome in again.outcomes] == [fleet.entries["acme"].version]
    entry = fleet.entries["acme"]
    assert read_fleet(store).entries["acme"] == entry.model_copy(update={"lease_token": entry.lease_token + 1})
    assert len(client.search_model_versions("name='macrofleet.acme'")) == 1


def test_new_data_make_a_new_version_and_the_old_one_is_remembered(store: ObjectStore) -> None:
    fill(store, "acme")
    first = retrain_fleet(["acme"]).outcomes[0].version
    fill(store, "acme", tickets=150)
    second = retrain_fleet(["acme"]).outcomes[0].version
    entry = read_fleet(store).entries["acme"]
    assert first != second
    assert (entry.version, entry.previous) == (second, first)


def test_a_fleet_with_nothing_new_is_left_alone_without_a_program_and_mlflow(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "acme")
    import_examples(store, "tiny", [Example(ticket_id="1", body="a", macro_id="m")])
    (first, _) = retrain_fleet().outcomes
    monkeypatch.setattr(trainers, "Program", None)
    monkeypatch.setattr(Tracking, "prepare", None)
    monkeypatch.setattr(Tracking, "register", None)
    told: list[tuple[str, int, int, float]] = []
    token = listener.set(lambda *event: told.append(event))
    try:
        summary = retrain_fleet()
    finally:
        listener.reset(token)
    acme, tiny = summary.outcomes
    assert (acme.state, acme.version, acme.top1) == ("unchanged", first.version, first.top1)
    assert acme.reason == "unchanged since 2026-01-01"
    assert tiny.state == "not_eligible"
    assert (summary.generation, told[-1][1:]) == (1, (2, 2, 1.0))
    assert "| acme | unchanged |" in markdown(summary.outcomes)
    assert "unchanged since 2026-01-01 |" in markdown(summary.outcomes)


def test_models_are_nested_in_their_fleet_run_and_a_run_without_any_leaves_nothing(
    store: ObjectStore, tmp_path: Path
) -> None:
    fill(store, "acme")
    fill(store, "globex")
    retrain_fleet()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (night,) = client.search_experiments(filter_string="name LIKE 'macrofleet/%'")
    assert [night.name] == [f"macrofleet/{run}" for run in list_runs(store)]
    parent, *others = sorted(client.search_runs([night.experiment_id]), key=lambda run: len(run.data.params))
    assert (parent.info.status, parent.data.metrics) == ("FINISHED", {"tenants_trained": 2})
    assert [run.data.tags["mlflow.parentRunId"] for run in others] == [parent.info.run_id] * 2

    assert [outcome.state for outcome in retrain_fleet().outcomes] == ["unchanged", "unchanged"]
    assert len(client.search_experiments(filter_string="name LIKE 'macrofleet/%'")) == 1


def test_a_fleet_run_that_fails_is_closed_in_mlflow_and_one_that_trains_nothing_opens_none(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "acme")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")

    def night() -> list[tuple[str, bool]]:
        found = client.search_experiments(filter_string="name LIKE 'macrofleet/%'")
        runs = [run for one in found for run in client.search_runs([one.experiment_id])]
        return sorted((run.info.status, "mlflow.parentRunId" in run.data.tags) for run in runs)

    with monkeypatch.context() as patched:
        # Something asks for training, and it comes to nothing.
        patched.setattr(Trainer, "train", failing)
        assert [outcome.state for outcome in retrain_fleet().outcomes] == ["failed"]
    assert night() == []
    with monkeypatch.context() as patched:
        patched.setattr(Retraining, "serve", failing)
        with pytest.raises(ValueError, match="on purpose"):
            retrain_fleet()
    assert night() == [("FAILED", False), ("FINISHED", True)]


def failing(*_: object, **__: object) -> None:
    raise ValueError("on purpose")


def test_a_serving_tenant_with_too_little_new_data_goes_on_serving(store: ObjectStore) -> None:
    fill(store, "acme")
    version = retrain_fleet(["acme"]).outcomes[0].version
    store.delete("lake/tenants/acme/examples.parquet")
    assert retrain_fleet(["acme"]).outcomes[0].state == "not_eligible"
    assert read_fleet(store).entries["acme"].version == version


@pytest.mark.parametrize("name", ["a/b", "..", "ACME", "a%2Fb"])
def test_a_name_that_is_no_tenants_ends_the_run_before_anything_is_done(store: ObjectStore, name: str) -> None:
    with pytest.raises(InvalidTenant):
        retrain_fleet([name])
    assert list(store.list()) == []


def test_an_unknown_tenant_is_named(store: ObjectStore) -> None:
    (outcome,) = retrain_fleet(["nobody"]).outcomes
    assert (outcome.state, "nobody has no tickets and no macros" in outcome.reason) == ("unknown", True)
    assert read_fleet(store).entries == {}, "it does not become known by being asked for"


def test_a_reason_with_a_bar_does_not_break_the_table() -> None:
    text = markdown([Outcome(tenant="a", state="failed", reason="x|y")])
    assert [line.count("|") for line in text.splitlines()] == [0, 0, 11, 11, 11]


def test_what_a_library_says_of_a_ticket_reaches_no_report(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store, "acme")

    ticket = "my card number is 4111"

    def quotes(*_: object, **__: object) -> None:
        raise ValueError(f"cannot use the text {ticket!r}")

    monkeypatch.setattr(Trainer, "train", quotes)
    summary = retrain_fleet(["acme"])
    assert summary.outcomes[0].state == "failed"
    assert "ValueError" in summary.outcomes[0].reason
    assert "4111" not in str(summary.as_dict()) + markdown(summary.outcomes) + caplog.text


def test_mlflow_failing_after_the_fleet_was_written_is_a_warning(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "acme")

    def down(*_: object, **__: object) -> None:
        raise TrackingUnavailable("MLflow does not answer")

    monkeypatch.setattr(Tracking, "set_alias", down)
    summary = retrain_fleet(["acme"])
    assert summary.outcomes[0].state == "trained"
    assert "acme" in read_fleet(store).serving()
    (warning,) = summary.warnings
    assert "alias champion was not set: MLflow does not answer" in warning


def test_a_reason_keeps_what_a_later_release_wrote(store: ObjectStore) -> None:
    later = FleetEntry.model_validate({"limits": {"concurrency": 2, "burst": 9}, "mirror": {"share": 0.1}})
    update_fleet(store, {"tiny": lambda _: later})
    import_examples(store, "tiny", [Example(ticket_id="1", body="a", macro_id="m")])
    retrain_fleet(["tiny"])
    entry = read_fleet(store).entries["tiny"]
    assert entry == later.model_copy(update={"reason": entry.reason})
    assert "100 are needed" in (entry.reason or "")


def test_a_version_held_by_a_roll_back_goes_on_serving_and_the_run_says_so(store: ObjectStore, tmp_path: Path) -> None:
    fill(store, "acme")
    first = retrain_fleet(["acme"]).outcomes[0]
    pin(store, ["acme"])
    limit(store, ["acme"], concurrency=3)
    fill(store, "acme", tickets=150)
    second = retrain_fleet(["acme"]).outcomes[0]
    entry = read_fleet(store).entries["acme"]
    assert (entry.version, entry.previous, entry.previous_manifest) == (second.version, first.version, first.manifest)
    assert (entry.keep_loaded, entry.limits) == (True, TenantLimits(concurrency=3)), "publishing keeps what is desired"

    roll_back(store, ["acme"])
    held = read_fleet(store).entries["acme"]
    fill(store, "acme", tickets=180)
    summary = retrain_fleet(["acme"])
    (outcome,) = summary.outcomes
    assert (outcome.state, summary.generation) == ("held", read_fleet(store).generation)
    assert first.version in outcome.reason
    assert "macrofleet fleet rollback acme --release" in outcome.reason
    assert "| acme | held |" in markdown(summary.outcomes)
    assert read_fleet(store).entries["acme"] == held.model_copy(update={"lease_token": 3})
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    champion = client.get_model_version_by_alias("macrofleet.acme", "champion")
    assert champion.tags["macrofleet.manifest"] != outcome.manifest, "the alias does not run ahead of the fleet"

    release(store, ["acme"])
    (outcome,) = retrain_fleet(["acme"]).outcomes
    entry = read_fleet(store).entries["acme"]
    assert (outcome.state, entry.version, entry.previous) == ("trained", outcome.version, first.version)


def relabel(
    store: ObjectStore, tenant: str, label: Callable[[int, Example], str | None], *, tickets: int = 240
) -> None:
    """Import a tenant's tickets with other labels."""
    made = make_tenant(tenant, seed=1, tickets=tickets, macros=8)
    rows = [
        Example(ticket_id=t.ticket_id, subject=t.subject, body=t.body, macro_id=t.macro_id, applied_at=t.applied_at)
        for t in sorted(made.tickets, key=lambda ticket: ticket.applied_at)
    ]
    import_examples(store, tenant, [replace(row, macro_id=label(n, row)) for n, row in enumerate(rows)])


def test_a_worse_model_is_registered_but_does_not_serve_unless_it_is_forced_to(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "acme", tickets=240)
    (first,) = retrain_fleet(["acme"]).outcomes
    assert (first.state, first.reason) == ("trained", "")
    # The training rows' labels go wrong (somebody shuffled a column, say); what agents do today stays right.
    macros = sorted({macro.id for macro in make_tenant("acme", seed=1, tickets=240, macros=8).macros})
    wrong = dict(zip(macros, macros[1:] + macros[:1], strict=True))
    relabel(store, "acme", lambda n, row: wrong[row.macro_id or ""] if n < 150 else row.macro_id)
    summary = retrain_fleet(["acme"])
    (outcome,) = summary.outcomes
    assert outcome.state == "not_promoted"
    assert "is worse than the champion's" in outcome.reason
    assert "| acme | not_promoted |" in markdown(summary.outcomes)
    assert outcome.reason.split(";")[0] in str(summary.as_dict())
    entry = read_fleet(store).entries["acme"]
    assert (entry.version, entry.reason) == (first.version, None)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")

    def aliased(alias: str) -> str:
        return str(client.get_model_version_by_alias("macrofleet.acme", alias).tags["macrofleet.manifest"])

    assert (aliased("champion"), aliased("challenger")) == (first.manifest, outcome.manifest)

    (forced,) = retrain_fleet(["acme"], force=True).outcomes
    assert (forced.state, forced.version) == ("trained", outcome.version)
    assert forced.reason == f"promoted by force: {outcome.reason}"
    assert read_fleet(store).entries["acme"].version == outcome.version
    assert aliased("champion") == outcome.manifest

    (again,) = retrain_fleet(["acme"], retrain=True).outcomes
    assert (again.state, again.reason) == ("trained", ""), "what serves is not judged against itself"


def test_a_first_model_that_is_worse_than_the_baseline_leaves_its_tenant_without_one(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(need, "FIT", FitSettings(least_steps=1, epochs=1, learning_rate=1e-6, prior_decay=1e9))
    fill(store, "acme", tickets=240)
    (outcome,) = retrain_fleet(["acme"]).outcomes
    assert outcome.state == "not_promoted"
    assert "is worse than the baseline tfidf's" in outcome.reason
    entry = read_fleet(store).entries["acme"]
    assert (entry.serves, entry.reason) == (False, "the last trained model was not good enough to serve")


def test_a_champion_that_cannot_be_opened_keeps_nobody_away(store: ObjectStore) -> None:
    fill(store, "acme")
    first = retrain_fleet(["acme"]).outcomes[0]
    fill(store, "acme", tickets=150)
    store.delete(model_key("acme", first.version, "weights.safetensors"))
    shutil.rmtree(Path(os.environ["MACROFLEET_DISK_FOLDER"]) / "champions", ignore_errors=True)
    (outcome,) = retrain_fleet(["acme"]).outcomes
    assert (outcome.state, read_fleet(store).entries["acme"].version) == ("trained", outcome.version)


def test_a_tenants_own_precision_holds_unless_the_run_names_one(store: ObjectStore) -> None:
    fill(store, "acme")

    def precision(asked: float | None = None) -> object:
        retrain_fleet(["acme"], force=True, precision=asked)
        return describe_model(store, "acme")["manifest"]["settings"]["precision"]

    assert precision() == 0.8
    edit_tenant_settings(store, ["acme"], {"precision": 0.9})
    assert precision() == 0.9
    assert precision(0.6) == 0.6


def test_an_empty_lake_is_left_alone(store: ObjectStore) -> None:
    assert retrain_fleet().outcomes == ()
    assert list(store.list()) == []


def test_a_tenant_may_have_a_program_of_its_own_and_auto_says_what_it_took(
    store: ObjectStore, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = publish_program(store, tiny_encoder_folder)
    monkeypatch.setitem(RELEASED_PROGRAMS, "encoder", digest)
    for tenant in ("acme", "globex", "initech"):
        fill(store, tenant)
    edit_tenant_settings(store, ["acme"], {"program": "encoder"})
    edit_tenant_settings(store, ["globex"], {"program": "auto"})
    # Whatever the gate thinks of random weights, which differs between machines.
    summary = retrain_fleet(force=True)
    acme, globex, initech = summary.outcomes
    assert (acme.program, acme.program_reason) == ("encoder", "")
    assert globex.program in {"bag", "encoder"}
    assert "encoder is right on" in globex.program_reason
    assert (initech.program, initech.program_reason) == ("bag", "")
    shown = describe_model(store, "acme")
    assert (shown["provenance"]["program"], shown["manifest"]["program"]) == ("encoder", digest)
    assert describe_model(store, "globex")["provenance"]["program_reason"] == globex.program_reason


def test_champions_of_tenants_that_left_the_fleet_are_not_kept(store: ObjectStore, tmp_path: Path) -> None:
    kept = tmp_path / "disk" / "champions" / "models"
    for tenant in ("acme", "globex"):
        (kept / tenant / ("a" * 16)).mkdir(parents=True)
    trainer = retraining.Retraining.from_environment()
    trainer.look([], wish=need.NO_WISH)
    assert {path.name for path in kept.iterdir()} == {"acme", "globex"}, "a store without a fleet is the wrong one"
    update_fleet(store, {"globex": lambda _: FleetEntry(reason="too few tickets")})
    trainer.look([], wish=need.NO_WISH)
    assert {path.name for path in kept.iterdir()} == {"globex"}
