"""What is to be done with a tenant: a pure function of its last training, its inputs today, the fleet and the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from registry.fleet.state import FleetEntry
from training.inputs import Inputs
from training.record import TrainingRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What is to be done, and the reason in words.

    Attributes:
        action: "train"; "settle": the fleet or MLflow do not follow the last training yet, which is not to be repeated;
            "skip": nothing is to be done.
    """

    action: Literal["train", "settle", "skip"]
    reason: str


def why(
    record: TrainingRecord | None,
    inputs: Inputs,
    entry: FleetEntry | None,
    now: datetime,
    *,
    retrain_after_days: int,
    retrain: bool = False,
    force: bool = False,
    poor_acceptance: str | None = None,
) -> Why:
    """Decide.

    Args:
        record: of the last training.
        inputs: what a model would be made of today.
        entry: the tenant's in the fleet.
        retrain: train whatever was done before.
        poor_acceptance: that agents take too few of its suggestions, in words; see `training.feedback`.
        force: have what was trained last serve, whatever the gate said.
    """
    asked = _reason_to_train(record, inputs, now, retrain_after_days, retrain=retrain) or poor_acceptance
    if asked is not None:
        return Why(action="train", reason=asked)
    assert record is not None  # else it would have been a reason
    held = entry is not None and entry.hold_version
    serves = entry is not None and entry.manifest == record.manifest
    if record.state == "not_promoted" and force:
        return Why(action="settle", reason=f"promoted by force: {record.reason}")
    if record.manifest is not None and not record.settled:
        return Why(action="settle", reason="trained by an earlier run that did not come to its end")
    if record.state == "trained" and not serves and not held:
        return Why(action="settle", reason="trained earlier, and nothing changed since")
    return Why(action="skip", reason=_unchanged(record))


def _reason_to_train(
    record: TrainingRecord | None, inputs: Inputs, now: datetime, retrain_after_days: int, *, retrain: bool
) -> str | None:
    if retrain:
        return "asked for"
    if record is None:
        return "new: never trained"
    if record.state == "failed":
        return "failed last time"
    changed = inputs.changed_since(record.parts)
    if changed:
        return ", ".join(f"{name} changed" for name in changed)
    if now - record.finished_at > timedelta(days=retrain_after_days):
        return f"older than {retrain_after_days} days"
    return None


def _unchanged(record: TrainingRecord) -> str:
    text = f"unchanged since {record.finished_at:%Y-%m-%d}"
    return f"{text}, when it was {record.state.replace('_', ' ')}: {record.reason}" if record.reason else text
