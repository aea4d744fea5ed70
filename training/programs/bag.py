"""The program `bag`: a pretrained prior over word pieces beside hashed words, word pairs and character 4-grams.

Text in, features out, and scoring functions that take a tenant's weights as arguments. The prior (`training.prior`) is
one vector a word piece, summed over a ticket and made of unit length: what English words mean, the same for every
tenant. The hashed n-grams are each tenant's own words. Hashing into a fixed table is the feature hashing of Weinberger
et al. (2009, arXiv:0902.2206); pooled n-gram vectors under a linear classifier are fastText's model (Joulin et al.
2016, arXiv:1607.01759), here with inverse document frequencies as weights.

The prior's rows are whole numbers, so a sum of them is exact in any order, and with it a ticket's vector the same
whatever it was batched with.

After case folding all is arithmetic over one flat vector of code points, because an operation costs less than a
microsecond and a nanosecond an element when it is elementwise, and seven nanoseconds an element when it looks something up
(gather, cumsum, boolean_mask). So a hash is a linear recurrence, h[i] = value[i] + factor[i] * h[i-1] in wrapping 32-bit
integers, worked out for all positions at once in log2(reach) steps (Hillis and Steele 1986). The factors say what a hash
is of:

- in a word, an odd number: a polynomial of its code points;
- at the start of a word, that number times 2**20: what came before moves up twenty bits, so the lowest twenty are of this
  word alone, the highest twelve of the word before it, and nothing is left of earlier ones;
- between words, 1: the hash stays what it was;
- at the start of a ticket, 0: nothing of the ticket before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from registry.errors import InvalidInput
from registry.model.program import ProgramSpec, Signature, TensorSpec
from registry.model.text_operations import tensorflow_text as tf_text
from training.prior.table import PriorTable, read_table
from training.programs.saving import save_module

# What a code point is: bits, none for a sign that is visible and part of no word.
LETTER, IDEOGRAPH, SPACE = 1, 2, 4
_POINT_BITS = 21
# Odd random multipliers: of the polynomials, and to spread a hash over its high bits, which pick the row (multiply-shift
# hashing, Dietzfelbinger et al. 1997).
_WORD_FACTOR, _NGRAM_FACTOR = 0x2545F491, -0x61C88647
_WORD_SPREAD, _PAIR_SPREAD, _NGRAM_SPREAD = 0x27D4EB2F, 0x5BD1E995, -0x7A143589
# How many of a hash's bits are the last word's; the others are of the word before it.
_WORD_BITS = 20
# A window of four code points; words and pairs are read to 64.
_NGRAM_STEPS, _WORD_STEPS = 2, 6
# Code points above are ideographs but for unassigned and private ones: the last entry stands for all of them.
_KNOWN_POINTS = 0x20000


@dataclass(frozen=True, slots=True, kw_only=True)
class BagSettings:
    """What shapes the program; another value is another program.

    Attributes:
        rows: size of the hash table, shared by words, pairs and character n-grams; row 0 means "no feature". At most
            65,536.
        dimensions: length of a row's vector.
        max_code_points: what lies beyond is not read, so that the cost of one ticket is bounded; before folding (which
            can make one code point eighteen) the bound is four bytes for each.
    """

    rows: int = 40_000
    dimensions: int = 64
    max_code_points: int = 4_000

    def __post_init__(self) -> None:
        """Raises InvalidInput where a row's number does not fit into 16 bits."""
        if not 3 <= self.rows <= 2**16:
            raise InvalidInput(f"{self.rows} rows", remedy="The program bag can have 3 to 65,536.")


