"""Multinomial logistic regression by L-BFGS (Liu and Nocedal 1989), in NumPy: the same on every run with one thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

_MEMORY = 10
_MOST_ITERATIONS = 100
_MOST_HALVINGS = 12
# A step that betters the loss by less than this share of it is the last.
_ENOUGH = 1e-5


def fit_logistic(values: Floats, targets: NDArray[np.int32], classes: int, *, decay: float) -> tuple[Floats, Floats]:
    """Fit one linear layer under a softmax.

    Args:
        values: float32 [examples, dimensions].
        targets: int32 [examples], the class of each.
        decay: half of it times the kernel's squares is added to the mean loss.

    Returns:
        Kernel float32 [dimensions, classes] and bias float32 [classes].
    """
    examples, dimensions = values.shape
    rows = np.arange(examples)
    cut = dimensions * classes

    def loss(point: Floats) -> tuple[float, Floats]:
        kernel, bias = point[:cut].reshape(dimensions, classes), point[cut:]
        scores = values @ kernel
        scores += bias
        scores -= scores.max(axis=1, keepdims=True)
        right = scores[rows, targets]
        np.exp(scores, out=scores)
        sums = scores.sum(axis=1)
        mean = float(np.mean(np.log(sums) - right, dtype=np.float64))
        scores /= sums[:, None]
        scores[rows, targets] -= 1
        scores /= examples
        gradient = np.empty_like(point)
        gradient[:cut] = (values.T @ scores + decay * kernel).ravel()
        gradient[cut:] = scores.sum(axis=0)
        return mean + 0.5 * decay * float(np.vdot(kernel, kernel)), gradient

    found = minimise(loss, np.zeros(cut + classes, np.float32))
    return found[:cut].reshape(dimensions, classes), found[cut:]


def minimise(loss: Callable[[Floats], tuple[float, Floats]], point: Floats) -> Floats:
    """The least of a smooth convex function.

    Args:
        loss: its value and gradient at a point.
        point: where to begin.
    """
    value, gradient = loss(point)
    steps: deque[tuple[Floats, Floats, float]] = deque(maxlen=_MEMORY)
    for _ in range(_MOST_ITERATIONS):
        direction = -_curved(gradient, steps)
        slope = float(gradient @ direction)
        if slope >= 0:
            break
        size = 1.0
        for _ in range(_MOST_HALVINGS):
            there = point + np.float32(size) * direction
            value_there, gradient_there = loss(there)
            # Armijo's condition: a fair part of what the slope promised.
            if value_there <= value + 1e-4 * size * slope:
                break
            size /= 2
        else:
            break
        step, change = there - point, gradient_there - gradient
        curvature = float(step @ change)
        if curvature > 0:
            steps.append((step, change, curvature))
        enough = value - value_there < _ENOUGH * abs(value)
        point, value, gradient = there, value_there, gradient_there
        if enough:
            break
    return point


def _curved(gradient: Floats, steps: deque[tuple[Floats, Floats, float]]) -> Floats:
    """The gradient times what the last steps say of the inverse Hessian (the two-loop recursion)."""
    if not steps:
        norm = float(np.linalg.norm(gradient))
        return gradient / np.float32(norm) if norm > 0 else gradient
    turned = gradient.copy()
    shares = []
    for step, change, curvature in reversed(steps):
        share = float(step @ turned) / curvature
        turned -= np.float32(share) * change
        shares.append(share)
    _, change, curvature = steps[-1]
    turned *= np.float32(curvature / float(change @ change))
    for (step, change, curvature), share in zip(steps, reversed(shares), strict=True):
        turned += np.float32(share - float(change @ turned) / curvature) * step
    return turned
