from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.softmax_regression import softmax_regression

RNG = np.random.default_rng(0)
TARGETS = RNG.integers(0, 5, 200).astype(np.int32)
FEATURES = (np.eye(5)[TARGETS] @ RNG.standard_normal((5, 12)) + RNG.standard_normal((200, 12))).astype(np.float32)


def objective(kernel: NDArray[Any], bias: NDArray[Any], decay: float) -> float:
    logits = FEATURES @ kernel + bias
    sums = np.log(np.exp(logits).sum(axis=1))
    return float((sums - logits[np.arange(200), TARGETS]).mean() + decay / 2 * (kernel**2).sum())


@pytest.mark.parametrize("decay", [0.3, 0.01])
def test_no_step_in_any_direction_makes_it_better(decay: float) -> None:
    kernel, bias = softmax_regression(FEATURES, TARGETS, 5, decay=decay)
    assert (kernel.shape, bias.shape) == ((12, 5), (5,))
    assert abs(bias.sum()) < 1e-3
    best = objective(kernel, bias, decay)
    assert best < objective(np.zeros((12, 5)), np.zeros(5), decay) - 0.2
    rng = np.random.default_rng(1)
    for _ in range(50):
        change, shift = rng.standard_normal((12, 5)) * 0.02, rng.standard_normal(5) * 0.02
        assert objective(kernel + change, bias + shift, decay) > best - 1e-5


def test_it_is_the_same_every_time_and_decay_holds_it_back() -> None:
    one, again = (softmax_regression(FEATURES, TARGETS, 5, decay=0.01)[0] for _ in range(2))
    np.testing.assert_array_equal(one, again)
    held = softmax_regression(FEATURES, TARGETS, 5, decay=1.0)[0]
    assert np.linalg.norm(held) < np.linalg.norm(one) / 3


def test_what_cannot_be_told_apart_is_answered_by_how_usual_it_is() -> None:
    targets = np.array([0] * 60 + [1] * 30 + [2] * 10, np.int32)
    kernel, bias = softmax_regression(np.ones((100, 4), np.float32), targets, 3, decay=0.01)
    logits = kernel.sum(axis=0) + bias
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), [0.6, 0.3, 0.1], atol=5e-3)


def test_few_iterations_are_enough_to_be_near() -> None:
    far = objective(*softmax_regression(FEATURES, TARGETS, 5, decay=0.01, iterations=1), 0.01)
    near = objective(*softmax_regression(FEATURES, TARGETS, 5, decay=0.01, iterations=15), 0.01)
    best = objective(*softmax_regression(FEATURES, TARGETS, 5, decay=0.01, iterations=200), 0.01)
    assert best <= near < best + 0.002 < far
