"""A random encoder, small enough to be built within a test and written out in plain arithmetic beside it."""

from __future__ import annotations

import numpy as np

from training.minilm import Checkpoint
from training.programs.encoder import EncoderSettings

WORDS = "where is my parcel card lost the a refund please ##s ##ed ##ing money back ? . 返 金"
PIECES = [*WORDS.split()]
WIDTH, HEADS, LAYERS = 32, 4, 3
# Long tickets begin early and end soon, so that short texts reach both.
SETTINGS = EncoderSettings(max_tokens=24, short=8, spared=1, rows=512, dimensions=8)


def make_checkpoint(seed: int = 5) -> Checkpoint:
    """Weights drawn at random, in the layout of the real ones."""
    rng = np.random.default_rng(seed)
    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *PIECES)
    tensors = {}

    def draw(name: str, *shape: int, scale: float = 0.3, shift: float = 0.0) -> None:
        tensors[name] = (rng.standard_normal(shape) * scale + shift).astype(np.float32)

    def normalisation(name: str) -> None:
        draw(f"{name}.weight", WIDTH, shift=1.0)
        draw(f"{name}.bias", WIDTH)

    def dense(name: str, inputs: int, outputs: int) -> None:
        draw(f"{name}.weight", outputs, inputs)
        draw(f"{name}.bias", outputs)

    draw("embeddings.word_embeddings.weight", len(vocabulary), WIDTH)
    draw("embeddings.position_embeddings.weight", 64, WIDTH)
    draw("embeddings.token_type_embeddings.weight", 2, WIDTH)
    normalisation("embeddings.LayerNorm")
    for number in range(LAYERS):
        prefix = f"encoder.layer.{number}"
        for name in ("query", "key", "value"):
            dense(f"{prefix}.attention.self.{name}", WIDTH, WIDTH)
        dense(f"{prefix}.attention.output.dense", WIDTH, WIDTH)
        normalisation(f"{prefix}.attention.output.LayerNorm")
        dense(f"{prefix}.intermediate.dense", WIDTH, 4 * WIDTH)
        dense(f"{prefix}.output.dense", 4 * WIDTH, WIDTH)
        normalisation(f"{prefix}.output.LayerNorm")
    return Checkpoint(vocabulary=vocabulary, heads=HEADS, tensors=tensors)