class NgramHashing(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """Texts to rows of a hash table: words, word pairs and character 4-grams."""

    def __init__(self, settings: BagSettings, name: str) -> None:
        super().__init__(name=name)
        self._settings = settings
        self._kinds = kinds_of_code_points()

    def hashed(self, text: Any) -> dict[str, Any]:
        """Hash a batch of texts.

        Args:
            text: string [tickets], from `bounded`.

        Returns:
            ids: uint16 [features], rows of the table, those of one ticket side by side, repeats kept. Two for each code
                point: of the 4-gram that ends there, and of a word or a pair, 0 where none ends;
            splits: int32 [tickets + 1], where each ticket's features start and end.
        """
        points, kinds, splits = self._normal(text)
        same_ticket = _zeros_at(splits[:-1], points)
        ngrams = self._rows(_recurrence(points, same_ticket * _NGRAM_FACTOR, _NGRAM_STEPS) * _NGRAM_SPREAD)
        words = self._words_and_pairs(points, kinds, same_ticket)
        # Two numbers below 65,536 in one of 32 bits, taken apart again: the cheapest way to lay them side by side.
        packed = tf.bitwise.bitwise_or(ngrams, tf.bitwise.left_shift(words, 16))
        ids = tf.reshape(tf.bitcast(packed, tf.uint16), [-1])
        return {"ids": tf.identity(ids, name="ids"), "splits": tf.identity(splits * 2, name="splits")}

    def bounded(self, text: Any) -> Any:
        """Case-folded NFKC, cut off at the bound."""
        bound = self._settings.max_code_points
        return tf.strings.substr(
            tf_text.case_fold_utf8(tf.strings.substr(text, 0, 4 * bound)), 0, bound, unit="UTF8_CHAR"
        )

    def _normal(self, text: Any) -> tuple[Any, Any, Any]:
        """Bounded text with single spaces, one at both ends of each ticket.

        Returns:
            Code points, 0 for a space; what they are; where each ticket starts and ends.
        """
        spaced = tf.strings.join([" ", text, " "])
        decoded = tf.raw_ops.UnicodeDecode(
            input=spaced, input_encoding="UTF-8", errors="replace", replace_control_characters=False, Tsplits=tf.int32
        )
        points, splits = decoded.char_values, decoded.row_splits
        kinds = tf.cast(tf.gather(self._kinds, tf.minimum(points, _KNOWN_POINTS - 1)), tf.int32)
        # Of spaces side by side the last stays.
        spaces = tf.bitwise.right_shift(kinds, 2)
        dropped = spaces * _next(spaces) * _zeros_at(splits[1:] - 1, points)
        kept = tf.reshape(tf.where(tf.equal(dropped, 0)), [-1])
        # One look-up for both.
        packed = tf.bitwise.bitwise_or(points * (1 - spaces), tf.bitwise.left_shift(kinds, _POINT_BITS))
        packed = tf.gather(packed, kept)
        splits = tf.raw_ops.LowerBound(
            sorted_inputs=kept[None], values=tf.cast(splits, tf.int64)[None], out_type=tf.int32
        )[0]
        mask = tf.constant((1 << _POINT_BITS) - 1)
        return tf.bitwise.bitwise_and(packed, mask), tf.bitwise.right_shift(packed, _POINT_BITS), splits

    def _words_and_pairs(self, points: Any, kinds: Any, same_ticket: Any) -> Any:
        """Rows: at the last letter of a word the word's, right after it that of the word and the one before; else 0.

        An ideograph is a word, and has its pair, where it stands.
        """
        letters = tf.bitwise.bitwise_and(kinds, LETTER)
        ideographs = tf.bitwise.bitwise_and(tf.bitwise.right_shift(kinds, 1), 1)
        in_word = letters + ideographs
        starts = letters * (1 - _previous(letters)) + ideographs
        factors = tf.bitwise.left_shift(1 + in_word * (_WORD_FACTOR - 1), starts * _WORD_BITS) * same_ticket
        hashes = _recurrence(points * in_word, factors, _WORD_STEPS)
        # An even multiplier pushes the bits of the word before out of the number.
        pair, word = _PAIR_SPREAD, _wrapped(_WORD_SPREAD << (32 - _WORD_BITS))
        rows = self._rows(hashes * (pair + letters * _wrapped(word - pair)))
        ends = letters * (1 - _next(letters))
        return rows * tf.bitwise.bitwise_or(ends + ideographs, _previous(ends))

    def _rows(self, hashes: Any) -> Any:
        """A row for each 32-bit hash, never row 0, by its highest 24 bits: what a float32 holds."""
        rows = self._settings.rows
        return tf.cast(tf.cast(hashes, tf.float32) * ((rows - 2) / 2**32) + rows / 2, tf.int32)


class BagProgram(NgramHashing):
    """The TensorFlow module that is exported; see `program_spec` for what it says of itself."""

    def __init__(self, settings: BagSettings, prior: PriorTable) -> None:
        super().__init__(settings, "bag")
        self._pieces = tf.constant(prior.rows)
        self._normalizer = tf_text.FastBertNormalizer(lower_case_nfd_strip_accents=True)
        self._tokenizer = tf_text.FastWordpieceTokenizer(list(prior.vocabulary), support_detokenization=False)

    def featurise(self, text: Any) -> dict[str, Any]:
        """Hash a batch of texts, and look up what the prior knows of them.

        Args:
            text: string [tickets].

        Returns:
            ids, splits: see `NgramHashing.hashed`;
            prior: float32 [tickets, prior dimensions], of length 1, or 0 for a ticket that the prior knows nothing of.
        """
        text = self.bounded(text)
        return {**self.hashed(text), "prior": tf.identity(self._prior(text), name="prior")}

    def _prior(self, text: Any) -> Any:
        """The sum of the vectors of a ticket's word pieces, of unit length."""
        pieces = self._tokenizer.tokenize(self._normalizer.normalize(text))
        vectors = tf.cast(tf.gather(self._pieces, pieces.values), tf.float32)
        summed = tf.math.segment_sum(vectors, pieces.value_rowids())
        # A segment sum ends with the last ticket that has a piece.
        summed = tf.pad(summed, [[0, tf.size(text) - tf.shape(summed)[0]], [0, 0]])
        squares = tf.reduce_sum(tf.square(tf.cast(summed, tf.float64)), axis=1, keepdims=True)
        return tf.math.divide_no_nan(summed, tf.cast(tf.sqrt(squares), tf.float32))

    def score_f32(
        self,
        ids: Any,
        splits: Any,
        prior: Any,
        embedding: Any,
        weight: Any,
        kernel: Any,
        prior_kernel: Any,
        bias: Any,
    ) -> dict[str, Any]:
        """Score featurised tickets with one tenant's weights.

        Args:
            ids: uint16 [features].
            splits: int32 [tickets + 1].
            prior: float32 [tickets, prior dimensions].
            embedding: float32 [rows, dimensions].
            weight: float32 [rows], inverse document frequencies; 0 for row 0 and for a row that training never saw.
            kernel: float32 [dimensions, macros].
            prior_kernel: float32 [prior dimensions, macros].
            bias: float32 [macros].

        Returns:
            scores: float32 [tickets, macros], a probability for each macro; the same for each where neither the tenant
            nor the prior knows a word of the ticket.
        """
        ids = tf.cast(ids, tf.int32)
        ticket = tf.repeat(tf.range(tf.size(splits) - 1), splits[1:] - splits[:-1])
        tickets = tf.size(splits) - 1
        weights = tf.gather(weight, ids)
        vectors = tf.cast(tf.gather(embedding, ids), tf.float32) * weights[:, None]
        summed = tf.math.unsorted_segment_sum(vectors, ticket, tickets)
        squares = tf.math.unsorted_segment_sum(tf.square(weights), ticket, tickets)
        pooled = tf.math.divide_no_nan(summed, tf.sqrt(squares)[:, None])
        # What training took to be usual must not answer a ticket of which nothing is known.
        known = tf.cast((squares > 0) | tf.reduce_any(prior != 0, axis=1), tf.float32)[:, None]
        logits = tf.matmul(pooled, kernel) + tf.matmul(prior, prior_kernel) + bias * known
        return {"scores": tf.nn.softmax(logits, name="scores")}

    # Like `score_f32`, of an embedding in whole numbers (int8), whose scale is in the kernel.
    score_i8 = score_f32


def program_spec(settings: BagSettings, prior_dimensions: int) -> ProgramSpec:
    """What the exported program says of itself."""
    features = {
        "ids": TensorSpec(dtype="uint16", shape=("features",)),
        "splits": TensorSpec(dtype="int32", shape=("tickets+1",)),
        "prior": TensorSpec(dtype="float32", shape=("tickets", prior_dimensions)),
    }
    weights = {
        "embedding": TensorSpec(dtype="float32", shape=(settings.rows, settings.dimensions)),
        "weight": TensorSpec(dtype="float32", shape=(settings.rows,)),
        "kernel": TensorSpec(dtype="float32", shape=(settings.dimensions, "macros")),
        "prior_kernel": TensorSpec(dtype="float32", shape=(prior_dimensions, "macros")),
        "bias": TensorSpec(dtype="float32", shape=("macros",)),
    }
    in_whole_numbers = {"embedding": TensorSpec(dtype="int8", shape=(settings.rows, settings.dimensions))}
    scores = {"scores": TensorSpec(dtype="float32", shape=("tickets", "macros"))}
    return ProgramSpec(
        name="bag",
        scorer="pooled-linear",
        least_tensorflow="2.21",
        signatures={
            "featurise": Signature(inputs={"text": TensorSpec(dtype="string", shape=("tickets",))}, outputs=features),
            "score_f32": Signature(inputs={**features, **weights}, outputs=scores),
            "score_i8": Signature(inputs={**features, **weights, **in_whole_numbers}, outputs=scores),
        },
    )


def export(folder: Path, settings: BagSettings) -> ProgramSpec:
    """Write the SavedModel, and return what belongs beside it in `program.json`."""
    prior = read_table()
    spec = program_spec(settings, prior.rows.shape[1])
    save_module(BagProgram(settings, prior), folder, spec)
    return spec


def kinds_of_code_points() -> Any:
    """int8 [131,072]: LETTER, IDEOGRAPH, SPACE or 0 for each code point. Letters include marks and numbers.

    Made with TensorFlow's own regular expressions, whose Unicode tables come with its version: Python's differ from one
    Python to the next, and the program's digest with them.
    """
    points = np.array([point for point in range(_KNOWN_POINTS) if not 0xD800 <= point < 0xE000])
    characters = tf.constant([chr(point).encode() for point in points])
    kinds = np.zeros(_KNOWN_POINTS, np.int8)
    # The mark that lengthens a katakana vowel belongs to several scripts.
    ideograph = r"[\p{Han}\p{Hiragana}\p{Katakana}\x{30FC}]"
    for kind, pattern in ((LETTER, r"[\pL\pM\pN]"), (IDEOGRAPH, ideograph), (SPACE, r"[\s\pZ\pC]")):
        kinds[points[tf.strings.regex_full_match(characters, pattern).numpy()]] = kind
    kinds[-1] = IDEOGRAPH
    return tf.constant(kinds)


def _recurrence(values: Any, factors: Any, steps: int) -> Any:
    """h[i] = values[i] + factors[i] * h[i-1], reaching back over 2**steps positions; the first factor is 0."""
    hashes, products = values, factors
    for step in range(steps):
        # Going around the end does no harm: a product over any start of a ticket, hence over the first, is 0.
        hashes += products * tf.roll(hashes, 2**step, 0)
        if step < steps - 1:
            products *= tf.roll(products, 2**step, 0)
    return hashes


def _previous(tensor: Any) -> Any:
    """What stands one position before. Around the end: every ticket ends, and the first begins, with a space."""
    return tf.roll(tensor, 1, 0)


def _next(tensor: Any) -> Any:
    return tf.roll(tensor, -1, 0)


def _zeros_at(places: Any, like: Any) -> Any:
    return tf.tensor_scatter_nd_update(tf.ones_like(like), places[:, None], tf.zeros_like(places))


def _wrapped(number: int) -> int:
    """As a signed number of 32 bits."""
    return (number + 2**31) % 2**32 - 2**31
