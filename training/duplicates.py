"""Near-duplicates: tickets that say the same but for a number, a greeting or a word.

Left on both sides of a split they have a model judged on what it was taught. Pairs are found by MinHash (Broder 1997)
over words and pairs of words in bands (locality-sensitive hashing), then compared for true: no row is grouped by chance.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

# From this share of common words and pairs on (Jaccard) two texts are near-duplicates: one word in ten may differ.
LEAST_COMMON = 0.8
_BANDS, _BAND_ROWS = 8, 4
# Words, and each sign of the scripts that put no spaces between words.
_WORD = re.compile(
    r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)
# Orders, invoices, telephones: another number is not another question.
_NUMBER = re.compile(r"\d{4,}")


def near_duplicates(texts: Sequence[str]) -> NDArray[np.int64]:
    """Group texts.

    Returns:
        int64 [texts]: for each text the position of the first one of its group; its own where it has no duplicate.
    """
    words = [_words(text) for text in texts]
    first = np.arange(len(texts))
    seen: dict[tuple[str, ...], int] = {}
    for position, key in enumerate(words):
        first[position] = seen.setdefault(key, position)
    different = [position for position in range(len(texts)) if first[position] == position and words[position]]
    shingles = {position: _shingles(words[position]) for position in different}
    for one, other in _candidates(different, shingles):
        low, high = sorted((_root(first, one), _root(first, other)))
        if low != high and _common(shingles[one], shingles[other]) >= LEAST_COMMON:
            first[high] = low
    return np.array([_root(first, position) for position in range(len(texts))], np.int64)


def _words(text: str) -> tuple[str, ...]:
    folded = _NUMBER.sub("0", unicodedata.normalize("NFKC", text).casefold())
    return tuple(_WORD.findall(folded))


def _shingles(words: tuple[str, ...]) -> NDArray[np.uint64]:
    """Hashes of a text's words and pairs of words, each once."""
    one = np.array([zlib.crc32(word.encode("utf-8", "replace")) for word in words], np.uint64)
    return np.unique(np.concatenate([one, (one[:-1] << np.uint64(32)) | one[1:]]))


def _candidates(positions: list[int], shingles: dict[int, NDArray[np.uint64]]) -> Iterator[tuple[int, int]]:
    """Pairs that agree in all minima of a band; of each bucket, everyone with the first."""
    if not positions:
        return
    flat = np.concatenate([shingles[position] for position in positions])
    starts = np.cumsum([0, *(len(shingles[position]) for position in positions[:-1])])
    rng = np.random.default_rng(0)
    for _ in range(_BANDS):
        minima = [
            np.minimum.reduceat((flat * factor + shift) >> np.uint64(32), starts)
            for factor, shift in rng.integers(0, 2**63, (_BAND_ROWS, 2), np.uint64) * np.uint64(2) + np.uint64(1)
        ]
        buckets: dict[bytes, int] = {}
        for row, key in enumerate(np.stack(minima, axis=1)):
            found = buckets.setdefault(key.tobytes(), row)
            if found != row:
                yield positions[found], positions[row]


def _common(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def _root(first: NDArray[np.int64], position: int) -> int:
    """The first text of a group, with the path to it shortened."""
    while first[position] != position:
        first[position] = first[first[position]]
        position = int(first[position])
    return position
