"""What is trained again, and what is not: with a made-up trainer and a made-up MLflow, and a clock that the tests set."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows import need, retraining
from flows.judging import Judge
from flows.need import Wish
from flows.outcome import Outcome, failure
from flows.retraining import Retraining
from flows.rollout_settings import RolloutSettings
from flows.settings import FlowSettings
from flows.trainers import Trainers
from registry.catalogue import Catalogue, Macro, make_catalogue, read_catalogue, write_catalogue
from registry.errors import (
    InvalidInput,
    MacrofleetError,
    NotEnoughData,
    PublishConflict,
    StoreUnavailable,
    TenantNotFound,
    TrackingUnavailable,
)
from registry.feedback.records import encode_object
from registry.fleet.control import release, roll_back
from registry.fleet.state import FleetEntry, read_fleet, update_fleet
from registry.layout import feedback_key, lease_key, model_key, tenant_settings_key, training_record_key
from registry.model.bundle import Manifest, write_bundle
from registry.model.program import RELEASED_PROGRAMS
from registry.store.local import LocalStore
from registry.tenant_settings import edit_tenant_settings
from registry.tracking.models import Registration
from training.evaluation import Evaluation, judge
from training.examples import Example, fingerprint
from training.fitting import FitSettings
from training.gate import Decision
from training.lake import Lake
from training.record import read_record
from training.settings import TrainingSettings
from training.tenants import labels_of
from training.trainer import Trained

NOW = datetime(2026, 11, 28, 3, tzinfo=UTC)
REFUSED = Decision(reasons=("worse than the champion",))


class MadeUpTracking:
    """MLflow as `Retraining` uses it."""

    def __init__(self) -> None:
        self.registered: list[str] = []
        self.aliases: dict[str, str] = {}
        self.down = False

    def prepare(self) -> None:
        pass

    def register(self, manifest: Manifest, **_: Any) -> Registration:
        if self.down:
            raise TrackingUnavailable("MLflow does not answer")
        self.registered.append(manifest.version)
        return Registration(run_id="r", registered_model=f"macrofleet.{manifest.tenant}", version="1")

    def set_alias(self, tenant: str, alias: str, *, manifest_digest: str) -> None:
        if self.down:
            raise TrackingUnavailable("MLflow does not answer")
        self.aliases[f"{tenant}/{alias}"] = manifest_digest


class MadeUpTrainer:
    """Makes a model that is as much a function of its inputs as a real one, in no time."""

    def __init__(self, world: World, settings: TrainingSettings) -> None:
        self._world, self._settings = world, settings

    def train(
        self,
        tenant: str,
        examples: Sequence[Example],
        folder: Path,
        *,
        catalogue: Catalogue | None = None,
        precision: float = 0.8,
        progress: Callable[[float], None] | None = None,
    ) -> Trained:
        self._world.trained.append(self._settings)
        if self._world.trouble is not None:
            raise self._world.trouble
        labels = labels_of(sorted({macro for example in examples for macro in example.macro_ids}), catalogue)
        manifest = write_bundle(
            folder,
            tenant=tenant,
            program=RELEASED_PROGRAMS["bag"],
            tensors={"kernel": np.zeros((2, len(labels)), np.float32)},
            macros=labels,
            data_fingerprint=fingerprint(examples),
            settings={"precision": precision, "weights": self._settings.weights, "program": self._settings.program},
            metrics={},
            threshold=0.5,
        )
        figures = dict.fromkeys(Evaluation.__dataclass_fields__)
        return Trained(
            manifest=manifest,
            evaluation=Evaluation(**{**figures, "rows": 0, "oos_rows": 0, "top1": 0.5, "top3": 0.75}),  # type: ignore[arg-type]
            judged=judge(np.zeros((0, len(labels))), [], [label.id for label in labels], threshold=0.5),
            test=(),
            fitted=(),
            examples=len(examples),
            macros=len(labels),
            fit_seconds=0.0,
            program="bag",
            program_reason="",
        )


class World:
    """A store, a training process, and how often it really trained."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.store = LocalStore(folder / "store")
        self.tracking = MadeUpTracking()
        self.now = NOW
        self.prepared: list[tuple[str, ...]] = []
        self.trained: list[TrainingSettings] = []
        self.trouble: Exception | None = None
        self.settings: dict[str, Any] = {"disk_folder": folder / "disk"}
        self._patch = patch
        patch.setattr(retraining, "_utc_now", lambda: self.now)
        patch.setattr(Retraining, "prepare", lambda _, programs: self.prepared.append(programs))
        patch.setattr(Trainers, "of", lambda _, settings: MadeUpTrainer(self, settings))

    def gate(self, decision: Decision) -> None:
        self._patch.setattr(Judge, "judge", lambda *_: decision)

    def fill(self, tenant: str = "acme", *, tickets: int = 120) -> None:
        rows = [
            Example(ticket_id=f"{n}", body=f"text {n}", macro_id="abc"[n % 3], applied_at=NOW - timedelta(days=n % 90))
            for n in range(tickets)
        ]
        Lake(self.store).merge(tenant, rows)

    def process(self) -> Retraining:
        """A new one, as every run has."""
        tracking: Any = self.tracking
        return Retraining(self.store, tracking, FlowSettings(**self.settings), RolloutSettings())

    def work(self, tenant: str = "acme", **wish: Any) -> Outcome:
        """One tenant's part of a run, before the fleet is written."""
        try:
            return self.process().train(tenant, wish=Wish(**wish))
        except MacrofleetError as problem:
            return failure(tenant, problem)

    def run(self, tenant: str = "acme", **wish: Any) -> Outcome:
        """A whole run over one tenant, as the flow does it."""
        process = self.process()
        look = process.look([tenant], wish=Wish(**wish))[tenant]
        before = len(self.trained)
        outcome = look.outcome or self.work(tenant, **wish)
        assert bool(look.programs) == (len(self.trained) > before), "a look says whether there will be training"
        _, (served,), self.warnings = process.serve([outcome])
        return served

    def entry(self, tenant: str = "acme") -> FleetEntry:
        return read_fleet(self.store).entries[tenant]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """acme has 120 tickets with three macros."""
    made = World(tmp_path, monkeypatch)
    made.fill()
    return made


