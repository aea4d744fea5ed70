"""Distilling a sentence encoder into one vector a word piece: a text's vector is the sum of its pieces'.

A piece starts as the encoder's vector of it alone, weighed by how rare it is (the vocabulary is in order of frequency,
and Zipf's law makes a rank a frequency; model2vec does the same, Tulkens and van Dongen 2024). Then the sums are taught
to point where the encoder's vectors of whole sentences point. What is learnt is one projection of all pieces and a
correction for each piece: a piece that no sentence holds still moves with the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilSettings:
    """How a prior is learnt. `longest` counts word pieces; what lies beyond is not read."""

    dimensions: int = 256
    epochs: int = 8
    batch: int = 512
    learning_rate: float = 0.002
    longest: int = 40
    seed: int = 0


def distil(
    tokens: Vectors,
    pieces: Sequence[NDArray[np.int32]],
    sentences: Vectors,
    settings: DistilSettings,
    *,
    told: Callable[[str], None],
) -> Vectors:
    """Learn a vector for each piece.

    Args:
        tokens: [pieces, encoder dimensions], the encoder's vector of each piece alone, in order of frequency.
        pieces: of each sentence.
        sentences: [sentences, encoder dimensions], the encoder's vectors of them.
        told: how it goes, a line an epoch.

    Returns:
        [pieces, dimensions].
    """
    import tensorflow as tf

    rng = np.random.default_rng(settings.seed)
    mean = sentences.mean(axis=0)
    sample = sentences[rng.permutation(len(sentences))[:20_000]] - mean
    basis = np.linalg.svd(sample, full_matrices=False)[2][: settings.dimensions].T
    goals = _unit((sentences - mean) @ basis)
    rarity = np.log(np.arange(1, len(tokens) + 1, dtype=np.float32)) / 10
    start = tf.constant(_unit(tokens - tokens.mean(axis=0)) * rarity[:, None])
    projection = _Adam(tf, basis, learning_rate=3 * settings.learning_rate)
    correction = _Adam(
        tf, np.zeros((len(tokens), settings.dimensions), np.float32), learning_rate=settings.learning_rate, reach=0.99
    )

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(used: Any, places: Any, mask: Any, goal: Any, rate: Any) -> Any:
        """One descent on one less the cosine. `places` [sentences, pieces] point into `used`, where `mask` is not 0."""
        own = tf.gather(correction.variable, used)
        with tf.GradientTape() as tape:
            tape.watch(own)
            vectors = tf.matmul(tf.gather(start, used), projection.variable) + own
            summed = tf.reduce_sum(tf.gather(vectors, places) * mask[..., None], axis=1)
            loss = 1 - tf.reduce_mean(tf.reduce_sum(tf.math.l2_normalize(summed, -1) * goal, -1))
        of_projection, of_own = tape.gradient(loss, [projection.variable, own])
        projection.descend(of_projection, rate)
        correction.descend_rows(used, tf.convert_to_tensor(of_own), rate)
        return loss

    lengths = np.array([len(part) for part in pieces])
    steps = len(pieces) // settings.batch
    for epoch in range(settings.epochs):
        total = 0.0
        for number, batch in enumerate(_batches(lengths, settings.batch, rng)):
            rate = np.float32(1 - (epoch * steps + number) / (settings.epochs * steps))
            total += float(step(*_padded([pieces[place][: settings.longest] for place in batch]), goals[batch], rate))
        told(f"epoch {epoch + 1} of {settings.epochs}: mean cosine {1 - total / steps:.4f}")
    learnt: Vectors = (tf.matmul(start, projection.variable) + correction.variable).numpy()
    return learnt


class _Adam:
    """A variable under Adam (Kingma and Ba 2015, arXiv:1412.6980), whole or by the rows that a step uses."""

    def __init__(self, tf: Any, value: Vectors, *, learning_rate: float, reach: float = 0.999) -> None:
        self._tf, self._learning_rate, self._reach = tf, learning_rate, reach
        self.variable = tf.Variable(np.ascontiguousarray(value))
        self._mean, self._square = (tf.Variable(tf.zeros_like(self.variable)) for _ in range(2))

    def descend(self, gradient: Any, rate: Any) -> None:
        self._mean.assign(0.9 * self._mean + 0.1 * gradient)
        self._square.assign(self._reach * self._square + (1 - self._reach) * gradient**2)
        self.variable.assign_sub(self._change(self._mean, self._square, rate))

    def descend_rows(self, rows: Any, gradient: Any, rate: Any) -> None:
        tf = self._tf
        mean = 0.9 * tf.gather(self._mean, rows) + 0.1 * gradient
        square = self._reach * tf.gather(self._square, rows) + (1 - self._reach) * gradient**2
        for variable, value in ((self._mean, mean), (self._square, square)):
            tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=value)
        change = self._change(mean, square, rate)
        tf.raw_ops.ResourceScatterSub(resource=self.variable.handle, indices=rows, updates=change)

    def _change(self, mean: Any, square: Any, rate: Any) -> Any:
        return self._learning_rate * rate * mean / (self._tf.sqrt(square) + 1e-6)


def _batches(lengths: NDArray[np.int64], size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Places of whole batches in chance order; those of one batch are of like length, so that little is padded."""
    order = rng.permutation(len(lengths))
    parts = np.array_split(order, max(1, len(order) // (16 * size)))
    order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
    batches = [order[first : first + size] for first in range(0, len(order) - size + 1, size)]
    rng.shuffle(batches)
    return batches


def _padded(pieces: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int32], NDArray[np.int32], Vectors]:
    """The pieces used, each once, and for each text where among them its own are, with a mask."""
    lengths = np.array([len(part) for part in pieces])
    mask = np.arange(max(1, lengths.max())) < lengths[:, None]
    used, inverse = np.unique(np.concatenate(pieces), return_inverse=True)
    places = np.zeros(mask.shape, np.int32)
    places[mask] = inverse
    return used.astype(np.int32), places, mask.astype(np.float32)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(lengths, 1e-9)).astype(np.float32)
    return unit
