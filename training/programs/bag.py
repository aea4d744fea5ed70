"""The program `bag`: hashed words, word pairs and character n-grams, pooled by weight and scored by one linear layer.

Text in, features out, and a scoring function that takes a tenant's weights as arguments. Hashing into a fixed table is
the feature hashing of Weinberger et al. (2009, arXiv:0902.2206); pooled n-gram vectors under a linear classifier are
fastText's model (Joulin et al. 2016, arXiv:1607.01759), here with inverse document frequencies as weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text

from registry.program import ProgramSpec, Signature, TensorSpec

# Odd random multipliers, one column each for 3-, 4- and 5-grams of code points; sums wrap in 32 bits, and the high bits
# pick the row (multiply-shift hashing, Dietzfelbinger et al. 1997).
_CHARACTERS = (
    (-1640531535, 1181783497, 461845907),
    (668265263, -1028477387, 374761393),
    (-2048144777, 2146121005, -1424954155),
    (0, 1540483477, -862048943),
    (0, 0, 1013904223),
)
_WORD_RANGE = 2**31 - 1
_PAIR = (-1640531527, 1540483477)


@dataclass(frozen=True, slots=True, kw_only=True)
class BagSettings:
    """What shapes the program; another value is another program.

    Attributes:
        rows: size of the hash table, shared by words, pairs and character n-grams.
        dimensions: length of a row's vector.
        max_code_points: what lies beyond is not read, before and after normalising (which can make one code point
            eighteen), so that the cost of one ticket is bounded.
    """

    rows: int = 40_000
    dimensions: int = 64
    max_code_points: int = 4_000


class BagProgram(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """The TensorFlow module that is exported; see `program_spec` for what it says of itself."""

    def __init__(self, settings: BagSettings) -> None:
        super().__init__(name="bag")
        self._settings = settings
        self._tokenizer = tf_text.UnicodeScriptTokenizer()

    def normalise(self, text: Any) -> Any:
        """Valid, bounded, case-folded NFKC text with single spaces, a space at both ends."""
        valid = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace", replace_control_characters=False)
        folded = self._bounded(tf_text.case_fold_utf8(tf_text.normalize_utf8(self._bounded(valid), "NFKC")))
        spaced = tf.strings.regex_replace(folded, r"[\s\pZ\pC]+", " ")
        return tf.strings.join([" ", tf.strings.strip(spaced), " "])

    def _bounded(self, text: Any) -> Any:
        return tf.strings.substr(text, 0, self._settings.max_code_points, unit="UTF8_CHAR")

    def featurise(self, text: Any) -> dict[str, Any]:
        """Hash a batch of texts.

        Args:
            text: string [tickets].

        Returns:
            ids: int32 [features], rows of the table, those of one ticket side by side, repeats kept;
            splits: int32 [tickets + 1], where each ticket's features start and end.
        """
        normal = self.normalise(text)
        words, word_splits = self._words_and_pairs(normal)
        ngrams, ngram_splits = self._character_ngrams(normal)
        # Interleave ticket by ticket: a ticket's words move behind the n-grams of those before it, and vice versa.
        word_places = _range(words) + tf.repeat(ngram_splits[:-1], _lengths(word_splits))
        ngram_places = _range(ngrams) + tf.repeat(word_splits[1:], _lengths(ngram_splits))
        ids = tf.dynamic_stitch([word_places, ngram_places], [words, ngrams])
        return {"ids": tf.identity(ids, name="ids"), "splits": tf.identity(word_splits + ngram_splits, name="splits")}

    def _words_and_pairs(self, normal: Any) -> tuple[Any, Any]:
        words = self._tokenizer.tokenize(normal)
        hashes = tf.cast(tf.strings.to_hash_bucket_fast(words.flat_values, _WORD_RANGE), tf.int32) * 2
        following = tf.concat([hashes[1:], hashes[:1]], axis=0)
        pairs = hashes * _PAIR[0] + following * _PAIR[1]
        splits = tf.cast(words.row_splits, tf.int32)
        left = tf.repeat(splits[1:], _lengths(splits)) - _range(hashes)
        return self._kept(tf.stack([hashes, pairs], axis=1), left[:, None] >= tf.constant([[1, 2]]), splits)

    def _character_ngrams(self, normal: Any) -> tuple[Any, Any]:
        characters = tf.strings.unicode_decode(normal, "UTF-8")
        points = characters.flat_values
        splits = tf.cast(characters.row_splits, tf.int32)
        padded = tf.concat([points, tf.zeros([4], tf.int32)], axis=0)
        windows = tf.stack([padded[offset : offset + tf.size(points)] for offset in range(5)], axis=1)
        left = tf.repeat(splits[1:], _lengths(splits)) - _range(points)
        return self._kept(
            tf.matmul(windows, tf.constant(_CHARACTERS)), left[:, None] >= tf.constant([[3, 4, 5]]), splits
        )

    def _kept(self, hashes: Any, keep: Any, splits: Any) -> tuple[Any, Any]:
        """Rows of the table for 32-bit `hashes` [positions, kinds] where `keep`, and where each ticket's begin and end."""
        per_position = tf.reduce_sum(tf.cast(keep, tf.int32), axis=1)
        ends = tf.concat([tf.zeros([1], tf.int32), tf.cumsum(per_position)], axis=0)
        unsigned = tf.bitwise.bitwise_and(tf.cast(tf.boolean_mask(hashes, keep), tf.int64), 0xFFFF_FFFF)
        rows = tf.bitwise.right_shift(unsigned * self._settings.rows, 32)
        return tf.cast(rows, tf.int32), tf.gather(ends, splits)

    def score_f32(self, ids: Any, splits: Any, embedding: Any, weight: Any, kernel: Any, bias: Any) -> dict[str, Any]:
        """Score featurised tickets with one tenant's weights.

        Args:
            ids: int32 [features].
            splits: int32 [tickets + 1].
            embedding: float32 [rows, dimensions].
            weight: float32 [rows], inverse document frequencies; 0 for a row that training never saw.
            kernel: float32 [dimensions, macros].
            bias: float32 [macros].

        Returns:
            scores: float32 [tickets, macros], a probability for each macro.
        """
        ticket = tf.repeat(tf.range(tf.size(splits) - 1), splits[1:] - splits[:-1])
        tickets = tf.size(splits) - 1
        weights = tf.gather(weight, ids)
        summed = tf.math.unsorted_segment_sum(tf.gather(embedding, ids) * weights[:, None], ticket, tickets)
        squares = tf.math.unsorted_segment_sum(tf.square(weights), ticket, tickets)
        pooled = tf.math.divide_no_nan(summed, tf.sqrt(squares)[:, None])
        return {"scores": tf.nn.softmax(tf.matmul(pooled, kernel) + bias, name="scores")}


