"""Fitting one tenant fold by fold: what is doubted, what calibrates, what serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from registry.catalogue import Catalogue
from registry.model.bundle import Label
from registry.model.runtime import Features, Program
from training.calibration import Calibration, calibrate
from training.holdout import Holdout, Positions
from training.label_noise import FOLDS, LEAST_ROWS, doubtful, folds_of
from training.macros import described, evened_out

Tensors: TypeAlias = dict[str, NDArray[Any]]
_FEATURISE_BATCH = 64


class FitsWeights(Protocol):
    """What fits the weights of one program."""

    def fit(
        self,
        features: Features,
        targets: NDArray[np.int32],
        macros: int,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> Tensors:
        """Weights for features [tickets] and targets [tickets]."""
        ...

    def tempered(self, tensors: Tensors, temperature: float) -> Tensors:
        """The weights whose scores are those of `tensors` at another temperature."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What came of it.

    Attributes:
        tensors: of the model that serves, its temperature folded in.
        doubted: how many rows it was not fitted on because their labels are hardly meant.
    """

    tensors: Tensors
    calibration: Calibration
    doubted: int


class FoldedFit:
    """The fits of one tenant, over features that are made once.

    Labels are doubted by what was fitted without them (`training.label_noise`): where every row is scored by a fold's fit
    anyway, by that; otherwise by fits of its own.

    Args:
        fitter: of the program.
        held: rows, and how they are held out.
        labels: the macros that are learned.
        catalogue: has their replies.
        told: told the finished share of all fits.
    """

    def __init__(
        self,
        program: Program,
        fitter: FitsWeights,
        held: Holdout,
        labels: Sequence[Label],
        catalogue: Catalogue | None,
        told: Callable[[float], None],
    ) -> None:
        index = {label.id: position for position, label in enumerate(labels)}
        self._program, self._fitter, self._held = program, fitter, held
        self._labels, self._catalogue, self._told = labels, catalogue, told
        self._targets = [None if row.macro_id is None else index.get(row.macro_id, -1) for row in held.rows]
        # Of all macros: which of them have few examples is another matter in each fold.
        self._said = described(labels, (), catalogue)
        self._said_targets = [index[macro] for _, macro in self._said]
        self._features = featurise(program, [*(row.text for row in held.rows), *(text for text, _ in self._said)])
        self._crosses = len(held.folds) > 1
        self._doubts = len(held.final) >= LEAST_ROWS
        self._fits = held.fits + (FOLDS if self._doubts and not self._crosses else 0)
        self._done = 0

    def run(self, *, precision: float) -> Fitted:
        """Fit all. Raises nothing of its own.

        Args:
            precision: see `training.calibration`.
        """
        final = self._held.final
        doubted = self._doubted_by_own_folds() if self._doubts and not self._crosses else _NONE
        serving: Tensors | None = None
        scores, rows = np.zeros((0, len(self._labels)), np.float32), _NONE
        for fold in self._held.folds:
            tensors = self._fit(np.setdiff1d(fold.fitted, doubted))
            scores = np.concatenate([scores, self._scored(fold.judged, tensors)])
            rows = np.concatenate([rows, fold.judged])
            if self._held.is_final(fold):
                serving = tensors
        calibration = calibrate(scores, [self._targets[row] for row in rows], precision=precision)
        if self._doubts and self._crosses:
            known = np.isin(rows, final)
            doubted = self._doubted(rows[known], scores[known])
        if serving is None:
            serving = self._fit(np.setdiff1d(final, doubted))
        return Fitted(
            tensors=self._fitter.tempered(serving, calibration.temperature),
            calibration=calibration,
            doubted=len(doubted),
        )

    def held_out(self) -> tuple[Positions, NDArray[np.float32]]:
        """The rows that are held out, and their scores [rows, macros] by what was fitted without them."""
        scores = [self._scored(fold.judged, self._fit(fold.fitted)) for fold in self._held.folds]
        rows = np.concatenate([_NONE, *(fold.judged for fold in self._held.folds)])
        return rows, np.concatenate([np.zeros((0, len(self._labels)), np.float32), *scores])

    def _doubted_by_own_folds(self) -> Positions:
        rows = self._held.final
        folds = folds_of([self._held.rows[row] for row in rows])
        scores = np.zeros((len(rows), len(self._labels)), np.float32)
        for fold in range(FOLDS):
            scores[folds == fold] = self._scored(rows[folds == fold], self._fit(rows[folds != fold]))
        return self._doubted(rows, scores)

    def _doubted(self, rows: Positions, scores: NDArray[np.float32]) -> Positions:
        targets = np.array([self._targets[row] for row in rows], np.int32)
        return rows[doubtful(scores, targets, [self._held.rows[row].ticket_id for row in rows])]

    def _fit(self, rows: Positions) -> Tensors:
        """The weights for some rows, and what macros with few examples among them say of themselves."""
        few = set(described(self._labels, [self._held.rows[row] for row in rows], self._catalogue))
        beside = [place for place, said in enumerate(self._said) if said in few]
        targets = np.array(
            [*(self._targets[row] for row in rows), *(self._said_targets[place] for place in beside)], np.int32
        )
        places = np.concatenate([rows, np.array(beside, np.int64) + len(self._held.rows)])
        before = self._done
        self._done += 1
        tensors = self._fitter.fit(
            self._features.take(places),
            targets,
            len(self._labels),
            progress=lambda share: self._told((before + share) / self._fits),
        )
        return evened_out(tensors, targets)

    def _scored(self, rows: Positions, tensors: Tensors) -> NDArray[np.float32]:
        return score(self._program, self._features.take(rows), tensors, macros=len(self._labels))


_NONE: Positions = np.array([], np.int64)


def featurise(program: Program, texts: Sequence[str]) -> Features:
    """Features of many texts, in bounded batches of about one length: an encoder pays for the longest of a batch."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    starts = range(0, max(len(order), 1), _FEATURISE_BATCH)
    batches = [program.featurise([texts[place] for place in order[at : at + _FEATURISE_BATCH]]) for at in starts]
    return Features.concatenate(batches).take(np.argsort(np.array(order, np.int64)))


def score(program: Program, features: Features, tensors: Tensors, *, macros: int) -> NDArray[np.float32]:
    """Probabilities [tickets, macros]."""
    if not features.tickets:
        return np.zeros((0, macros), np.float32)
    scores: NDArray[np.float32] = program.score(features, tensors)
    return scores
