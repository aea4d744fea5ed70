"""The program `encoder`: a pretrained sentence encoder and hashed n-grams, scored by one linear layer.

Text in, features out: the means of a BERT encoder's last two layers, and the rows of the n-gram table as the program
`bag` hashes them, for a tenant's own words. The encoder is shared by every tenant; a tenant's weights are a small table
of n-grams in 8 bits and a linear layer over both.

The layers run over one flat list of the batch's tokens, without padding; only attention, a thirtieth of the arithmetic,
lays them out ticket by ticket. Long tickets are made short: function words and punctuation, nearly half of their tokens,
are passed over, and what is long all the same is spared one layer of the pretrained six. Neither costs anything that
could be measured on long texts; on short ones, which are read whole, the layer would cost up to 1.5 points
(docs/programs.md). Dropping layers of a trained encoder: Sajjad et al. 2023 (arXiv:2004.03844).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from registry.model.program import ProgramSpec, Signature, TensorSpec
from registry.model.text_operations import tensorflow_text as tf_text
from training.minilm import NOTICE, Checkpoint
from training.programs.bag import BagSettings, NgramHashing
from training.programs.saving import save_module

_EPSILON = 1e-12  # of BERT's layer normalisation
_FAR = -1e9  # what softmax makes nothing of
# What a long ticket says as well without. Not: negations, questions, and what tells who pays whom.
FUNCTION_WORDS = frozenset(
    "the a an of in on at for and or but is are was were be been am i you he she it we they my your his her its our their "
    "me him them this that these those with as by so if then than there here have has had do does did will would can could "
    "should may might just very also too hi hello dear hey please thanks thank regards sincerely "
    ", . ; : ! ' \" - ( ) [ ] / & * s m re ve ll d".split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """What shapes the program beside the encoder's weights; another value is another program.

    Attributes:
        max_code_points: what lies beyond is not read.
        max_tokens: word pieces read of a ticket, the two that BERT puts around it included.
        short: a ticket of so many tokens or fewer is read whole, and by all layers.
        spared: the layer of the checkpoint that longer ones are spared, counted from 0.
        rows: size of the n-gram table.
        dimensions: length of a row's vector.
    """

    max_code_points: int = 4_000
    max_tokens: int = 128
    short: int = 32
    spared: int = 2
    rows: int = 12_288
    dimensions: int = 32


class EncoderProgram(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """The TensorFlow module that is exported; see `program_spec` for what it says of itself."""

    def __init__(self, checkpoint: Checkpoint, settings: EncoderSettings) -> None:
        super().__init__(name="encoder")
        self._settings = settings
        self._ngrams = NgramHashing(BagSettings(rows=settings.rows, max_code_points=settings.max_code_points), "ngrams")
        self._normalizer = tf_text.FastBertNormalizer(lower_case_nfd_strip_accents=True)
        self._tokenizer = tf_text.FastWordpieceTokenizer(list(checkpoint.vocabulary), token_out_type=tf.int32)
        self._start, self._end = (checkpoint.vocabulary.index(token) for token in ("[CLS]", "[SEP]"))
        self._passed_over = tf.constant([piece in FUNCTION_WORDS for piece in checkpoint.vocabulary])
        self._heads = checkpoint.heads
        tensors = checkpoint.tensors
        # Every token is of the first segment: that one's embedding is in the word's.
        words = tensors["embeddings.word_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
        self._words = tf.constant(words)
        self._places = tf.constant(tensors["embeddings.position_embeddings.weight"][: settings.max_tokens])
        self._normal = _Normalisation(checkpoint, "embeddings.LayerNorm")
        self._layers = [_Layer(checkpoint, number) for number in range(checkpoint.layers)]

    def featurise(self, text: Any) -> dict[str, Any]:
        """Encode a batch of texts.

        Args:
            text: string [tickets].

        Returns:
            ids, splits: the n-grams, as the program `bag` gives them.
            sentence: float32 [tickets, 2 * width], the means over a ticket's tokens after the last and after the last
                but one layer, each of unit length.
        """
        ngrams = self._ngrams.hashed(self._ngrams.bounded(text))
        return {**ngrams, "sentence": tf.identity(self._sentence(text), name="sentence")}

    def _sentence(self, text: Any) -> Any:
        ids, splits = self._tokens(text)
        batch = _Layout(splits)
        tokens = self._normal(tf.gather(self._words, ids) + tf.gather(self._places, batch.place))
        means = []
        for number, layer in enumerate(self._layers):
            if number == self._settings.spared:
                tokens = self._of_short_tickets(layer, tokens, batch)
            else:
                tokens = layer(tokens, batch, self._heads)
            means.append(batch.mean(tokens))
        return tf.concat([tf.math.l2_normalize(mean, axis=1) for mean in (means[-1], means[-2])], axis=1)

    def _of_short_tickets(self, layer: _Layer, tokens: Any, batch: _Layout) -> Any:
        """The tokens after a layer where their ticket is short, else as they are."""
        short = batch.lengths <= self._settings.short
        lengths = tf.boolean_mask(batch.lengths, short)
        places = tf.where(tf.gather(short, batch.ticket))
        of_these = layer(tf.gather_nd(tokens, places), _Layout(_splits_of(lengths)), self._heads)
        return tf.tensor_scatter_nd_update(tokens, places, of_these)

    def _tokens(self, text: Any) -> tuple[Any, Any]:
        """Word pieces, BERT's own two around each ticket, and where each ticket starts and ends."""
        bound = self._settings.max_code_points
        valid = tf.strings.unicode_transcode(tf.strings.substr(text, 0, 4 * bound), "UTF-8", "UTF-8", errors="replace")
        read = tf.strings.substr(valid, 0, bound, unit="UTF8_CHAR")
        pieces = self._without_function_words(self._tokenizer.tokenize(self._normalizer.normalize(read)))
        pieces = pieces[:, : self._settings.max_tokens - 2]
        ends = tf.ones([tf.size(text), 1], tf.int32)
        framed = tf.concat([ends * self._start, pieces, ends * self._end], axis=1)
        return framed.values, tf.cast(framed.row_splits, tf.int32)

    def _without_function_words(self, pieces: Any) -> Any:
        """Word pieces [tickets, None] without function words, from the start of a ticket until what is left is short."""
        lengths = pieces.row_lengths()
        passed = tf.gather(self._passed_over, pieces.values)
        so_far = tf.cumsum(tf.cast(passed, tf.int64))
        before = tf.gather(tf.concat([[tf.constant(0, tf.int64)], so_far], axis=0), pieces.row_starts())
        surplus = lengths - (self._settings.short - 2)
        left_out = passed & (so_far <= tf.repeat(before + surplus, lengths))
        return tf.ragged.boolean_mask(pieces, pieces.with_values(~left_out))

    def score_f32(
        self, ids: Any, splits: Any, sentence: Any, embedding: Any, weight: Any, kernel: Any, bias: Any
    ) -> dict[str, Any]:
        """Score featurised tickets with one tenant's weights.

        Args:
            ids, splits, sentence: of `featurise`.
            embedding: int8 [rows, dimensions]; what a step of it stands for is in the kernel.
            weight: float32 [rows], inverse document frequencies; 0 for row 0 and for a row that training never saw.
            kernel: float32 [2 * width + dimensions, macros], over the sentence and the pooled n-grams.
            bias: float32 [macros].

        Returns:
            scores: float32 [tickets, macros], a probability for each macro.
        """
        ids = tf.cast(ids, tf.int32)
        tickets = tf.size(splits) - 1
        ticket = tf.repeat(tf.range(tickets), splits[1:] - splits[:-1])
        weights = tf.gather(weight, ids)
        vectors = tf.cast(tf.gather(embedding, ids), tf.float32) * weights[:, None]
        squares = tf.math.unsorted_segment_sum(tf.square(weights), ticket, tickets)
        summed = tf.math.unsorted_segment_sum(vectors, ticket, tickets)
        pooled = tf.math.divide_no_nan(summed, tf.sqrt(squares)[:, None])
        logits = tf.matmul(tf.concat([sentence, pooled], axis=1), kernel) + bias
        return {"scores": tf.nn.softmax(logits, name="scores")}


