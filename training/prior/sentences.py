"""Sentence vectors of the pretrained encoder, for the prior to learn from.

The network is BERT's (Devlin et al. 2019, arXiv:1810.04805), written out in TensorFlow as it was published, where the program
`encoder` is made for speed; a text's vector is the mean over its word pieces, of unit length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.minilm import Checkpoint

_EPSILON = 1e-12
_CLS, _SEP = 101, 102


class SentenceEncoder:
    """Runs the encoder; the same vector for a text whatever it is batched with, but for rounding."""

    def __init__(self, model: Checkpoint, *, longest: int = 128) -> None:
        import tensorflow as tf

        from registry.model.text_operations import tensorflow_text as tf_text

        self._tf, self._longest = tf, longest
        self._heads, self._layers = model.heads, model.layers
        self._normalizer = tf_text.FastBertNormalizer(lower_case_nfd_strip_accents=True)
        self._tokenizer = tf_text.FastWordpieceTokenizer(list(model.vocabulary), support_detokenization=False)
        self._weights = {name: tf.constant(tensor) for name, tensor in model.tensors.items()}
        self._forward = tf.function(self._network, input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2)

    def pieces(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The word pieces of each text, without the marks for its start and end."""
        ragged = self._tokenizer.tokenize(self._normalizer.normalize(self._tf.constant(list(texts))))
        values, splits = ragged.values.numpy(), ragged.row_splits.numpy()
        return [values[start:end] for start, end in pairwise(splits)]

    def encode(self, pieces: Sequence[NDArray[np.int32]], *, batch: int = 64) -> NDArray[np.float32]:
        """Unit vectors, float32 [texts, dimensions], of texts cut into pieces. Those of like length are run together."""
        cut = [np.concatenate([[_CLS], part[: self._longest - 2], [_SEP]]) for part in pieces]
        order = np.argsort([len(part) for part in cut], kind="stable")
        found = np.zeros((len(cut), self._of("embeddings.LayerNorm.bias").shape[0]), np.float32)
        for first in range(0, len(cut), batch):
            places = order[first : first + batch]
            ids = np.zeros((len(places), max(len(cut[place]) for place in places)), np.int32)
            mask = np.zeros_like(ids)
            for row, place in enumerate(places):
                ids[row, : len(cut[place])], mask[row, : len(cut[place])] = cut[place], 1
            found[places] = self._forward(ids, mask).numpy()
        return found

    def _network(self, ids: Any, mask: Any) -> Any:
        tf = self._tf
        length = tf.shape(ids)[1]
        hidden = tf.gather(self._of("embeddings.word_embeddings.weight"), ids)
        hidden += self._of("embeddings.position_embeddings.weight")[:length]
        hidden += self._of("embeddings.token_type_embeddings.weight")[0]
        hidden = self._normal("embeddings.LayerNorm", hidden)
        shape, size = tf.shape(hidden), hidden.shape[-1]
        unseen = (1 - tf.cast(mask, tf.float32))[:, None, None, :] * -1e9
        for layer in range(self._layers):
            name = f"encoder.layer.{layer}"

            def heads(part: str, name: str = name, hidden: Any = hidden) -> Any:
                whole = self._dense(f"{name}.attention.self.{part}", hidden)
                return tf.transpose(
                    tf.reshape(whole, [shape[0], shape[1], self._heads, size // self._heads]), [0, 2, 1, 3]
                )

            similar = tf.matmul(heads("query"), heads("key"), transpose_b=True) * (size // self._heads) ** -0.5
            mixed = tf.matmul(tf.nn.softmax(similar + unseen), heads("value"))
            mixed = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), shape)
            mixed = self._dense(f"{name}.attention.output.dense", mixed)
            hidden = self._normal(f"{name}.attention.output.LayerNorm", hidden + mixed)
            inner = tf.nn.gelu(self._dense(f"{name}.intermediate.dense", hidden), approximate=False)
            hidden = self._normal(f"{name}.output.LayerNorm", hidden + self._dense(f"{name}.output.dense", inner))
        return tf.math.l2_normalize(tf.reduce_sum(hidden * tf.cast(mask, tf.float32)[..., None], axis=1), axis=-1)

    def _of(self, name: str) -> Any:
        return self._weights[name]

    def _dense(self, name: str, inputs: Any) -> Any:
        tf, weight = self._tf, self._of(f"{name}.weight")
        # One product of two matrices is quicker than many small ones.
        flat = tf.matmul(tf.reshape(inputs, [-1, inputs.shape[-1]]), weight, transpose_b=True)
        return tf.reshape(flat + self._of(f"{name}.bias"), [*tf.unstack(tf.shape(inputs)[:-1]), weight.shape[0]])

    def _normal(self, name: str, hidden: Any) -> Any:
        tf = self._tf
        mean, variance = tf.nn.moments(hidden, [-1], keepdims=True)
        return (hidden - mean) * tf.math.rsqrt(variance + _EPSILON) * self._of(f"{name}.weight") + self._of(
            f"{name}.bias"
        )