def test_what_did_not_change_is_left_alone(world: World) -> None:
    first = world.run()
    assert (first.state, first.why, world.prepared) == ("trained", "new: never trained", [("bag",)])
    objects, generation = [info.key for info in world.store.list()], read_fleet(world.store).generation
    world.now += timedelta(days=29)
    world.fill()  # the same import again
    again = world.run()
    assert (again.state, again.reason, again.why) == ("unchanged", "unchanged since 2026-11-28", "")
    assert (again.version, again.manifest, again.top1, again.top3) == (first.version, first.manifest, 0.5, 0.75)
    assert (again.examples, again.macros, again.program) == (120, 3, "bag")
    assert (len(world.trained), len(world.prepared), len(world.tracking.registered)) == (1, 1, 1)
    assert [info.key for info in world.store.list()] == objects
    assert read_fleet(world.store).generation == generation


def test_new_tickets_ask_for_training(world: World) -> None:
    first = world.run()
    world.fill(tickets=121)
    second = world.run()
    assert (second.state, second.why) == ("trained", "data changed")
    assert second.version != first.version
    assert world.run().state == "unchanged"


def write_feedback(world: World, *records: dict[str, Any], number: int = 1) -> None:
    lines = [json.dumps({"tenant": "acme", "at": world.now.timestamp(), **record}).encode() for record in records]
    world.store.put(feedback_key("acme", f"{world.now:%Y-%m-%d}", "a" * 16, number), encode_object(lines))


def told(number: int, applied: str | None, **more: Any) -> dict[str, Any]:
    return {"kind": "feedback", "id": f"{number}", "suggestion_id": f"s{number}", "applied": applied, **more}


def test_feedback_on_a_ticket_asks_for_training(world: World) -> None:
    world.run()
    write_feedback(world, told(1, "a", ticket_id="1"), told(2, "a", ticket_id="unknown"))
    again = world.run()
    assert (again.state, again.why) == ("trained", "data changed")
    assert world.run().state == "unchanged"


