"""Multinomial logistic regression on dense features, by L-BFGS (Nocedal 1980; Nocedal and Wright 2006, algorithm 7.4).

Batch by batch with a rate for each number, as an embedding is fitted, the few strong directions of a pretrained vector
lose their lead: on ten examples a class that cost four points of accuracy.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

_MEMORY = 8
_ENOUGH = 1e-4  # of the step's promise that it has to keep: Armijo's condition
_SHORTEST = 1e-4


def softmax_regression(
    features: Matrix, targets: NDArray[np.int32], classes: int, *, decay: float, iterations: int = 60
) -> tuple[Matrix, Matrix]:
    """Fit by the mean cross entropy and `decay` / 2 times the squares of the kernel; the same result every time.

    Args:
        features: [examples, dimensions].
        targets: [examples].
        iterations: at most so many.

    Returns:
        Kernel [dimensions, classes] and bias [classes], which adds up to 0.
    """
    inputs = np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1).astype(np.float32)
    weights = np.zeros((inputs.shape[1], classes), np.float32)
    loss, gradient = _loss(inputs, targets, weights, decay)
    start, changes = float(np.linalg.norm(gradient)), deque[tuple[Matrix, Matrix, float]](maxlen=_MEMORY)
    for _ in range(iterations):
        if np.linalg.norm(gradient) <= 1e-3 * start:
            break
        direction = -_newton(gradient, changes)
        promise = float(np.vdot(direction, gradient))
        step = 1.0 if changes else 1 / max(start, 1e-12)
        while True:
            there = weights + np.float32(step) * direction
            new_loss, new_gradient = _loss(inputs, targets, there, decay)
            if new_loss <= loss + _ENOUGH * step * promise or step < _SHORTEST:
                break
            step /= 2
        moved, turned = there - weights, new_gradient - gradient
        curvature = float(np.vdot(moved, turned))
        if curvature > 0:
            changes.append((moved, turned, curvature))
        weights, loss, gradient = there, new_loss, new_gradient
    return weights[:-1], weights[-1]


def _loss(inputs: Matrix, targets: NDArray[np.int32], weights: Matrix, decay: float) -> tuple[float, Matrix]:
    """The loss and its gradient. The last input is 1, and its weights, the bias, do not decay."""
    rows = np.arange(len(targets))
    logits = inputs @ weights
    logits -= logits.max(axis=1, keepdims=True)
    right = logits[rows, targets]
    np.exp(logits, out=logits)
    sums = logits.sum(axis=1)
    loss = float((np.log(sums) - right).mean())
    logits /= sums[:, None]
    logits[rows, targets] -= 1
    gradient: Matrix = inputs.T @ logits
    gradient /= np.float32(len(targets))
    kernel = weights[:-1]
    gradient[:-1] += np.float32(decay) * kernel
    return loss + decay / 2 * float(np.vdot(kernel, kernel)), gradient


def _newton(gradient: Matrix, changes: deque[tuple[Matrix, Matrix, float]]) -> Matrix:
    """The gradient times what the last changes tell of the inverse Hessian."""
    found, shares = gradient.copy(), []
    for moved, turned, curvature in reversed(changes):
        share = np.float32(np.vdot(moved, found) / curvature)
        shares.append(share)
        found -= share * turned
    if changes:
        _, turned, curvature = changes[-1]
        found *= np.float32(curvature / float(np.vdot(turned, turned)))
    for (moved, turned, curvature), share in zip(changes, reversed(shares), strict=True):
        found += (share - np.float32(np.vdot(turned, found) / curvature)) * moved
    return found
