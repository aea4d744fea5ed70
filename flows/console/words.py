"""The playground's text with the words behind a suggestion marked. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of the text. `mark` is "for", "against" or empty; `weight` from 1 to 3, how much."""

    text: str
    mark: str = ""
    weight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word, what the macro's log-odds lose without it, and that beside the largest, from -1 to 1."""

    text: str
    contribution: float
    share: float


def words_of(macro: Mapping[str, Any]) -> list[Word]:
    """The explanation of a macro as a server gives it."""
    told = [(str(one["text"]), float(one["contribution"])) for one in macro.get("explanation") or ()]
    most = max((abs(value) for _, value in told), default=0) or 1
    return [Word(text=text, contribution=value, share=value / most) for text, value in told]


def marked(text: str, words: Sequence[Word]) -> list[Piece]:
    """The text in pieces, words marked wherever they stand by themselves; a longer one before one that it contains."""
    known = {word.text.lower(): word for word in words if word.text.strip()}
    if not known or not text:
        return [Piece(text=text)] if text else []
    longest = sorted(known, key=len, reverse=True)
    pattern = re.compile("|".join(_alone(word) for word in longest), re.IGNORECASE)
    pieces, last = [], 0
    for found in pattern.finditer(text):
        word = known.get(re.sub(r"\s+", " ", found[0].lower()))
        if word is None:
            continue
        if found.start() > last:
            pieces.append(Piece(text=text[last : found.start()]))
        weight = 1 + min(2, int(abs(word.share) * 3))
        pieces.append(Piece(text=found[0], mark="for" if word.contribution >= 0 else "against", weight=weight))
        last = found.end()
    if last < len(text):
        pieces.append(Piece(text=text[last:]))
    return pieces


def _alone(word: str) -> str:
    """A pattern of a word that is no part of a longer one; in scripts without spaces it always is."""
    inner = r"\s+".join(re.escape(part) for part in word.split())
    before = r"(?<!\w)" if word[0].isascii() and word[0].isalnum() else ""
    after = r"(?!\w)" if word[-1].isascii() and word[-1].isalnum() else ""
    return f"{before}{inner}{after}"
