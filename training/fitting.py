"""Fitting a tenant's weights for the program `bag`: two classifiers, each by itself, whose opinions are added.

One is over the prior's vectors, by `training.logistic`: it knows what words mean, and needs few examples. The
other is over the tenant's own n-grams: it knows what this tenant's customers write, once there is enough of it. So the
fewer examples a macro has, the more the prior's opinion counts. (Fitted together, the one that learns sooner leaves the
other nothing to learn.)

The n-grams' is a linear classifier over pooled feature vectors, by sparse Adagrad. Only the rows of the table that a
batch touches are read and written, so a step costs what its features cost, not what the table costs (a dense Adam step
over 40,000 rows is twenty times slower). Adagrad: Duchi et al. 2011, over the table with one sum a row (as large
embedding tables are trained; two thirds of the time, and the same accuracy, as one sum an element). Label smoothing:
Szegedy et al. 2016 (arXiv:1512.00567).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from registry.model.program import ProgramSpec
from registry.model.runtime import Features
from training.batches import arrange, in_order
from training.logistic import fit_logistic

# So many are handed to TensorFlow at once: a call costs as much as a descent on a small batch, and memory is bounded.
_BATCHES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How weights are fitted; part of a model's identity.

    Attributes:
        embedding: its type; int8 is a quarter of the size.
        least_steps: small tenants get more epochs until they have made so many steps.
        prior_decay: of the prior's kernel, divided by the number of examples.
        share_few, share_many: of the n-grams' opinion, for a tenant with ten examples a macro or fewer, and with
            thirty-two or more; in between by the logarithm.
    """

    seed: int = 0
    embedding: Literal["float32", "int8"] = "float32"
    epochs: int = 12
    least_steps: int = 100
    batch: int = 128
    learning_rate: float = 0.15
    feature_dropout: float = 0.6
    label_smoothing: float = 0.1
    initial_scale: float = 0.02
    prior_decay: float = 0.02
    share_few: float = 0.4
    share_many: float = 0.65

    def as_dict(self) -> dict[str, str | int | float]:
        """For the manifest."""
        return asdict(self)


