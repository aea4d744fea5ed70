"""Which rows a model is calibrated on: rows that what scores them was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.duplicates import near_duplicates
from training.examples import Example, Split, cut_by_time, digest

# In-scope rows from which on one held-out part says enough.
LEAST_ROWS = 200
_SHARE, _MOST_ROWS = 0.1, 500
# More folds cost more fits; fewer make each fit see less than the final one does. On HWU64 with five examples a label,
# where 96 % of tickets could have been shown at a precision of 80 %, three folds let 78 % through, five 86 %.
_FOLDS = 5

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Positions of rows to fit on, and of rows to score with what was fitted."""

    fitted: Positions
    judged: Positions


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """What to fit, and to calibrate on.

    Attributes:
        rows: training and validation rows; what follows are positions of them.
        folds: no row is judged twice; none where all rows say the same, and nothing can be held out.
        final: the rows that the model that serves is fitted on; the only fold's own where there is no need to fit again.
    """

    rows: tuple[Example, ...]
    folds: tuple[Fold, ...]
    final: Positions

    @property
    def fits(self) -> int:
        """How often something is fitted in all."""
        return len(self.folds) + (not any(self.is_final(fold) for fold in self.folds))

    def is_final(self, fold: Fold) -> bool:
        """Whether what a fold is fitted on is what the final model is fitted on."""
        return np.array_equal(fold.fitted, self.final)


def hold_out(split: Split) -> Holdout:
    """Hold rows out.

    - The data's own validation rows, where there are 200 in scope; the model that serves is not fitted on them.
    - Else the latest tenth of the training rows (500 at most), where that has 200 in scope; the model that serves is fitted
      again on all, since its newest rows are too good to lose.
    - Else everything, by cross-fitting: each fifth, of each macro, is scored by what was fitted on the other four;
      near-duplicates stay together.

    Out-of-scope rows are never fitted on, so all of them are judged.
    """
    if _in_scope(split.validation) >= LEAST_ROWS:
        fold, _ = _one_fold(split.train, split.validation)
        return Holdout(rows=(*split.train, *split.validation), folds=(fold,), final=fold.fitted)
    if not split.validation:
        earlier, later = cut_by_time(split.train, min(_MOST_ROWS, round(_SHARE * len(split.train))))
        if _in_scope(later) >= LEAST_ROWS:
            fold, final = _one_fold(earlier, later)
            return Holdout(rows=(*earlier, *later), folds=(fold,), final=final)
    rows = (*split.train, *split.validation)
    return Holdout(rows=rows, folds=_cross_folds(rows), final=_positions(rows, in_scope=True))


def _one_fold(fitted: Sequence[Example], held: Sequence[Example]) -> tuple[Fold, Positions]:
    """The fold of two parts, and all their rows in scope."""
    rows = (*fitted, *held)
    inside, outside = _positions(rows, in_scope=True), _positions(rows, in_scope=False)
    judged = np.union1d(inside[inside >= len(fitted)], outside)
    return Fold(fitted=inside[inside < len(fitted)], judged=judged), inside


def _cross_folds(rows: Sequence[Example]) -> tuple[Fold, ...]:
    """Every row judged once. Groups of near-duplicates are dealt out in turn, macro by macro."""
    group = near_duplicates([row.text for row in rows])
    # In the order of texts' digests rather than of the rows, so that neither time nor the lake's order plays a part.
    heads = sorted(set(group.tolist()), key=lambda head: (rows[head].macro_id or "", digest(rows[head].text)))
    number = {head: place % _FOLDS for place, head in enumerate(heads)}
    fold = np.array([number[head] for head in group.tolist()], np.int64)
    inside = _positions(rows, in_scope=True)
    parts = [Fold(fitted=inside[fold[inside] != part], judged=np.flatnonzero(fold == part)) for part in range(_FOLDS)]
    return tuple(part for part in parts if len(part.judged) and len(part.fitted))


def _positions(rows: Sequence[Example], *, in_scope: bool) -> Positions:
    return np.array([place for place, row in enumerate(rows) if (row.macro_id is not None) == in_scope], np.int64)


def _in_scope(rows: Sequence[Example]) -> int:
    return sum(row.macro_id is not None for row in rows)
