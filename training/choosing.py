"""Which program a tenant is best served by: each is tried on the tenant's own validation rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from registry.catalogue import Catalogue
from registry.model.runtime import Program
from registry.tenant_settings import ProgramChoice
from training.calibration import DEFAULT_PRECISION
from training.examples import Example
from training.fitting import FitSettings
from training.trainer import Trained, Trainer

# What one ticket may take where nothing else is said: half of the hundred milliseconds that an answer may take.
LATENCY_BUDGET_MILLISECONDS = 50.0
_TIMED_TICKETS, _TRIES = 8, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How a program did.

    Attributes:
        program: its name.
        right: bool [rows], whether the best-scored macro was the one that was applied, on in-scope validation rows; the
            same rows for every program.
        milliseconds: what the slowest of some validation tickets took to be featurised alone.
    """

    program: str
    right: NDArray[np.bool_]
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A program, and why it was chosen; the reason says nothing that differs from run to run."""

    program: str
    reason: str


class TenantTrainer(Protocol):
    """What trains one tenant after the other: see `Trainer.train`."""

    def train(
        self,
        tenant: str,
        examples: Sequence[Example],
        folder: Path,
        *,
        catalogue: Catalogue | None = None,
        precision: float = DEFAULT_PRECISION,
        progress: Callable[[float], None] | None = None,
    ) -> Trained:
        """Train a model and write its bundle to `folder`."""
        ...


def programs_of(choice: ProgramChoice) -> tuple[str, ...]:
    """The programs that a choice is between, the cheapest first."""
    return ("bag", "encoder") if choice == "auto" else (choice,)


def choose_program(trials: Sequence[Trial], *, budget_milliseconds: float) -> Choice:
    """The best program that is quick enough; a dearer one only where it is better beyond noise.

    Better beyond noise: of the rows that just one of both gets right, it gets more, by more than the standard error of
    that difference (the statistic of McNemar 1947, against 1).

    Args:
        trials: the cheapest program first, which is also taken when none is quick enough.
        budget_milliseconds: what one ticket may take.
    """
    chosen, *dearer = trials
    reason = "the cheapest program"
    for trial in dearer:
        rows = len(trial.right)
        figures = (
            f"{trial.program} is right on {int(trial.right.sum())} of {rows} validation rows, "
            f"{chosen.program} on {int(chosen.right.sum())}"
        )
        gained = int((trial.right & ~chosen.right).sum())
        lost = int((chosen.right & ~trial.right).sum())
        if trial.milliseconds > budget_milliseconds:
            reason = f"{trial.program} takes more than {budget_milliseconds:g} ms a ticket"
        elif gained - lost > math.sqrt(gained + lost):
            chosen, reason = trial, figures
        else:
            reason = f"{figures}: not more than chance"
    return Choice(program=chosen.program, reason=reason)


class ChoosingTrainer:
    """Trains each tenant with the program that does best for it.

    Args:
        trainers: by program, the cheapest first.
        budget_milliseconds: what one ticket may take.
    """

    def __init__(self, trainers: Mapping[str, Trainer], *, budget_milliseconds: float) -> None:
        self._trainers = trainers
        self._budget = budget_milliseconds

    def train(
        self,
        tenant: str,
        examples: Sequence[Example],
        folder: Path,
        *,
        catalogue: Catalogue | None = None,
        precision: float = DEFAULT_PRECISION,
        progress: Callable[[float], None] | None = None,
    ) -> Trained:
        """As `Trainer.train`; the reason of the choice is in the manifest's settings."""
        told = progress or (lambda _: None)
        trials = []
        for name, trainer in self._trainers.items():
            trials.append(try_program(name, trainer, tenant, examples, catalogue=catalogue))
            told(0.5 * len(trials) / len(self._trainers))
        choice = choose_program(trials, budget_milliseconds=self._budget)
        return self._trainers[choice.program].train(
            tenant,
            examples,
            folder,
            catalogue=catalogue,
            precision=precision,
            progress=lambda share: told(0.5 + share / 2),
            program_reason=choice.reason,
        )


def make_trainer(
    programs: Program | Sequence[Program],
    settings: FitSettings,
    *,
    budget_milliseconds: float = LATENCY_BUDGET_MILLISECONDS,
) -> TenantTrainer:
    """A trainer for one program, or one that chooses between several."""
    if isinstance(programs, Program):
        return Trainer(programs, settings)
    trainers = {program.spec.name: Trainer(program, settings) for program in programs}
    if len(trainers) == 1:
        return next(iter(trainers.values()))
    return ChoosingTrainer(trainers, budget_milliseconds=budget_milliseconds)


def try_program(
    name: str, trainer: Trainer, tenant: str, examples: Sequence[Example], *, catalogue: Catalogue | None = None
) -> Trial:
    """Fit without some rows, judge those, store nothing. Raises NotEnoughData as `Trainer.train`."""
    right, texts = trainer.try_out(tenant, examples, catalogue=catalogue)
    slowest = 0.0
    for text in texts[:_TIMED_TICKETS]:
        took = []
        for _ in range(_TRIES):
            began = time.perf_counter()
            trainer.featurise([text])
            took.append(time.perf_counter() - began)
        # The least of some: whatever else the machine does only makes a program look slower.
        slowest = max(slowest, min(took))
    return Trial(program=name, right=right, milliseconds=slowest * 1000)
