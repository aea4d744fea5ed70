"""How good suggestions are: pure functions over scores and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.statistics import bootstrap_interval, wilson_interval

SHOWN = 3
BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a model said of rows whose label is known; row by row, so that models can be compared in pairs.

    Attributes:
        targets: [rows] id of the macro that was applied; None where nothing fits (out of scope).
        suggested: [rows, 3] ids, best first, whether shown or not; "" where there are fewer macros.
        rank: [rows] place of the right macro among all, from 0; -1 where nothing fits or the model does not know it.
        confidence: [rows] the best score.
        shown: [rows] whether the model suggests anything, or abstains.
    """

    targets: NDArray[np.object_]
    suggested: NDArray[np.object_]
    rank: NDArray[np.int64]
    confidence: NDArray[np.float32]
    shown: NDArray[np.bool_]

    @property
    def in_scope(self) -> NDArray[np.bool_]:
        """[rows] whether some macro fits."""
        return np.array([target is not None for target in self.targets], bool)

    def within(self, places: int) -> NDArray[np.bool_]:
        """[rows] whether the right macro is among the first `places`."""
        return (self.rank >= 0) & (self.rank < places)

    def of(self, rows: NDArray[Any]) -> Judged:
        """Some of the rows, by position or by mask."""
        return Judged(
            targets=self.targets[rows],
            suggested=self.suggested[rows],
            rank=self.rank[rows],
            confidence=self.confidence[rows],
            shown=self.shown[rows],
        )

    @classmethod
    def together(cls, several: Sequence[Judged]) -> Judged:
        """The rows of several models, of several tenants, say."""
        return cls(
            targets=np.concatenate([one.targets for one in several]),
            suggested=np.concatenate([one.suggested for one in several]),
            rank=np.concatenate([one.rank for one in several]),
            confidence=np.concatenate([one.confidence for one in several]),
            shown=np.concatenate([one.shown for one in several]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures on held-out rows, as fractions; None where there are no rows to tell.

    Attributes:
        rows: in-scope rows.
        oos_rows: out-of-scope rows.
        top1: share of in-scope rows whose best-scored macro is the one that was applied.
        top3: share whose macro is among the three best.
        mrr: mean of 1 / place of the right macro over in-scope rows (mean reciprocal rank).
        ece: expected calibration error (Guo et al. 2017) of the best score on in-scope rows.
        coverage: share of in-scope rows for which the model does not abstain.
        precision_at_threshold: share of all rows with suggestions where one of the three is right.
        oos_recall: share of out-of-scope rows for which it abstains.
        in_scope_accuracy: share of in-scope rows for which it does not abstain and the best-scored macro is right.
    """

    rows: int
    oos_rows: int
    top1: float | None
    top3: float | None
    mrr: float | None
    ece: float | None
    coverage: float | None
    precision_at_threshold: float | None
    oos_recall: float | None
    in_scope_accuracy: float | None

    def figures(self) -> dict[str, float]:
        """The figures that there are, by name; what is about out-of-scope rows only where there are any."""
        values = asdict(self)
        rows, oos_rows = values.pop("rows"), values.pop("oos_rows")
        if not oos_rows:
            del values["in_scope_accuracy"]
        counts = {"test_rows": rows, **({"oos_rows": oos_rows} if oos_rows else {})}
        return counts | {name: value for name, value in values.items() if value is not None}

    def as_metrics(self) -> dict[str, float]:
        """For the manifest and MLflow."""
        return {name: float(value) for name, value in self.figures().items()}


def judge(scores: NDArray[Any], targets: Sequence[str | None], macros: Sequence[str], *, threshold: float) -> Judged:
    """Put what a model scored beside what was right.

    Args:
        scores: [rows, macros].
        targets: id of the right macro; one that is not among `macros` is always missed; None where nothing fits.
        macros: what each column stands for.
        threshold: below it the model abstains.
    """
    place = {macro: position for position, macro in enumerate(macros)}
    right = np.array([-1 if target is None else place.get(target, -1) for target in targets], np.int64)
    order = np.argsort(-scores, axis=1, kind="stable")
    rank = np.full(len(right), -1, np.int64)
    rows, found = np.nonzero(order == right[:, None])
    rank[rows] = found
    suggested = np.full((len(right), SHOWN), "", object)
    best = order[:, :SHOWN]
    suggested[:, : best.shape[1]] = np.array([*macros, ""], object)[best]
    confidence = scores.max(axis=1, initial=0).astype(np.float32)
    return Judged(
        targets=np.array([*targets, None], object)[:-1],
        suggested=suggested,
        rank=rank,
        confidence=confidence,
        # As serving compares: a float32 score with the manifest's number.
        shown=confidence.astype(np.float64) >= threshold,
    )


def evaluate(judged: Judged) -> Evaluation:
    """The figures of what a model said."""
    in_scope = judged.in_scope
    inside = judged.of(in_scope)
    values = {name: _mean(figure(judged)) for name, figure in _SHARES.items()}
    return Evaluation(
        rows=int(in_scope.sum()),
        oos_rows=int((~in_scope).sum()),
        mrr=_mean(_reciprocal_rank(inside)),
        ece=round(calibration_error(inside.confidence, inside.rank == 0), 6) if in_scope.any() else None,
        **values,
    )


def intervals(judged: Judged) -> dict[str, tuple[float, float]]:
    """95 % intervals of the figures, by name: Wilson's of shares, by bootstrap of the others."""
    found = {}
    for name, figure in _SHARES.items():
        values = figure(judged)
        if len(values):
            low, high = wilson_interval(float(values.mean()), len(values))
            found[name] = (round(float(low), 6), round(float(high), 6))
    inside = judged.of(judged.in_scope)
    if len(inside.rank):
        inverse, right = _reciprocal_rank(inside), inside.rank == 0
        samples: dict[str, Callable[[NDArray[np.int64]], float]] = {
            "mrr": lambda rows: float(inverse[rows].mean()),
            "ece": lambda rows: calibration_error(inside.confidence[rows], right[rows]),
        }
        for name, sample in samples.items():
            low, high = bootstrap_interval(sample, len(right))
            found[name] = (round(low, 6), round(high, 6))
    return found


def reliability(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> list[dict[str, float]]:
    """What a reliability diagram shows: for each of 15 equal bins of confidence that has rows, mean confidence, share
    of rows that were right, and how many rows.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    said = np.bincount(bins, confidence.astype(np.float64), minlength=BINS)
    true = np.bincount(bins, right.astype(np.float64), minlength=BINS)
    return [
        {"confidence": round(said[b] / rows[b], 6), "accuracy": round(true[b] / rows[b], 6), "rows": int(rows[b])}
        for b in np.flatnonzero(rows)
    ]


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Expected calibration error: by how much confidence and accuracy differ in 15 equal bins, weighted by rows."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, confidence.astype(np.float64) - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def macro_table(judged: Judged) -> list[dict[str, Any]]:
    """Figures of each macro that was applied or came first: support, precision, recall, top-3 recall; by support."""
    first = judged.suggested[:, 0]
    names = {target for target in judged.targets if target is not None} | {name for name in first if name}
    table = []
    for name in names:
        applied, said = judged.targets == name, first == name
        table.append(
            {
                "macro": name,
                "support": int(applied.sum()),
                "precision": _mean(applied[said]),
                "recall": _mean(said[applied]),
                "top3": _mean(judged.within(SHOWN)[applied]),
            }
        )
    return sorted(table, key=lambda row: (-row["support"], row["macro"]))


# Shares of rows: one value a row that counts.
_SHARES: dict[str, Callable[[Judged], NDArray[np.bool_]]] = {
    "top1": lambda judged: judged.within(1)[judged.in_scope],
    "top3": lambda judged: judged.within(SHOWN)[judged.in_scope],
    "coverage": lambda judged: judged.shown[judged.in_scope],
    "precision_at_threshold": lambda judged: judged.within(SHOWN)[judged.shown],
    "oos_recall": lambda judged: ~judged.shown[~judged.in_scope],
    "in_scope_accuracy": lambda judged: (judged.within(1) & judged.shown)[judged.in_scope],
}


def _reciprocal_rank(judged: Judged) -> NDArray[np.float64]:
    return np.where(judged.rank >= 0, 1 / (judged.rank + 1.0 + (judged.rank < 0)), 0.0)


def _mean(values: NDArray[Any]) -> float | None:
    return round(float(values.mean()), 6) if len(values) else None
