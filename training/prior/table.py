"""The prior at rest: a vector a word piece, in whole numbers, and the vocabulary that they are the pieces of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from registry.errors import ProgramCorrupt
from registry.model.tensors import map_tensors, write_tensors

SHIPPED = Path(__file__).with_name("data")
_TABLE, _VOCABULARY = "pieces.safetensors", "vocabulary.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorTable:
    """Vectors of word pieces.

    Attributes:
        vocabulary: the pieces, as BERT writes them; `[UNK]`, which stands for a word that cannot be cut, among them.
        rows: int8 [pieces, dimensions]. How long a row is says how much its piece weighs in a sum.
    """

    vocabulary: tuple[str, ...] = field(repr=False)
    rows: NDArray[np.int8] = field(repr=False)


def quantised(vocabulary: tuple[str, ...], vectors: NDArray[np.float32], *, silent: frozenset[str]) -> PriorTable:
    """A table of float vectors, on one scale: only directions matter of a sum.

    Args:
        silent: pieces that say nothing; their rows are 0.
    """
    # The few largest numbers are cut off, for the sake of all others' precision.
    scale = 127 / np.quantile(np.abs(vectors), 0.9999)
    rows = np.clip(np.rint(vectors * scale), -127, 127).astype(np.int8)
    rows[[place for place, piece in enumerate(vocabulary) if piece in silent]] = 0
    return PriorTable(vocabulary=vocabulary, rows=rows)


def write_table(folder: Path, table: PriorTable) -> None:
    """Write a table to `folder`, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / _TABLE, {"pieces": table.rows})
    (folder / _VOCABULARY).write_text("".join(f"{piece}\n" for piece in table.vocabulary), encoding="utf-8")


def read_table(folder: Path = SHIPPED) -> PriorTable:
    """The table in `folder`. Raises BundleCorrupt (no tensor file) or ProgramCorrupt: it is not a prior."""
    rows = map_tensors(folder / _TABLE).get("pieces")
    vocabulary = tuple((folder / _VOCABULARY).read_text(encoding="utf-8").split("\n")[:-1])
    if rows is None or rows.dtype != np.int8 or rows.shape[:1] != (len(vocabulary),):
        raise ProgramCorrupt(f"{folder} holds no prior of {len(vocabulary)} pieces")
    return PriorTable(vocabulary=vocabulary, rows=rows)
