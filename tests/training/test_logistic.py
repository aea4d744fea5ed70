from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.logistic import fit_logistic

RNG = np.random.default_rng(0)
TARGETS = RNG.integers(0, 5, 200).astype(np.int32)
FEATURES = (np.eye(5)[TARGETS] @ RNG.standard_normal((5, 12)) + RNG.standard_normal((200, 12))).astype(np.float32)


def objective(kernel: NDArray[Any], bias: NDArray[Any], decay: float) -> float:
    logits = FEATURES @ kernel + bias
    sums = np.log(np.exp(logits).sum(axis=1))
    return float((sums - logits[np.arange(200), TARGETS]).mean() + decay / 2 * (kernel**2).sum())


@pytest.mark.parametrize("decay", [0.3, 0.01])
def test_no_step_in_any_direction_makes_it_better(decay: float) -> None:
    kernel, bias = fit_logistic(FEATURES, TARGETS, 5, decay=decay)
    assert (kernel.shape, bias.shape) == ((12, 5), (5,))
    assert abs(bias.sum()) < 1e-3
    best = objective(kernel, bias, decay)
    assert best < objective(np.zeros((12, 5)), np.zeros(5), decay) - 0.2
    rng = np.random.default_rng(1)
    for _ in range(50):
        change, shift = rng.standard_normal((12, 5)) * 0.02, rng.standard_normal(5) * 0.02
        assert objective(kernel + change, bias + shift, decay) > best - 1e-5


def test_it_is_the_same_every_time_and_decay_holds_it_back() -> None:
    one, again = (fit_logistic(FEATURES, TARGETS, 5, decay=0.01)[0] for _ in range(2))
    np.testing.assert_array_equal(one, again)
    held = fit_logistic(FEATURES, TARGETS, 5, decay=1.0)[0]
    assert np.linalg.norm(held) < np.linalg.norm(one) / 3


def test_what_cannot_be_told_apart_is_answered_by_how_usual_it_is() -> None:
    targets = np.array([0] * 60 + [1] * 30 + [2] * 10, np.int32)
    kernel, bias = fit_logistic(np.ones((100, 4), np.float32), targets, 3, decay=0.01)
    logits = kernel.sum(axis=0) + bias
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), [0.6, 0.3, 0.1], atol=5e-3)


def test_few_iterations_are_enough_to_be_near() -> None:
    far = objective(*fit_logistic(FEATURES, TARGETS, 5, decay=0.01, iterations=1), 0.01)
    near = objective(*fit_logistic(FEATURES, TARGETS, 5, decay=0.01, iterations=15), 0.01)
    best = objective(*fit_logistic(FEATURES, TARGETS, 5, decay=0.01, iterations=200), 0.01)
    assert best <= near < best + 0.002 < far


def test_two_classes_are_fitted_as_many_are() -> None:
    features, targets = FEATURES[TARGETS < 2], TARGETS[TARGETS < 2]
    kernel, bias = fit_logistic(features, targets, 2, decay=0.1)
    np.testing.assert_allclose(kernel[:, 0], -kernel[:, 1])
    # Where the objective is least its gradient is nothing.
    logits = features @ kernel + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradient = features.T @ (probabilities - np.eye(2)[targets]) / len(targets) + 0.1 * kernel
    np.testing.assert_allclose(gradient, 0, atol=2e-3)


def test_a_class_without_examples_is_the_least_likely() -> None:
    with_gap = np.where(TARGETS == 3, 5, TARGETS).astype(np.int32)
    kernel, bias = fit_logistic(FEATURES, with_gap, 6, decay=0.01)
    expected = fit_logistic(FEATURES, TARGETS, 5, decay=0.01)[0][:, [0, 1, 2, 4, 3]]
    np.testing.assert_allclose(kernel[:, [0, 1, 2, 4, 5]], expected, atol=0.05)
    assert not kernel[:, 3].any()
    assert bias.argmin() == 3


def test_one_class_alone_needs_no_kernel() -> None:
    kernel, bias = fit_logistic(FEATURES, np.ones(200, np.int32), 3, decay=0.01)
    assert not kernel.any()
    assert bias.argmax() == 1
