"""Multinomial logistic regression on dense features: scikit-learn's, by L-BFGS, over a fixed number of classes.

Batch by batch with a rate for each number, as an embedding is fitted, the few strong directions of a pretrained vector
lose their lead: on ten examples a class that cost four points of accuracy.
"""

from __future__ import annotations

import warnings
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

_ENOUGH = 1e-5
_MOST_ITERATIONS = 100


def fit_logistic(
    values: Floats, targets: NDArray[np.int32], classes: int, *, decay: float, iterations: int = _MOST_ITERATIONS
) -> tuple[Floats, Floats]:
    """Fit one linear layer under a softmax by the mean cross entropy and `decay` / 2 times the squares of its kernel.

    Args:
        values: float32 [examples, dimensions].
        targets: int32 [examples], the class of each.
        iterations: at most so many; where they do not suffice the result is what they reached.

    Returns:
        Kernel float32 [dimensions, classes] and bias float32 [classes], which adds up to 0 over the classes that have
        examples; the others' is less than the least by the logarithm of the number of examples. The same for the same
        arguments, on one kind of machine and with one thread.
    """
    examples, dimensions = values.shape
    counts = np.bincount(targets, minlength=classes)
    seen = np.flatnonzero(counts)
    kernel = np.zeros((dimensions, classes), np.float32)
    bias = np.zeros(classes, np.float32)
    if len(seen) > 1:
        kernel[:, seen], bias[seen] = _fit(values, targets, decay=decay, iterations=iterations, pair=len(seen) == 2)
    bias[counts == 0] = bias.min() - np.log(1 + examples)
    return kernel, bias


def _fit(
    values: Floats, targets: NDArray[np.int32], *, decay: float, iterations: int, pair: bool
) -> tuple[Floats, Floats]:
    """Of the classes that have examples, in their order."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # Of two classes scikit-learn fits one difference, whose square is twice the squares of its halves.
    strength = (decay / 2 if pair else decay) * len(values)
    model = LogisticRegression(C=1 / strength, tol=_ENOUGH, max_iter=iterations)
    # Two threads of BLAS wait for each other over matrices of this size: 240 examples took 12 s of processor time on two
    # cores, and 0.7 s with one.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(values, targets)
    kernel, bias = model.coef_.T, model.intercept_
    if pair:
        kernel, bias = np.concatenate([-kernel, kernel], axis=1) / 2, np.concatenate([-bias, bias]) / 2
    return kernel.astype(np.float32), bias.astype(np.float32)
