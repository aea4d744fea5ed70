"""Scores that mean what they say, and the score below which it is better to say nothing. Pure functions.

Calibration is by one temperature (Guo et al. 2017, arXiv:1706.04599): the scores' logarithms divided by it. It changes
no order of macros, and a fitter folds it into the weights, so that whatever serves them gives calibrated scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation import SHOWN
from training.statistics import wilson_interval

DEFAULT_PRECISION = 0.8

# A threshold is the best of many, so on few rows it looks better than it is; so the precision is asked of the lower end of
# an interval half a standard deviation wide. For 90 % on draws of 50 rows (HWU64 with five examples a label) thresholds
# that missed it by over three points fell from 25 to 12 % of the draws, coverage from 67 to 61 %; a whole deviation: 8 and
# 45 %.
_CAUTION = 0.5
# How many of a tenant's tickets fit no macro is not to be seen in its data: who labels tickets leaves such out. Where
# there are examples of them they stand for this share, the less so the fewer they are (as if by so many rows for none).
_OUT_OF_SCOPE_SHARE, _OUT_OF_SCOPE_DOUBT = 0.5, 20
_TEMPERATURES = (0.05, 20.0)
_LEAST = 1e-30


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What held-out rows say of a model.

    Attributes:
        temperature: what its scores' logarithms are to be divided by.
        threshold: of the scores after that; between 0 (always suggest) and 1 (never).
        rows: in-scope rows that said so.
    """

    temperature: float
    threshold: float
    rows: int


def calibrate(
    scores: NDArray[np.float32], targets: Sequence[int | None], *, precision: float = DEFAULT_PRECISION
) -> Calibration:
    """Fit a temperature and choose a threshold on rows that the scoring model was not fitted on.

    Args:
        scores: [rows, macros], probabilities.
        targets: index of the right macro; -1 for a macro the model does not know; None where nothing fits.
        precision: see `choose_threshold`.
    """
    temperature = fit_temperature(scores, targets)
    return Calibration(
        temperature=temperature,
        threshold=choose_threshold(tempered(scores, temperature), targets, precision=precision),
        rows=sum(target is not None for target in targets),
    )


def tempered(scores: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """The probabilities [rows, macros] at another temperature."""
    logits = np.log(np.maximum(scores, _LEAST)) / np.float32(temperature)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    scaled: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return scaled


def fit_temperature(scores: NDArray[np.float32], targets: Sequence[int | None]) -> float:
    """The temperature that makes the right macros likeliest; 1 where no row tells.

    A log-normal prior around 1 as strong as one row keeps it finite where every row is right, or none.
    """
    right = np.array([-1 if target is None else target for target in targets], np.int64)
    known = np.flatnonzero(right >= 0)
    if not len(known):
        return 1.0
    logits = np.log(np.maximum(scores[known].astype(np.float64), _LEAST))
    own = logits[np.arange(len(known)), right[known]]

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        most = scaled.max(axis=1)
        likely = own / np.exp(log_temperature) - most - np.log(np.exp(scaled - most[:, None]).sum(axis=1))
        return float(-likely.sum() + log_temperature**2 / 2)

    # Convex in 1/T, hence with one minimum in its logarithm, too: golden sections find it.
    low, high = np.log(_TEMPERATURES)
    golden = (np.sqrt(5) - 1) / 2
    inner = [high - golden * (high - low), low + golden * (high - low)]
    losses = [loss(point) for point in inner]
    while high - low > 1e-3:
        if losses[0] < losses[1]:
            high = inner[1]
            inner = [high - golden * (high - low), inner[0]]
            losses = [loss(inner[0]), losses[0]]
        else:
            low = inner[0]
            inner = [inner[1], low + golden * (high - low)]
            losses = [losses[1], loss(inner[1])]
    return round(float(np.exp((low + high) / 2)), 4)


def choose_threshold(
    scores: NDArray[np.float32], targets: Sequence[int | None], *, precision: float = DEFAULT_PRECISION
) -> float:
    """The least score at which one of the three shown is right for a share of `precision` of the rows shown.

    With a margin for the chance in few rows, and with out-of-scope rows weighed as the share of tickets that they
    stand for (see this module's constants). And not lower than where in-scope rows are as often missed as hit (the
    rule of Chow 1970 for a miss that costs what a hit gains), nor than half of any held-out row's score: what resembles no
    ticket ever seen is not suggested for, however right the model is on those it knows.

    Args:
        scores: [rows, macros] on held-out rows, calibrated.
        targets: as for `calibrate`.

    Returns:
        A score between 0 and 1: 0 where nothing is known, 1 where none is enough.
    """
    if not len(scores):
        return 0.0
    right = np.array([-1 if target is None else target for target in targets], np.int64)
    in_scope = np.array([target is not None for target in targets], bool)
    hit = (np.argsort(-scores, axis=1, kind="stable")[:, :SHOWN] == right[:, None]).any(axis=1)
    best = scores.max(axis=1)
    order = np.argsort(-best, kind="stable")
    weight = _weights(in_scope)[order]
    total = np.cumsum(weight)
    effective = total**2 / np.cumsum(weight**2)  # Kish 1965
    shown_precision, _ = wilson_interval(np.cumsum(hit[order] * weight) / total, effective, z=_CAUTION)
    # Rows of equal score are shown together: only the last of them is a place to cut.
    ends = np.append(best[order][1:] != best[order][:-1], True)
    cuts = np.flatnonzero(ends & (shown_precision >= precision))
    if not len(cuts):
        return 1.0
    gain = np.where(ends, np.cumsum(np.where(in_scope, hit - 0.5, 0.0)[order]), -np.inf)
    worth = np.flatnonzero(gain == gain.max())[-1]
    last = max(cuts[cuts <= worth], default=cuts[-1])
    # Where all may be shown, half of the least: a new ticket may well score a little less than a few held-out ones.
    return float(best[order][last]) / (2 if last == len(order) - 1 else 1)


def _weights(in_scope: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What each row counts: 1 in scope, and out of scope what its kind's share asks for, never less than 1."""
    inside, outside = int(in_scope.sum()), int((~in_scope).sum())
    if not inside or not outside:
        return np.ones(len(in_scope))
    share = _OUT_OF_SCOPE_SHARE * outside / (outside + _OUT_OF_SCOPE_DOUBT)
    return np.where(in_scope, 1.0, max(share / (1 - share) * inside / outside, 1.0))