class _Layout:
    """Where the tokens of a flat batch belong.

    Attributes:
        lengths: int32 [tickets], tokens of each ticket, at least one.
        ticket: int32 [tokens], whose each is.
        place: int32 [tokens], where in it.
        padded: int32 [tickets, longest], which token lies there when tickets are laid side by side, any where none does.
        present: bool [tickets, longest], whether one does.
    """

    def __init__(self, splits: Any) -> None:
        self.lengths = splits[1:] - splits[:-1]
        tickets = tf.size(self.lengths)
        longest = tf.reduce_max(tf.concat([self.lengths, [0]], axis=0))
        self.ticket = tf.repeat(tf.range(tickets), self.lengths)
        self.place = tf.range(splits[-1]) - tf.gather(splits, self.ticket)
        self.padded = tf.minimum(splits[:-1, None] + tf.range(longest), splits[-1] - 1)
        self.present = tf.sequence_mask(self.lengths, longest)
        self.shape = tickets, longest
        self.flat = self.ticket * longest + self.place

    def mean(self, tokens: Any) -> Any:
        """float32 [tickets, width], the mean of each ticket's tokens."""
        # Unsorted, because that one takes how many there are: a batch may be empty.
        summed = tf.math.unsorted_segment_sum(tokens, self.ticket, self.shape[0])
        return summed / tf.cast(self.lengths, tf.float32)[:, None]


