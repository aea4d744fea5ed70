"""How good suggestions are: pure functions over scores and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHOWN = 3
DEFAULT_PRECISION = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures on held-out rows, as fractions.

    Attributes:
        rows: in-scope rows.
        top1: share of in-scope rows whose best-scored macro is the one that was applied; like the next two, None where
            there are no such rows.
        top3: share whose macro is among the three best.
        coverage: share of in-scope rows for which the model does not abstain.
        oos_recall: share of out-of-scope rows for which it does; None where there are none.
    """

    rows: int
    top1: float | None
    top3: float | None
    coverage: float | None
    oos_recall: float | None

    def as_metrics(self) -> dict[str, float]:
        """For the manifest and MLflow."""
        figures = {
            "top1": self.top1,
            "top3": self.top3,
            "coverage": self.coverage,
            "oos_recall": self.oos_recall,
            "test_rows": float(self.rows),
        }
        return {name: value for name, value in figures.items() if value is not None}


def evaluate(scores: NDArray[np.float32], targets: Sequence[int | None], *, threshold: float) -> Evaluation:
    """Judge scores.

    Args:
        scores: [rows, macros].
        targets: index of the right macro; -1 for a macro the model does not know (always wrong); None for a row
            that no macro fits.
        threshold: below it the model abstains.
    """
    in_scope = np.array([target is not None for target in targets], bool)
    right = np.array([-1 if target is None else target for target in targets], int)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :SHOWN]
    shown = scores.max(axis=1, initial=0) >= threshold
    hits = best == right[:, None]
    return Evaluation(
        rows=int(in_scope.sum()),
        top1=_mean(hits[in_scope, :1].any(axis=1)),
        top3=_mean(hits[in_scope].any(axis=1)),
        coverage=_mean(shown[in_scope]),
        oos_recall=_mean(~shown[~in_scope]),
    )


def choose_threshold(
    scores: NDArray[np.float32], targets: Sequence[int | None], *, precision: float = DEFAULT_PRECISION
) -> float:
    """The least score at which one of the three shown is right for a share of `precision` of the rows shown.

    Args:
        scores: [rows, macros] on validation rows.
        targets: as for `evaluate`.

    Returns:
        A score between 0 and 1: 0 where no threshold is needed (or nothing is known), 1 where none is enough.
    """
    if not len(scores):
        return 0.0
    top = np.argsort(-scores, axis=1, kind="stable")[:, :SHOWN]
    right = np.array([-1 if target is None else target for target in targets], int)
    hit = (top == right[:, None]).any(axis=1)
    best = scores.max(axis=1)
    order = np.argsort(-best, kind="stable")
    shown_precision = np.cumsum(hit[order]) / np.arange(1, len(order) + 1)
    # Rows of equal score are shown together: only the last of them is a place to cut.
    cuts = np.append(best[order][1:] != best[order][:-1], True) & (shown_precision >= precision)
    if not cuts.any():
        return 1.0
    last = int(np.flatnonzero(cuts)[-1])
    return 0.0 if last == len(order) - 1 else float(best[order][last])


def _mean(values: NDArray[np.bool_]) -> float | None:
    return round(float(values.mean()), 6) if len(values) else None
