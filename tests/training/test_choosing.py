from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.model.runtime import Program
from tests.training.test_trainer import make
from training.choosing import ChoosingTrainer, Trial, choose_program, make_trainer, programs_of
from training.fitting import FitSettings
from training.trainer import Trainer

QUICK = FitSettings(least_steps=20, epochs=2)


def trial(program: str, right: str, milliseconds: float = 1.0) -> Trial:
    return Trial(program=program, right=np.array([mark == "+" for mark in right], bool), milliseconds=milliseconds)


@pytest.mark.parametrize(
    ("bag", "encoder", "milliseconds", "chosen", "reason"),
    [
        ("+-----", "++++++", 10, "encoder", "encoder is right on 6 of 6 validation rows, bag on 1"),
        ("+-----", "++++++", 60, "bag", "encoder takes more than 50 ms a ticket"),
        ("++++-+", "++++++", 10, "bag", "encoder is right on 6 of 6 validation rows, bag on 5: not more than chance"),
        ("----++++--", "++++----++", 10, "bag", "right on 6 of 10 validation rows, bag on 4: not more than chance"),
        ("++++++", "------", 10, "bag", "encoder is right on 0 of 6 validation rows, bag on 6: not more than chance"),
        ("", "", 10, "bag", "right on 0 of 0 validation rows, bag on 0: not more than chance"),
    ],
)
def test_the_dearer_program_must_be_better_beyond_noise_and_within_the_budget(
    bag: str, encoder: str, milliseconds: float, chosen: str, reason: str
) -> None:
    choice = choose_program([trial("bag", bag), trial("encoder", encoder, milliseconds)], budget_milliseconds=50)
    assert choice.program == chosen
    assert reason in choice.reason


def test_auto_is_a_choice_between_both() -> None:
    assert programs_of("auto") == ("bag", "encoder")
    assert programs_of("encoder") == ("encoder",)


def test_a_tenant_gets_the_program_that_does_best_and_the_manifest_says_why(
    bag: Program, tiny_encoder: Program, tmp_path: Path
) -> None:
    told: list[float] = []
    trainer = make_trainer([bag, tiny_encoder], QUICK)
    trained = trainer.train("acme", make(120), tmp_path, progress=told.append)
    # Words alone decide here, which a random encoder knows no better than the bag.
    assert (trained.program, trained.manifest.program) == ("bag", bag.digest)
    assert "not more than chance" in trained.program_reason
    assert trained.manifest.settings["program_reason"] == trained.program_reason
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_better_program_is_chosen(
    bag: Program, tiny_encoder: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers = {"bag": Trainer(bag, QUICK), "encoder": Trainer(tiny_encoder, QUICK)}
    try_out = Trainer.try_out

    def blind(self: Trainer, *arguments: Any, **named: Any) -> Any:
        right, texts = try_out(self, *arguments, **named)
        return (np.zeros_like(right) if self is trainers["bag"] else right), texts

    monkeypatch.setattr(Trainer, "try_out", blind)
    generous = ChoosingTrainer(trainers, budget_milliseconds=60_000)
    trained = generous.train("acme", make(120), tmp_path)
    assert (trained.program, trained.manifest.program) == ("encoder", tiny_encoder.digest)
    assert trained.program_reason.startswith("encoder is right on")
    assert (trained.evaluation.top1 or 0) > 0.5
    tight = ChoosingTrainer(trainers, budget_milliseconds=1e-6)
    (tmp_path / "tight").mkdir()
    assert tight.train("acme", make(120), tmp_path / "tight").program == "bag"