def program_spec(settings: BagSettings) -> ProgramSpec:
    """What the exported program says of itself."""
    features = {
        "ids": TensorSpec(dtype="int32", shape=("features",)),
        "splits": TensorSpec(dtype="int32", shape=("tickets+1",)),
    }
    weights = {
        "embedding": TensorSpec(dtype="float32", shape=(settings.rows, settings.dimensions)),
        "weight": TensorSpec(dtype="float32", shape=(settings.rows,)),
        "kernel": TensorSpec(dtype="float32", shape=(settings.dimensions, "macros")),
        "bias": TensorSpec(dtype="float32", shape=("macros",)),
    }
    return ProgramSpec(
        name="bag",
        scorer="pooled-linear",
        least_tensorflow="2.21",
        signatures={
            "featurise": Signature(inputs={"text": TensorSpec(dtype="string", shape=("tickets",))}, outputs=features),
            "score_f32": Signature(
                inputs={**features, **weights},
                outputs={"scores": TensorSpec(dtype="float32", shape=("tickets", "macros"))},
            ),
        },
    )


def export(folder: Path, settings: BagSettings) -> ProgramSpec:
    """Write the SavedModel, and return what belongs beside it in `program.json`."""
    spec = program_spec(settings)
    program = BagProgram(settings)
    signatures = {
        name: tf.function(getattr(program, name)).get_concrete_function(
            **{
                argument: tf.TensorSpec(
                    [size if isinstance(size, int) else None for size in tensor.shape], tensor.dtype, name=argument
                )
                for argument, tensor in signature.inputs.items()
            }
        )
        for name, signature in spec.signatures.items()
    }
    tf.saved_model.save(program, str(folder), signatures=signatures)
    return spec


def _range(tensor: Any) -> Any:
    return tf.range(tf.size(tensor))


def _lengths(splits: Any) -> Any:
    return splits[1:] - splits[:-1]
