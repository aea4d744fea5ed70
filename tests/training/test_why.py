from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from registry.fleet.state import FleetEntry
from training.inputs import Inputs
from training.record import TrainingRecord
from training.why import Why, why

NOW = datetime(2026, 11, 28, 3, tzinfo=UTC)
INPUTS = Inputs(data="1" * 64, catalogue="2" * 64, program="3" * 64, settings="4" * 64)
SERVING = FleetEntry(version="a" * 16, manifest="a" * 64)
OTHER = FleetEntry(version="b" * 16, manifest="b" * 64)
HELD = OTHER.model_copy(update={"hold_version": True})


def record(state: str = "trained", *, days: float = 1, **update: Any) -> TrainingRecord:
    made = TrainingRecord(
        state=state,
        inputs=INPUTS.digest,
        parts=INPUTS,
        version="a" * 16,
        manifest="a" * 64,
        finished_at=NOW - timedelta(days=days),
        settled=True,
    )
    return made.model_copy(update=update)


def decide(
    found: TrainingRecord | None, entry: FleetEntry | None = SERVING, inputs: Inputs = INPUTS, **options: Any
) -> Why:
    return why(found, inputs, entry, NOW, retrain_after_days=30, **options)


def other(*parts: str) -> Inputs:
    return INPUTS.model_copy(update=dict.fromkeys(parts, "0" * 64))


@pytest.mark.parametrize(
    ("found", "inputs", "reason"),
    [
        (None, INPUTS, "new: never trained"),
        (record(), other("data"), "data changed"),
        (record(), other("program"), "program changed"),
        (record(), other("settings"), "settings changed"),
        (record(), other("catalogue"), "catalogue changed"),
        (record(), other("settings", "data"), "data changed, settings changed"),
        (record(days=30.1), INPUTS, "older than 30 days"),
        (record("failed"), INPUTS, "failed last time"),
        (record("not_promoted"), other("data"), "data changed"),
        (record("not_promoted", days=31), INPUTS, "older than 30 days"),
        (record("not_eligible"), other("data"), "data changed"),
    ],
)
def test_what_asks_for_training(found: TrainingRecord | None, inputs: Inputs, reason: str) -> None:
    assert decide(found, inputs=inputs) == Why(action="train", reason=reason)


@pytest.mark.parametrize("found", [None, record(), record("not_promoted"), record(settled=False)])
def test_whoever_asks_for_it_gets_it(found: TrainingRecord | None) -> None:
    assert decide(found, retrain=True) == Why(action="train", reason="asked for")


@pytest.mark.parametrize(
    ("found", "entry", "reason"),
    [
        (record(), SERVING, "unchanged since 2026-11-27"),
        (record(days=30), SERVING, "unchanged since 2026-10-29"),
        (record(days=-40), SERVING, "unchanged since 2027-01-07"),
        (record(), HELD, "unchanged since 2026-11-27"),
        (
            record("not_promoted", reason="worse"),
            OTHER,
            "unchanged since 2026-11-27, when it was not promoted: worse",
        ),
        (
            record("not_promoted", reason="worse"),
            None,
            "unchanged since 2026-11-27, when it was not promoted: worse",
        ),
        (
            record("not_eligible", reason="1 macro", version=None, manifest=None, settled=False),
            OTHER,
            "unchanged since 2026-11-27, when it was not eligible: 1 macro",
        ),
    ],
)
def test_nothing_is_done_where_nothing_changed(found: TrainingRecord, entry: FleetEntry | None, reason: str) -> None:
    assert decide(found, entry) == Why(action="skip", reason=reason)


@pytest.mark.parametrize("entry", [None, OTHER, FleetEntry(reason="the last training run failed")])
def test_what_was_trained_and_does_not_serve_is_served_without_training(entry: FleetEntry | None) -> None:
    assert decide(record(), entry) == Why(action="settle", reason="trained earlier, and nothing changed since")


@pytest.mark.parametrize("state", ["trained", "not_promoted"])
@pytest.mark.parametrize("entry", [SERVING, OTHER, HELD, None])
def test_what_a_run_did_not_bring_to_its_end_is_brought_to_it(state: str, entry: FleetEntry | None) -> None:
    assert decide(record(state, settled=False), entry) == Why(
        action="settle", reason="trained by an earlier run that did not come to its end"
    )


def test_force_serves_what_the_gate_refused_without_training_it_again() -> None:
    found = record("not_promoted", reason="worse")
    assert decide(found, OTHER, force=True) == Why(action="settle", reason="promoted by force: worse")
    assert decide(record(), SERVING, force=True).action == "skip"
    assert decide(found, OTHER, other("data"), force=True).action == "train"


def test_a_state_of_a_later_release_is_not_served() -> None:
    assert decide(record("waiting"), OTHER).action == "skip"


def test_poor_acceptance_asks_for_a_training_where_nothing_else_does() -> None:
    poor = "acceptance fell to 10% of 50 suggestions, below 20%"
    assert decide(record(), poor_acceptance=poor) == Why(action="train", reason=poor)
    assert decide(record(), inputs=other("data"), poor_acceptance=poor).reason == "data changed"
