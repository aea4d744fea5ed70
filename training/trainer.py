"""A tenant's examples in, a bundle on disk out: featurise, fit, calibrate, judge, write."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from registry.bundle import Label, Manifest, write_bundle
from registry.catalogue import Catalogue
from registry.errors import NotEnoughData
from registry.runtime import Features, Program
from training.calibration import DEFAULT_PRECISION, Calibration, calibrate
from training.evaluation import Evaluation, Judged, evaluate, judge
from training.examples import Example, fingerprint, split_examples
from training.fitting import FitSettings, Fitter
from training.heads import HeadFitter
from training.holdout import Holdout, hold_out
from training.macros import described, evened_out, learnable
from training.tenants import labels_of

LEAST_EXAMPLES = 20
LEAST_MACROS = 2
_FEATURISE_BATCH = 64

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model that was fitted, calibrated, judged and written.

    Attributes:
        test: the rows it was judged on, which nothing of it has seen.
        judged: what it said of them, row by row.
        fitted: the rows its weights were fitted on.
        examples: in-scope rows that training was given (fitted on or used for calibration).
        fit_seconds: featurising and fitting, TensorFlow's start apart.
    """

    manifest: Manifest
    evaluation: Evaluation
    judged: Judged
    test: tuple[Example, ...]
    fitted: tuple[Example, ...]
    examples: int
    macros: int
    fit_seconds: float


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
    ) -> Trained:
        """Train a model and write its bundle to `folder`, which is empty.

        Args:
            catalogue: for today's titles, and for which macros are retired: those are not learned.
            precision: how often one of the three shown shall be right; the model abstains where it is less sure.
            progress: told the finished share of fitting.

        Raises:
            NotEnoughData: too few examples, or fewer than two macros in them; says how many there are.
        """
        examples = learnable(examples, catalogue)
        _check_enough(tenant, examples)
        split = split_examples(examples)
        held = hold_out(split)
        fitted = tuple(held.rows[position] for position in held.final)
        macro_ids = sorted({example.macro_id for example in fitted if example.macro_id is not None})
        if len(macro_ids) < LEAST_MACROS:
            raise NotEnoughData(
                f"tenant {tenant} has {len(macro_ids)} macros in its training rows, {LEAST_MACROS} are needed",
                remedy="Import older tickets, or wait until more macros have been used.",
            )
        labels = labels_of(macro_ids, catalogue)
        began = time.perf_counter()
        calibration, tensors = self._fit(held, labels, catalogue, precision, progress or (lambda _: None))
        fit_seconds = time.perf_counter() - began
        judged = judge(
            self._scored(
                featurise(self._program, [example.text for example in split.test]), tensors, macros=len(macro_ids)
            ),
            [example.macro_id for example in split.test],
            macro_ids,
            threshold=calibration.threshold,
        )
        evaluation = evaluate(judged)
        manifest = write_bundle(
            folder,
            tenant=tenant,
            program=self._program.digest,
            tensors=tensors,
            macros=labels,
            data_fingerprint=fingerprint(examples),
            settings={**self._settings.as_dict(), "precision": precision},
            metrics={
                **evaluation.as_metrics(),
                "temperature": calibration.temperature,
                "calibration_rows": float(calibration.rows),
            },
            threshold=calibration.threshold,
        )
        return Trained(
            manifest=manifest,
            evaluation=evaluation,
            judged=judged,
            test=split.test,
            fitted=fitted,
            examples=sum(example.macro_id is not None for example in held.rows),
            macros=len(macro_ids),
            fit_seconds=fit_seconds,
        )

    def _fit(
        self,
        held: Holdout,
        labels: Sequence[Label],
        catalogue: Catalogue | None,
        precision: float,
        told: Callable[[float], None],
    ) -> tuple[Calibration, Tensors]:
        """Fit fold by fold, calibrate on what each scored, and fit what serves, calibrated."""
        index = {label.id: position for position, label in enumerate(labels)}
        targets = [None if row.macro_id is None else index.get(row.macro_id, -1) for row in held.rows]
        # Of all macros: which of them have few examples is another matter in each fold.
        said = described(labels, (), catalogue)
        features = featurise(self._program, [*(row.text for row in held.rows), *(text for text, _ in said)])
        done = 0

        def fit(rows: NDArray[np.int64]) -> Tensors:
            nonlocal done
            few = set(described(labels, [held.rows[row] for row in rows], catalogue))
            beside = [place for place, one in enumerate(said) if one in few]
            of_rows = np.array(
                [*(targets[row] for row in rows), *(index[said[place][1]] for place in beside)], np.int32
            )
            places = np.concatenate([rows, np.array(beside, np.int64) + len(held.rows)])
            before = done
            done += 1
            tensors = self._fitter.fit(
                features.take(places), of_rows, len(labels), progress=lambda share: told((before + share) / held.fits)
            )
            return evened_out(tensors, of_rows)

        tensors: Tensors | None = None
        scores = [np.zeros((0, len(labels)), np.float32)]
        rows: list[int] = []
        for fold in held.folds:
            fitted = fit(fold.fitted)
            scores.append(self._scored(features.take(fold.judged), fitted, macros=len(labels)))
            rows.extend(fold.judged)
            if held.is_final(fold):
                tensors = fitted
        calibration = calibrate(np.concatenate(scores), [targets[row] for row in rows], precision=precision)
        if tensors is None:
            tensors = fit(held.final)
        return calibration, self._fitter.tempered(tensors, calibration.temperature)

    def _scored(self, features: Features, tensors: Tensors, *, macros: int) -> NDArray[np.float32]:
        if not features.tickets:
            return np.zeros((0, macros), np.float32)
        scores: NDArray[np.float32] = self._program.score(features, tensors)
        return scores


def featurise(program: Program, texts: Sequence[str]) -> Features:
    """Features of many texts, in bounded batches."""
    starts = range(0, max(len(texts), 1), _FEATURISE_BATCH)
    return Features.concatenate([program.featurise(texts[first : first + _FEATURISE_BATCH]) for first in starts])


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
