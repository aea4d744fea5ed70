"""A tenant's examples in, a bundle on disk out: featurise, fit, calibrate, judge, write."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from registry.catalogue import Catalogue
from registry.errors import NotEnoughData
from registry.model.bundle import Label, Manifest, write_bundle
from registry.model.runtime import Features, Program
from training.calibration import DEFAULT_PRECISION
from training.evaluation import Evaluation, Judged, evaluate, judge
from training.examples import Example, fingerprint, split_examples
from training.feedback import limit_prompted
from training.fitting import FitSettings, Fitter
from training.folded_fit import FoldedFit, featurise, score
from training.heads import HeadFitter
from training.holdout import Holdout, hold_out
from training.macros import learnable
from training.tenants import labels_of

LEAST_EXAMPLES = 20
LEAST_MACROS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model that was fitted, calibrated, judged and written.

    Attributes:
        test: the rows it was judged on, which nothing of it has seen.
        judged: what it said of them, row by row.
        fitted: the rows its weights were fitted on.
        examples: in-scope rows that training was given (fitted on or used for calibration).
        fit_seconds: featurising and fitting, TensorFlow's start apart.
        program: the name of the program it was fitted for.
        program_reason: why that one; empty where nothing was to be chosen.
    """

    manifest: Manifest
    evaluation: Evaluation
    judged: Judged
    test: tuple[Example, ...]
    fitted: tuple[Example, ...]
    examples: int
    macros: int
    fit_seconds: float
    program: str
    program_reason: str


class Trainer:
    """Trains one tenant after the other with one program. Belongs to one thread.

    Args:
        program: also what will serve: training sees a text exactly as serving does.
    """

    def __init__(self, program: Program, settings: FitSettings | None = None) -> None:
        self._program = program
        self._settings = settings or FitSettings()
        self._fitter = (HeadFitter if program.spec.name == "encoder" else Fitter)(program.spec, self._settings)
        program.featurise(["The first call of a program takes longer than all others."])

    def train(
        self,
        tenant: str,
        examples: Sequence[Example],
        folder: Path,
        *,
        catalogue: Catalogue | None = None,
        precision: float = DEFAULT_PRECISION,
        progress: Callable[[float], None] | None = None,
        program_reason: str = "",
    ) -> Trained:
        """Train a model and write its bundle to `folder`, which is empty.

        Args:
            catalogue: for today's titles, and for which macros are retired: those are not learned.
            precision: how often one of the three shown shall be right; the model abstains where it is less sure.
            progress: told the finished share of fitting.
            program_reason: why this program, for the manifest.

        Raises:
            NotEnoughData: too few examples, or fewer than two macros in them; says how many there are.
        """
        examples = limit_prompted(learnable(examples, catalogue))
        held, labels = self._held_out(tenant, examples, catalogue)
        macro_ids = [label.id for label in labels]
        test = split_examples(examples).test
        began = time.perf_counter()
        model = FoldedFit(self._program, self._fitter, held, labels, catalogue, progress or (lambda _: None)).run(
            precision=precision
        )
        fit_seconds = time.perf_counter() - began
        judged = judge(
            score(
                self._program,
                featurise(self._program, [example.text for example in test]),
                model.tensors,
                macros=len(macro_ids),
            ),
            [example.macro_id for example in test],
            macro_ids,
            threshold=model.calibration.threshold,
        )
        evaluation = evaluate(judged)
        manifest = write_bundle(
            folder,
            tenant=tenant,
            program=self._program.digest,
            tensors=model.tensors,
            macros=labels,
            data_fingerprint=fingerprint(examples),
            settings={
                **self._settings.as_dict(),
                "precision": precision,
                **({"program_reason": program_reason} if program_reason else {}),
            },
            metrics={
                **evaluation.as_metrics(),
                "temperature": model.calibration.temperature,
                "calibration_rows": float(model.calibration.rows),
                "doubted_rows": float(model.doubted),
            },
            threshold=model.calibration.threshold,
        )
        return Trained(
            manifest=manifest,
            evaluation=evaluation,
            judged=judged,
            test=test,
            fitted=tuple(held.rows[position] for position in held.final),
            examples=sum(example.macro_id is not None for example in held.rows),
            macros=len(macro_ids),
            fit_seconds=fit_seconds,
            program=self._program.spec.name,
            program_reason=program_reason,
        )

    def try_out(
        self, tenant: str, examples: Sequence[Example], *, catalogue: Catalogue | None = None
    ) -> tuple[NDArray[np.bool_], list[str]]:
        """Score held-out rows by what was fitted without them, to compare programs by; stores nothing.

        Returns:
            Whether the best-scored macro was the one that was applied, bool [rows], in-scope rows alone, the same for every
            program; and the rows' texts. Raises as `train`.
        """
        held, labels = self._held_out(tenant, limit_prompted(learnable(examples, catalogue)), catalogue)
        rows, scores = FoldedFit(self._program, self._fitter, held, labels, catalogue, lambda _: None).held_out()
        applied = [held.rows[row].macro_id for row in rows]
        inside = [place for place, macro in enumerate(applied) if macro is not None]
        best = scores.argmax(axis=1)
        right = np.array([labels[best[place]].id == applied[place] for place in inside], bool)
        return right, [held.rows[rows[place]].text for place in inside]

    def featurise(self, texts: Sequence[str]) -> Features:
        """Features of texts, by the program."""
        return featurise(self._program, texts)

    def _held_out(
        self, tenant: str, examples: Sequence[Example], catalogue: Catalogue | None
    ) -> tuple[Holdout, list[Label]]:
        """What is held out of examples that are learnable, and the macros to learn. Raises NotEnoughData."""
        _check_enough(tenant, examples)
        held = hold_out(split_examples(examples))
        fitted = (held.rows[position] for position in held.final)
        macro_ids = sorted({example.macro_id for example in fitted if example.macro_id is not None})
        if len(macro_ids) < LEAST_MACROS:
            raise NotEnoughData(
                f"tenant {tenant} has {len(macro_ids)} macros in its training rows, {LEAST_MACROS} are needed",
                remedy="Import older tickets, or wait until more macros have been used.",
            )
        return held, labels_of(macro_ids, catalogue)


def _check_enough(tenant: str, examples: Sequence[Example]) -> None:
    used = Counter(example.macro_id for example in examples if example.macro_id is not None)
    if used.total() < LEAST_EXAMPLES:
        raise NotEnoughData(
            f"tenant {tenant} has {used.total()} labelled tickets, {LEAST_EXAMPLES} are needed",
            remedy="Import more with `macrofleet tickets import`.",
        )
    if len(used) < LEAST_MACROS:
        raise NotEnoughData(
            f"tenant {tenant} uses {len(used)} macro, {LEAST_MACROS} are needed: there is nothing to choose between",
            remedy="Import tickets to which other macros were applied.",
        )
