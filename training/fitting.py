"""Fitting a tenant's weights for the program `bag`: a linear classifier over pooled feature vectors, sparse Adagrad.

Only the rows of the table that a batch touches are read and written, so a step costs what its features cost, not what
the table costs (a dense Adam step over 40,000 rows is twenty times slower). Adagrad: Duchi et al. 2011; label
smoothing: Szegedy et al. 2016 (arXiv:1512.00567).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.program import ProgramSpec
from registry.runtime import Features


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How weights are fitted; part of a model's identity.

    Attributes:
        least_steps: small tenants get more epochs until they have made so many steps.
    """

    seed: int = 0
    epochs: int = 12
    least_steps: int = 300
    batch: int = 128
    learning_rate: float = 0.1
    feature_dropout: float = 0.6
    label_smoothing: float = 0.1
    initial_scale: float = 0.02

    def as_dict(self) -> dict[str, str | int | float]:
        """For the manifest."""
        return asdict(self)


class Fitter:
    """Fits one tenant after the other, reusing one compiled step. Belongs to one thread.

    Args:
        spec: the program whose weights are fitted.
    """

    def __init__(self, spec: ProgramSpec, settings: FitSettings) -> None:
        import tensorflow as tf

        rows, dimensions = spec.weights("score_f32")["embedding"].shape
        assert isinstance(rows, int)
        assert isinstance(dimensions, int)
        self._rows, self._dimensions, self._settings, self._tf = rows, dimensions, settings, tf
        free = tf.TensorShape([dimensions, None])
        self._embedding = _Parameter(tf, tf.TensorShape([rows, dimensions]))
        self._kernel = _Parameter(tf, free)
        self._bias = _Parameter(tf, tf.TensorShape([None]))
        self._step = self._compile_step()

    def fit(
        self,
        features: Features,
        targets: NDArray[np.int32],
        macros: int,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Fit weights.

        Args:
            features: of the training texts, as the program made them.
            targets: int32 [tickets], index of the macro that was applied.
            macros: how many there are.
            progress: told the finished share after each epoch.

        Returns:
            Weights by the names the program takes; the same for the same arguments, on one kind of machine and with
            one thread.
        """
        settings, tickets = self._settings, features.tickets
        ids, splits = features.tensors["ids"], features.tensors["splits"].astype(np.int64)
        lengths = np.diff(splits)
        weight = inverse_document_frequency(ids, lengths, self._rows)
        values = _normalised(weight[ids], lengths)

        rng = np.random.default_rng([settings.seed, tickets, macros])
        shape = (self._rows, self._dimensions)
        self._embedding.reset(rng.standard_normal(shape, np.float32) * np.float32(settings.initial_scale))
        scale = np.float32(self._dimensions**-0.5)
        self._kernel.reset(rng.standard_normal((self._dimensions, macros), np.float32) * scale)
        self._bias.reset(np.zeros(macros, np.float32))

        batch = min(settings.batch, max(8, tickets // 20))
        steps_per_epoch = -(-tickets // batch)
        epochs = max(settings.epochs, -(-settings.least_steps // steps_per_epoch))
        step = 0
        for epoch in range(epochs):
            order = rng.permutation(tickets)
            ends = np.cumsum(lengths[order])
            begins = ends - lengths[order]
            flat = np.repeat(splits[order] - begins, lengths[order]) + np.arange(ends[-1] if tickets else 0)
            epoch_ids, epoch_values = ids[flat], values[flat]
            ticket = np.repeat(np.arange(tickets) % batch, lengths[order])
            for first in range(0, tickets, batch):
                last = min(first + batch, tickets)
                part = slice(begins[first], ends[last - 1])
                rate = settings.learning_rate * (1 - step / (epochs * steps_per_epoch))
                self._step(
                    epoch_ids[part],
                    epoch_values[part],
                    ticket[part],
                    targets[order[first:last]],
                    np.float32(rate),
                    np.array([settings.seed, step], np.int32),
                )
                step += 1
            if progress is not None:
                progress((epoch + 1) / epochs)
        embedding = self._embedding.value()
        # What training never saw weighs nothing; zeros make that visible and the file smaller to compress.
        embedding[weight == 0] = 0
        return {"embedding": embedding, "weight": weight, "kernel": self._kernel.value(), "bias": self._bias.value()}

    def _compile_step(self) -> Any:
        tf, settings = self._tf, self._settings
        embedding, kernel, bias = self._embedding, self._kernel, self._bias

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([], tf.float32),
                tf.TensorSpec([2], tf.int32),
            ]
        )
        def step(ids: Any, values: Any, ticket: Any, targets: Any, rate: Any, seed: Any) -> None:
            kept = tf.where(tf.random.stateless_uniform([tf.size(ids)], seed) >= settings.feature_dropout)[:, 0]
            ids, ticket = tf.gather(ids, kept), tf.gather(ticket, kept)
            values = tf.gather(values, kept) / (1 - settings.feature_dropout)
            touched, position = tf.unique(ids, tf.int64)
            matrix = {
                "a_indices": tf.stack([ticket, position], axis=1),
                "a_values": values,
                "a_shape": tf.stack([tf.size(targets, tf.int64), tf.size(touched, tf.int64)]),
            }
            pooled = tf.raw_ops.SparseTensorDenseMatMul(b=tf.gather(embedding.variable, touched), **matrix)
            weights = kernel.variable.read_value()
            probabilities = tf.nn.softmax(tf.matmul(pooled, weights) + bias.variable)
            macros = tf.shape(weights)[1]
            smooth = settings.label_smoothing / tf.cast(macros, tf.float32)
            gradient = probabilities - (tf.one_hot(targets, macros) * (1 - settings.label_smoothing) + smooth)
            pooled_gradient = tf.matmul(gradient, weights, transpose_b=True)
            kernel.descend(tf.matmul(pooled, gradient, transpose_a=True), rate)
            bias.descend(tf.reduce_sum(gradient, axis=0), rate)
            table_gradient = tf.raw_ops.SparseTensorDenseMatMul(b=pooled_gradient, adjoint_a=True, **matrix)
            embedding.descend_rows(touched, table_gradient, rate)

        return step


class _Parameter:
    """A variable with its Adagrad accumulator; its shape may change from tenant to tenant."""

    def __init__(self, tf: Any, shape: Any) -> None:
        self._tf = tf
        start = tf.zeros([size or 1 for size in shape])
        self.variable = tf.Variable(start, shape=shape, trainable=False)
        self._accumulator = tf.Variable(start, shape=shape, trainable=False)

    def reset(self, value: NDArray[np.float32]) -> None:
        self.variable.assign(value)
        self._accumulator.assign(self._tf.fill(value.shape, 0.1))

    def value(self) -> NDArray[np.float32]:
        return np.array(self.variable.numpy(), np.float32)

    def descend(self, gradient: Any, rate: Any) -> None:
        self._tf.raw_ops.ResourceApplyAdagradV2(
            var=self.variable.handle, accum=self._accumulator.handle, lr=rate, epsilon=1e-7, grad=gradient
        )

    def descend_rows(self, rows: Any, gradient: Any, rate: Any) -> None:
        self._tf.raw_ops.ResourceSparseApplyAdagradV2(
            var=self.variable.handle, accum=self._accumulator.handle, lr=rate, epsilon=1e-7, grad=gradient, indices=rows
        )


def inverse_document_frequency(ids: NDArray[np.int32], lengths: NDArray[np.int64], rows: int) -> NDArray[np.float32]:
    """Smoothed inverse document frequency of each row of the table; 0 for a row that no document has."""
    documents = len(lengths)
    ticket = np.repeat(np.arange(documents), lengths)
    pairs = np.unique(ticket * rows + ids)
    frequency = np.bincount(pairs % rows, minlength=rows)
    smoothed = np.log((1 + documents) / (1 + frequency)) + 1
    return np.where(frequency > 0, smoothed, 0).astype(np.float32)


def _normalised(values: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Each ticket's values scaled to unit length, as the program does when it scores."""
    ticket = np.repeat(np.arange(len(lengths)), lengths)
    norms = np.sqrt(np.bincount(ticket, values.astype(np.float64) ** 2, minlength=len(lengths)))
    return (values / np.maximum(norms, 1e-12)[ticket]).astype(np.float32)