def test_suggestions_that_agents_do_not_take_ask_for_training(world: World) -> None:
    version = world.run().version
    world.now += timedelta(days=8)
    shown = {"kind": "shown", "model_version": version, "macros": ["a", "b"]}
    views = [{**shown, "suggestion_id": f"s{number}"} for number in range(60)]
    write_feedback(world, *views, *(told(number, "a" if number < 6 else None) for number in range(60)))
    again = world.run()
    assert (again.state, again.why) == ("trained", "acceptance fell to 10% of 60 suggestions, below 20%")
    assert world.run().state == "unchanged"
    world.now += timedelta(days=8)
    assert world.run().state == "unchanged"
    edit_tenant_settings(world.store, ["acme"], {"least_acceptance": 0.05})
    assert world.run().state == "unchanged"


def test_other_titles_and_retired_macros_ask_for_training(world: World) -> None:
    write_catalogue(world.store, "acme", make_catalogue(Macro(id=i, title=i) for i in "abcd"), etag=None)
    world.run()
    catalogue, etag = read_catalogue(world.store, "acme") or pytest.fail("there is one")
    renamed = make_catalogue([*catalogue.macros[1:], Macro(id="a", title="Another title")])
    etag = write_catalogue(world.store, "acme", renamed, etag=etag)
    assert world.run().why == "catalogue changed"
    unused = make_catalogue(macro for macro in renamed.macros if macro.id != "d")
    write_catalogue(world.store, "acme", unused, etag=etag)
    assert world.run().state == "unchanged"