class NgramFitter:
    """Fits the n-grams' classifier of one tenant after the other, reusing one compiled step. Belongs to one thread.

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
        self._embedding = _Parameter(tf, tf.TensorShape([rows, dimensions]), by_row=True)
        self._kernel = _Parameter(tf, free)
        self._bias = _Parameter(tf, tf.TensorShape([None]))
        self._descend = self._compile()
        self._warm_up()

    def fit(
        self,
        features: Features,
        targets: NDArray[np.int32],
        macros: int,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Fit weights.

        Args:
            features: of the training texts, as the program made them.
            targets: int32 [tickets], index of the macro that was applied.
            macros: how many there are.
            progress: told the finished share after each epoch.

        Returns:
            `embedding`, `weight`, `kernel` and `bias`; the same for the same arguments, on one kind of machine and with
            one thread.
        """
        settings, tickets = self._settings, features.tickets
        ids, splits = _without_gaps(features.tensors["ids"], features.tensors["splits"])
        lengths = np.diff(splits)
        weight = inverse_document_frequency(ids, lengths, self._rows)
        # What makes a ticket's values of unit length, as the program does when it scores; dropout's share is made up for.
        scale = 1 / (_norms(weight[ids], lengths) * (1 - settings.feature_dropout))

        rng = np.random.default_rng([settings.seed, tickets, macros])
        shape = (self._rows, self._dimensions)
        self._embedding.reset(rng.standard_normal(shape, np.float32) * np.float32(settings.initial_scale))
        kernel = rng.standard_normal((self._dimensions, macros), np.float32)
        self._kernel.reset(kernel * np.float32(self._dimensions**-0.5))
        self._bias.reset(np.zeros(macros, np.float32))

        batch = min(settings.batch, max(8, tickets // 10))
        steps_per_epoch = -(-tickets // batch)
        epochs = max(settings.epochs, -(-settings.least_steps // steps_per_epoch))
        for epoch in range(epochs):
            order = rng.permutation(tickets)
            kept = np.flatnonzero(rng.random(len(ids), np.float32) >= settings.feature_dropout)
            epoch_ids, epoch_lengths = in_order(ids, splits, kept, order)
            ends = np.cumsum(epoch_lengths)
            for first in range(0, tickets, batch * _BATCHES):
                last = min(first + batch * _BATCHES, tickets)
                part = slice(ends[first] - epoch_lengths[first], ends[last - 1])
                of_part = order[first:last]
                progressed = epoch + np.arange(first, last, batch) / tickets
                self._descend(
                    *arrange(epoch_ids[part], epoch_lengths[first:last], batch, weight),
                    scale[of_part],
                    targets[of_part],
                    (settings.learning_rate * (1 - progressed / epochs)).astype(np.float32),
                )
            if progress is not None:
                progress((epoch + 1) / epochs)
        embedding = self._embedding.value()
        # What training never saw weighs nothing; zeros make that visible and the file smaller to compress.
        embedding[weight == 0] = 0
        return {"embedding": embedding, "weight": weight, "kernel": self._kernel.value(), "bias": self._bias.value()}

    def _warm_up(self) -> None:
        """Have the step traced and optimised now: that is TensorFlow's start, not the first tenant's time."""
        self._embedding.reset(np.zeros((self._rows, self._dimensions), np.float32))
        self._kernel.reset(np.zeros((self._dimensions, 2), np.float32))
        self._bias.reset(np.zeros(2, np.float32))
        zero, one = np.zeros(1, np.int32), np.ones(1, np.float32)
        bounds = np.array([[0, 1]] * 3, np.int32)
        self._descend(zero, one, zero, zero, zero, zero, bounds, one, zero, np.zeros(1, np.float32))

    def _compile(self) -> Any:
        tf, settings = self._tf, self._settings
        embedding, kernel, bias = self._embedding, self._kernel, self._bias

        integers, floats = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.float32)

        def step(touched: Any, weight: Any, by_ticket: Any, by_row: Any, scale: Any, targets: Any, rate: Any) -> None:
            """One descent. `by_ticket` is (ticket, place in touched) sorted by ticket, `by_row` the same by place."""
            vectors = tf.gather(embedding.variable, touched) * weight[:, None]
            pooled = tf.raw_ops.SparseSegmentSumWithNumSegments(
                data=vectors, indices=by_ticket[1], segment_ids=by_ticket[0], num_segments=tf.size(targets)
            )
            pooled *= scale[:, None]
            weights = kernel.variable.read_value()
            probabilities = tf.nn.softmax(tf.matmul(pooled, weights) + bias.variable)
            macros = tf.shape(weights)[1]
            smooth = settings.label_smoothing / tf.cast(macros, tf.float32)
            gradient = probabilities - (tf.one_hot(targets, macros) * (1 - settings.label_smoothing) + smooth)
            pooled_gradient = tf.matmul(gradient, weights, transpose_b=True) * scale[:, None]
            kernel.descend(tf.matmul(pooled, gradient, transpose_a=True), rate)
            bias.descend(tf.reduce_sum(gradient, axis=0), rate)
            rows_gradient = tf.raw_ops.SparseSegmentSumWithNumSegments(
                data=pooled_gradient, indices=by_row[0], segment_ids=by_row[1], num_segments=tf.size(touched)
            )
            embedding.descend_rows(touched, rows_gradient, weight, rate)

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[
                integers,
                floats,
                *[integers] * 4,
                tf.TensorSpec([3, None], tf.int32),
                floats,
                integers,
                floats,
            ],
            autograph=False,
        )
        def descend(
            touched: Any,
            weight: Any,
            ticket: Any,
            place: Any,
            row_ticket: Any,
            row_place: Any,
            bounds: Any,
            scale: Any,
            targets: Any,
            rates: Any,
        ) -> None:
            """A descent a batch; `training.batches.arrange` says what is what."""

            def body(batch: Any) -> Any:
                rows, features, tickets = (slice(bounds[part, batch], bounds[part, batch + 1]) for part in range(3))
                step(
                    touched[rows],
                    weight[rows],
                    (ticket[features], place[features]),
                    (row_ticket[features], row_place[features]),
                    scale[tickets],
                    targets[tickets],
                    rates[batch],
                )
                return (batch + 1,)

            tf.while_loop(lambda batch: batch < tf.size(rates), body, (0,), parallel_iterations=1)

        # As the operation that it is: the binding of arguments in Python costs a small tenant as much as a descent.
        traced = descend.get_concrete_function()
        captured, call = list(traced.captured_inputs), tf.raw_ops.StatefulPartitionedCall
        return lambda *arguments: call(args=[*arguments, *captured], Tout=[], f=traced)


class Fitter:
    """Fits one tenant after the other for the program `bag`. Belongs to one thread.

    Args:
        spec: the program whose weights are fitted.
    """

    def __init__(self, spec: ProgramSpec, settings: FitSettings) -> None:
        self._ngrams, self._settings = NgramFitter(spec, settings), settings

    def fit(
        self,
        features: Features,
        targets: NDArray[np.int32],
        macros: int,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Fit weights; arguments and result as `NgramFitter.fit` has them, and `prior_kernel` beside."""
        ngrams = self._ngrams.fit(features, targets, macros, progress=progress)
        prior_kernel, prior_bias = fit_logistic(
            features.tensors["prior"], targets, macros, decay=self._settings.prior_decay / features.tickets
        )
        share = ngram_share(self._settings, features.tickets / macros)
        tensors = {
            **ngrams,
            "kernel": ngrams["kernel"] * share,
            "prior_kernel": prior_kernel * (1 - share),
            "bias": ngrams["bias"] * share + prior_bias * (1 - share),
        }
        return in_whole_numbers(tensors) if self._settings.embedding == "int8" else tensors

    def tempered(self, tensors: Mapping[str, NDArray[Any]], temperature: float) -> dict[str, NDArray[Any]]:
        """The weights whose scores are those of `tensors` at another temperature: the linear layers divided by it."""
        return divided(tensors, ("kernel", "prior_kernel", "bias"), temperature)


def divided(tensors: Mapping[str, NDArray[Any]], linear: Sequence[str], temperature: float) -> dict[str, NDArray[Any]]:
    """Weights whose `linear` tensors are divided by a temperature."""
    return {**tensors, **{name: tensors[name] / np.float32(temperature) for name in linear}}


class _Parameter:
    """A variable under Adagrad; its shape may change from tenant to tenant."""

    def __init__(self, tf: Any, shape: Any, *, by_row: bool = False) -> None:
        self._tf = tf
        self._by_row = by_row
        start = tf.zeros([size or 1 for size in shape])
        self.variable = tf.Variable(start, shape=shape, trainable=False)
        sums = start[:, 0] if by_row else start
        self._sums = tf.Variable(sums, shape=shape[:1] if by_row else shape, trainable=False)

    def reset(self, value: NDArray[np.float32]) -> None:
        self.variable.assign(value)
        self._sums.assign(self._tf.fill(value.shape[:1] if self._by_row else value.shape, 0.1))

    def value(self) -> NDArray[np.float32]:
        return np.array(self.variable.numpy(), np.float32)

    def descend(self, gradient: Any, rate: Any) -> None:
        self._tf.raw_ops.ResourceApplyAdagradV2(
            var=self.variable.handle, accum=self._sums.handle, lr=rate, epsilon=1e-7, grad=gradient
        )

    def descend_rows(self, rows: Any, gradient: Any, weight: Any, rate: Any) -> None:
        """Row-wise: one sum a row, of the mean square of its gradient, which is `gradient` times `weight`."""
        tf = self._tf
        squares = tf.reduce_mean(tf.square(gradient), axis=1) * tf.square(weight)
        sums = tf.gather(self._sums, rows) + squares
        tf.raw_ops.ResourceScatterUpdate(resource=self._sums.handle, indices=rows, updates=sums)
        change = gradient * (rate * weight * tf.math.rsqrt(sums))[:, None]
        tf.raw_ops.ResourceScatterSub(resource=self.variable.handle, indices=rows, updates=change)


def ngram_share(settings: FitSettings, examples_a_macro: float) -> np.float32:
    """How much of the answer is the n-grams' opinion; the rest is the prior's."""
    known = np.clip(2 * (np.log10(examples_a_macro) - 1), 0, 1)
    return np.float32(settings.share_few + known * (settings.share_many - settings.share_few))


def in_whole_numbers(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Weights with the embedding, nearly all of a bundle, as int8: each column on a scale of its own, which the kernel
    takes over."""
    embedding = tensors["embedding"]
    scale = np.maximum(np.abs(embedding).max(axis=0), np.float32(1e-12)) / np.float32(127)
    return {
        **tensors,
        "embedding": np.rint(embedding / scale).astype(np.int8),
        "kernel": tensors["kernel"] * scale[:, None],
    }


def inverse_document_frequency(ids: NDArray[np.int32], lengths: NDArray[np.int64], rows: int) -> NDArray[np.float32]:
    """Smoothed inverse document frequency of each row of the table; 0 for a row that no document has."""
    documents = len(lengths)
    ticket = np.repeat(np.arange(documents), lengths)
    # Sorting beats NumPy's own unique, which hashes, by an order of magnitude here.
    pairs = np.sort(ticket * rows + ids)
    fresh = np.ones(len(pairs), bool)
    fresh[1:] = pairs[1:] != pairs[:-1]
    frequency = np.bincount(pairs[fresh] % rows, minlength=rows)
    smoothed = np.log((1 + documents) / (1 + frequency)) + 1
    return np.where(frequency > 0, smoothed, 0).astype(np.float32)


def _without_gaps(ids: NDArray[Any], splits: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The features without row 0, which stands for none, so that it is never seen and weighs nothing."""
    found = np.flatnonzero(ids)
    return ids[found].astype(np.int32), np.searchsorted(found, splits)


def _norms(values: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """The Euclidean length of each ticket's values."""
    ticket = np.repeat(np.arange(len(lengths)), lengths)
    squares = np.bincount(ticket, values.astype(np.float64) ** 2, minlength=len(lengths))
    return np.sqrt(np.maximum(squares, 1e-24)).astype(np.float32)