class _Normalisation:
    """Layer normalisation (Ba et al. 2016, arXiv:1607.06450)."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self._scale = tf.constant(checkpoint.tensors[f"{name}.weight"])
        self._shift = tf.constant(checkpoint.tensors[f"{name}.bias"])

    def __call__(self, tokens: Any) -> Any:
        centred = tokens - tf.reduce_mean(tokens, axis=1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=1, keepdims=True)
        return centred * tf.math.rsqrt(variance + _EPSILON) * self._scale + self._shift


class _Layer:
    """One layer of BERT (Devlin et al. 2019, arXiv:1810.04805): attention, then two dense layers, each with a shortcut."""

    def __init__(self, checkpoint: Checkpoint, number: int) -> None:
        prefix, tensors = f"encoder.layer.{number}", checkpoint.tensors

        def dense(name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            return tensors[f"{prefix}.{name}.weight"].T, tensors[f"{prefix}.{name}.bias"]

        parts = [dense(f"attention.self.{name}") for name in ("query", "key", "value")]
        self._size = parts[0][0].shape[1] // checkpoint.heads
        # One product for all three, and the scale of attention in the queries' weights.
        scale = np.float32(self._size**-0.5)
        parts[0] = parts[0][0] * scale, parts[0][1] * scale
        self._attention = _constants(*(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)))
        self._attended = _constants(*dense("attention.output.dense"))
        self._wide = _constants(*dense("intermediate.dense"))
        self._narrow = _constants(*dense("output.dense"))
        self._normal = _Normalisation(checkpoint, f"{prefix}.attention.output.LayerNorm")
        self._last_normal = _Normalisation(checkpoint, f"{prefix}.output.LayerNorm")

    def __call__(self, tokens: Any, batch: _Layout, heads: int) -> Any:
        """float32 [tokens, width] in and out."""
        tickets, longest = batch.shape
        laid = tf.reshape(tf.gather(_dense(tokens, self._attention), batch.padded), [tickets, longest, 3, heads, -1])
        query, key, value = (tf.transpose(laid[:, :, part], [0, 2, 1, 3]) for part in range(3))
        away = tf.where(batch.present, 0.0, _FAR)[:, None, None, :]
        attention = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) + away)
        mixed = tf.transpose(tf.matmul(attention, value), [0, 2, 1, 3])
        mixed = tf.gather(tf.reshape(mixed, [-1, heads * self._size]), batch.flat)
        tokens = self._normal(tokens + _dense(mixed, self._attended))
        return self._last_normal(tokens + _dense(_gelu(_dense(tokens, self._wide)), self._narrow))


def _splits_of(lengths: Any) -> Any:
    return tf.concat([[0], tf.cumsum(lengths)], axis=0)


def _gelu(values: Any) -> Any:
    """Gaussian error linear units (Hendrycks and Gimpel 2016, arXiv:1606.08415), a fifth quicker than TensorFlow's own."""
    return 0.5 * values * (1 + tf.math.erf(values * np.float32(0.5**0.5)))


def _dense(values: Any, weights: tuple[Any, Any]) -> Any:
    return tf.nn.bias_add(tf.matmul(values, weights[0]), weights[1])


def _constants(*arrays: NDArray[np.float32]) -> tuple[Any, ...]:
    return tuple(tf.constant(np.ascontiguousarray(array)) for array in arrays)


def program_spec(checkpoint: Checkpoint, settings: EncoderSettings) -> ProgramSpec:
    """What the exported program says of itself."""
    width = 2 * checkpoint.tensors["embeddings.LayerNorm.bias"].shape[0]
    features = {
        "ids": TensorSpec(dtype="uint16", shape=("features",)),
        "splits": TensorSpec(dtype="int32", shape=("tickets+1",)),
        "sentence": TensorSpec(dtype="float32", shape=("tickets", width)),
    }
    weights = {
        "embedding": TensorSpec(dtype="int8", shape=(settings.rows, settings.dimensions)),
        "weight": TensorSpec(dtype="float32", shape=(settings.rows,)),
        "kernel": TensorSpec(dtype="float32", shape=(width + settings.dimensions, "macros")),
        "bias": TensorSpec(dtype="float32", shape=("macros",)),
    }
    return ProgramSpec(
        name="encoder",
        scorer="sentence-and-pooled-linear",
        least_tensorflow="2.21",
        signatures={
            "featurise": Signature(inputs={"text": TensorSpec(dtype="string", shape=("tickets",))}, outputs=features),
            "score_f32": Signature(
                inputs={**features, **weights},
                outputs={"scores": TensorSpec(dtype="float32", shape=("tickets", "macros"))},
            ),
        },
    )


def export(folder: Path, checkpoint: Checkpoint, settings: EncoderSettings) -> ProgramSpec:
    """Write the SavedModel and the licence's notice, and return what belongs beside them in `program.json`."""
    spec = program_spec(checkpoint, settings)
    save_module(EncoderProgram(checkpoint, settings), folder, spec)
    (folder / "notice.txt").write_text(NOTICE)
    return spec