def test_another_program_asks_for_training(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    monkeypatch.setitem(RELEASED_PROGRAMS, "bag", "9" * 64)
    assert world.run().why == "program changed"
    assert world.run(program="encoder").why == "program changed"
    assert world.run(program="auto").why == "program changed, settings changed", "the budget decides, too"
    assert world.prepared == [("bag",), ("bag",), ("encoder",), ("bag", "encoder")]
    world.settings["program"] = "auto"
    assert world.run().state == "unchanged"


def test_other_settings_ask_for_training(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    edit_tenant_settings(world.store, ["acme"], {"precision": 0.9})
    assert world.run().why == "settings changed"
    assert world.trained[-1].precision == 0.9
    edit_tenant_settings(world.store, ["acme"], {"weights": "int8"})
    assert world.run().why == "settings changed"
    assert world.trained[-1].weights == "int8"
    assert world.run(precision=0.7).why == "settings changed"
    assert (world.trained[-1].precision, world.trained[-1].weights) == (0.7, "int8")
    monkeypatch.setattr(need, "FIT", FitSettings(epochs=13))
    assert world.run(precision=0.7).why == "settings changed", "so a release that fits otherwise trains again"


def test_settings_that_make_no_other_model_do_not(world: World) -> None:
    world.run()
    edit_tenant_settings(
        world.store, ["acme"], {"least_tickets": 50, "least_macros": 2, "months": 12, "promotion": "manual"}
    )
    assert world.run().state == "unchanged"


def test_age_asks_for_training_and_the_same_data_make_the_same_version(world: World) -> None:
    first = world.run()
    world.now += timedelta(days=30, seconds=1)
    second = world.run()
    assert (second.state, second.why) == ("trained", "older than 30 days")
    assert second.version == first.version
    world.now += timedelta(days=30)
    assert world.run().state == "unchanged", "it counts from the last training"
    edit_tenant_settings(world.store, ["acme"], {"retrain_after_days": 7})
    assert world.run().why == "older than 7 days"


def test_a_run_may_ask_for_training(world: World) -> None:
    world.run()
    assert (world.run(retrain=True).why, len(world.trained)) == ("asked for", 2)


def test_a_crash_before_the_fleet_was_written_costs_no_training(world: World) -> None:
    left = world.work()
    assert read_fleet(world.store).entries == {}
    world.now += timedelta(days=1)
    outcome = world.run()
    assert (outcome.state, outcome.version, outcome.manifest) == ("trained", left.version, left.manifest)
    assert outcome.why == "trained by an earlier run that did not come to its end"
    assert (len(world.trained), len(world.tracking.registered)) == (1, 1)
    assert (world.entry().version, world.tracking.aliases["acme/champion"]) == (left.version, left.manifest)
    assert world.run().state == "unchanged"


def test_a_crash_before_the_alias_was_set_costs_no_training(world: World) -> None:
    """The fleet is written, MLflow is not, as when the process is killed in between."""
    outcome = world.work()
    update_fleet(world.store, {"acme": lambda _: FleetEntry().published(outcome.version, outcome.manifest, token=1)})
    assert world.run().state == "trained"
    assert world.tracking.aliases["acme/champion"] == outcome.manifest
    assert (world.run().state, len(world.trained)) == ("unchanged", 1)


def test_an_alias_that_mlflow_did_not_take_is_set_by_the_next_run(world: World) -> None:
    outcome = world.work()
    world.tracking.down = True
    _, _, warnings = world.process().serve([outcome])
    assert "alias champion was not set" in warnings[0]
    assert world.run().state == "trained"
    world.tracking.down = False
    assert world.run().state == "trained"
    assert (world.warnings, world.tracking.aliases) == ([], {"acme/champion": outcome.manifest})
    assert (world.run().state, len(world.trained)) == ("unchanged", 1)


@pytest.mark.parametrize("lost", ["manifest.json", "weights.safetensors"])
def test_what_was_collected_meanwhile_is_made_again(world: World, lost: str) -> None:
    left = world.work()
    world.store.delete(model_key("acme", left.version, lost))
    outcome = world.run()
    assert (outcome.state, outcome.why) == ("trained", "its last version is gone from the store")
    assert (len(world.trained), outcome.version) == (2, left.version)


def test_what_is_held_stays_and_serves_once_it_is_released(world: World) -> None:
    first = world.run()
    world.fill(tickets=130)
    second = world.run()
    roll_back(world.store, ["acme"])
    held = world.run()
    assert (held.state, world.entry().version) == ("unchanged", first.version)
    assert held.reason == (
        f"unchanged since 2026-11-28; the fleet holds version {first.version}: "
        "macrofleet fleet rollback acme --release lifts that"
    )
    release(world.store, ["acme"])
    outcome = world.run()
    assert (outcome.state, outcome.version, len(world.trained)) == ("trained", second.version, 2)
    assert outcome.why == "trained earlier, and nothing changed since"
    assert world.entry().version == second.version


def test_what_is_trained_while_another_version_is_held_is_not_trained_again(world: World) -> None:
    first = world.run()
    world.fill(tickets=130)
    world.run()
    roll_back(world.store, ["acme"])
    world.fill(tickets=140)
    assert world.run().state == "held"
    assert (world.run().state, world.entry().version, len(world.trained)) == ("unchanged", first.version, 3)


def test_what_the_gate_refused_is_not_trained_until_something_changes(world: World) -> None:
    champion = world.run()
    world.gate(REFUSED)
    world.fill(tickets=130)
    refused = world.run()
    assert (refused.state, refused.why) == ("not_promoted", "data changed")
    assert world.tracking.aliases["acme/challenger"] == refused.manifest
    again = world.run()
    assert (again.state, len(world.trained)) == ("unchanged", 2)
    assert again.reason == "unchanged since 2026-11-28, when it was not promoted: worse than the champion"
    assert world.entry().version == champion.version
    world.now += timedelta(days=31)
    assert (world.run().state, len(world.trained)) == ("not_promoted", 3)
    world.fill(tickets=131)
    assert world.run().why == "data changed"


def test_force_serves_what_the_gate_refused_and_it_stays(world: World) -> None:
    world.run()
    world.gate(REFUSED)
    world.fill(tickets=130)
    refused = world.run()
    forced = world.run(force=True)
    assert (forced.state, forced.version, len(world.trained)) == ("trained", refused.version, 2)
    assert forced.reason == "promoted by force: worse than the champion"
    assert (world.entry().version, world.tracking.aliases["acme/champion"]) == (refused.version, refused.manifest)
    world.now += timedelta(days=1)
    later = world.run()
    assert (later.state, later.version) == ("unchanged", refused.version)
    assert later.reason == "unchanged since 2026-11-28, when it was trained: promoted by force: worse than the champion"
    assert world.entry().version == refused.version


def test_a_failure_is_recorded_and_tried_again(world: World) -> None:
    world.trouble = ValueError("the text 'my card number is 4111'")
    with pytest.raises(ValueError, match="4111"):
        world.process().train("acme")
    record = read_record(world.store, "acme").record
    assert record is not None
    assert (record.state, record.version, record.manifest) == ("failed", None, None)
    assert "4111" not in record.to_bytes().decode()
    world.trouble = None
    assert world.run().why == "failed last time"
    assert world.run().state == "unchanged"


def test_mlflow_being_down_is_a_failure_that_the_next_run_mends(world: World) -> None:
    world.tracking.down = True
    assert world.run().state == "failed"
    world.tracking.down = False
    assert (world.run().why, world.run().state) == ("failed last time", "unchanged")


def test_what_fitting_finds_too_little_of_is_not_tried_again_with_the_same(world: World) -> None:
    world.trouble = NotEnoughData("too few macros in the training rows")
    assert world.run().state == "not_eligible"
    world.trouble = None
    again = world.run()
    assert (again.state, again.reason, len(world.trained)) == (
        "not_eligible",
        "too few macros in the training rows",
        1,
    )
    world.fill(tickets=121)
    assert world.run().why == "data changed"


def test_who_is_not_eligible_is_judged_again_each_time(world: World) -> None:
    world.fill("tiny", tickets=62)
    outcome = world.run("tiny")
    assert (outcome.state, world.prepared, world.trained) == ("not_eligible", [], [])
    assert outcome.reason == (
        "tenant tiny is not eligible: 62 tickets with a shared macro in the last 9 months, 100 are needed. "
        "Import more, or ask for less with `macrofleet tenants set`."
    )
    assert world.entry("tiny").reason == outcome.reason
    edit_tenant_settings(world.store, ["tiny"], {"least_tickets": 60})
    assert world.run("tiny").state == "trained"
    world.settings["least_macros"] = 4
    assert world.run("tiny").state == "not_eligible"
    assert world.entry("tiny").serves, "what serves goes on serving"
    world.settings["least_macros"] = 3
    assert world.run("tiny").state == "unchanged"
    world.now += timedelta(days=300)
    assert world.run("tiny").state == "not_eligible"


def test_a_run_that_was_overtaken_drops_its_outcome(world: World) -> None:
    """Whoever trains a tenant meanwhile (its lease ran out, say) has written its record first."""
    slow = world.process()
    train = retraining.Retraining._train

    def overtaken(process: Retraining, what: need.Need, *given: Any, **named: Any) -> Outcome:
        outcome = train(process, what, *given, **named)
        if process is slow:
            world.fill(tickets=150)
            world.store.delete(lease_key("acme"))
            assert world.work().state == "trained"
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Retraining, "_train", overtaken)
        with pytest.raises(PublishConflict, match="another run trained tenant acme at the same time"):
            slow.train("acme")
    record = read_record(world.store, "acme").record
    assert record is not None
    assert record.examples == 150


def test_a_record_that_cannot_be_read_is_as_good_as_none(world: World) -> None:
    first = world.run()
    world.store.put(training_record_key("acme"), b"{")
    outcome = world.run()
    assert (outcome.why, outcome.version) == ("new: never trained", first.version)
    assert world.run().state == "unchanged"


def test_a_record_that_cannot_be_completed_is_a_warning(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object) -> None:
        raise StoreUnavailable("the store does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(need, "settle_record", down)
        assert world.run().state == "trained"
    assert world.warnings == ["the record of tenant acme was not completed: the store does not answer"]
    assert (world.run().state, world.warnings) == ("trained", [])
    assert (world.run().state, len(world.trained)) == ("unchanged", 1)


def test_a_look_leaves_what_it_cannot_read_to_training(world: World) -> None:
    world.store.put("lake/tenants/broken/examples.parquet", b"not parquet")
    world.fill("odd")
    world.store.put(tenant_settings_key("odd"), b'{"month": 3}')
    looks = world.process().look(["broken", "odd", "nobody"], wish=Wish())
    assert {(look.outcome, look.programs) for look in looks.values()} == {(None, ())}
    process = world.process()
    with pytest.raises(InvalidInput, match="is not a lake file"):
        process.train("broken")
    with pytest.raises(InvalidInput, match=r"odd/settings\.json is not valid: month: Extra inputs"):
        process.train("odd")
    with pytest.raises(TenantNotFound):
        process.train("nobody")
    assert world.prepared == []


def test_a_fleet_lost_is_a_fleet_served_again(world: World) -> None:
    first = world.run()
    update_fleet(world.store, {"acme": lambda _: None})
    outcome = world.run()
    assert (outcome.state, outcome.version, len(world.trained)) == ("trained", first.version, 1)
    assert world.entry().version == first.version
