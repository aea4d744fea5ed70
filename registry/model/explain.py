"""Why a macro was suggested: what its odds lose when words of the ticket are left out.

Erasure (Li, Monroe and Jurafsky 2016, arXiv:1612.08220): the text is scored again without each word, without each pair of
neighbours, and where a script puts no spaces between words, without each short run of signs. It asks nothing of a
program but to featurise and to score, so it is right for every program, and goes the one inference path.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Span: TypeAlias = tuple[int, int]
Score: TypeAlias = Callable[[Sequence[str]], NDArray[Any]]

# Scripts without spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9d"
)
_WORD = re.compile(f"[{_UNSPACED}]+|[^\\W{_UNSPACED}]+(?:['\u2019.@-][^\\W{_UNSPACED}]+)*|[^\\w\\s]{{2,}}")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
# Up to three signs and the marks on them; a kanji after kana starts a word of its own.
_MARK = "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3\u3099\u309a"
_PIECE = re.compile(f"[\u3400-\u9fff]{{1,2}}[\u3040-\u30ff]?|[\u3040-\u30ff]{{1,3}}|(?:.[{_MARK}]*){{1,3}}", re.DOTALL)
_LEAST_ODDS = 1e-7
# What no figure of two digits shows.
_LEAST_SHOWN = 0.005


@dataclass(frozen=True, slots=True)
class Contribution:
    """A word, a pair of neighbours, or a few signs, as the ticket has them.

    Attributes:
        text: as it first stands there.
        contribution: what the macro's log-odds lose without it, wherever in the ticket it stands; below 0 where it spoke
            against the macro.
    """

    text: str
    contribution: float


def explain(
    text: str, macros: Sequence[int], score: Score, *, most_spans: int = 64, most_shown: int = 8
) -> list[list[Contribution]]:
    """What drove the scores of some macros.

    Args:
        text: `registry.text.ticket.ticket_text` of the ticket.
        macros: positions of the macros in the scores.
        score: texts to probabilities [texts, macros]; asked once, for at most `most_spans` + 1 texts.
        most_spans: bound on the pieces that are left out in turn. A text of more words is cut into so many phrases.
        most_shown: how many contributions a macro gets.

    Returns:
        For each macro its contributions, those of most weight, from the highest to the lowest. A pair stands for its two
        words where leaving out both costs more than leaving out each: where one makes up for the other.
    """
    singles, pairs = _pieces(text, most_spans)
    if not singles or not macros:
        return [[] for _ in macros]
    left_out = [*singles, *pairs]
    scores = score([text, *(_without(text, spans) for spans in left_out)])
    odds = _log_odds(np.asarray(scores, np.float64)[:, list(macros)])
    return [_shown(text, singles, pairs, losses, most_shown) for losses in (odds[0] - odds[1:]).T]


def _pieces(text: str, most: int) -> tuple[list[list[Span]], list[list[Span]]]:
    """What is left out in turn: pieces, each with all places where it stands, and pairs of neighbours."""
    spans = _spans(text)
    places = _places(text, spans)
    if len(places) > most:
        # Too many words: phrases of neighbours instead, each as long as it must be.
        size = math.ceil(len(spans) / most)
        return [
            [(group[0][0], group[-1][1])] for group in (spans[at : at + size] for at in range(0, len(spans), size))
        ], []
    neighbours = [(one[0], two[1]) for one, two in itertools.pairwise(spans) if not _gap(text, one, two)]
    return places, _places(text, neighbours)[: most - len(places)]


def _spans(text: str) -> list[Span]:
    """Words, and short runs of signs where there are no words to tell apart, in order."""
    found: list[Span] = []
    for word in _WORD.finditer(text):
        if _IS_UNSPACED.match(text, word.start()):
            found += (piece.span() for piece in _PIECE.finditer(text, *word.span()))
        else:
            found.append(word.span())
    return found


def _places(text: str, spans: Iterable[Span]) -> list[list[Span]]:
    """Spans that say the same together, in order of their first."""
    places: dict[str, list[Span]] = {}
    for start, end in spans:
        places.setdefault(text[start:end].casefold(), []).append((start, end))
    return list(places.values())


def _gap(text: str, one: Span, two: Span) -> bool:
    """Whether more than a space stands between two neighbours: a line's or a sentence's end."""
    return text[one[1] : two[0]] not in ("", " ")


def _without(text: str, spans: Sequence[Span]) -> str:
    parts, end = [], 0
    for span in spans:
        if span[0] >= end:  # "no no no" has the pair twice, one over the other
            parts.append(text[end : span[0]])
        end = max(end, span[1])
    return "".join([*parts, text[end:]])


def _log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(scores, _LEAST_ODDS, 1 - _LEAST_ODDS)
    odds: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return odds


def _shown(
    text: str, singles: list[list[Span]], pairs: list[list[Span]], losses: NDArray[np.float64], most: int
) -> list[Contribution]:
    of_single = {span: loss for spans, loss in zip(singles, losses, strict=False) for span in spans}
    by_span: dict[Span, float] = {spans[0]: float(loss) for spans, loss in zip(singles, losses, strict=False)}
    ranked = sorted(zip(pairs, losses[len(singles) :], strict=True), key=lambda found: -found[1])
    taken: set[Span] = set()
    for spans, loss in ranked:
        words = [span for span in of_single if spans[0][0] <= span[0] and span[1] <= spans[0][1]]
        alone = sum(of_single[word] for word in words)
        if loss > max(alone, 0) and loss - max(alone, 0) > _LEAST_SHOWN and not taken.intersection(words):
            taken.update(words)
            for word in words:
                by_span.pop(word, None)
            by_span[spans[0]] = float(loss)
    heaviest = sorted(by_span.items(), key=lambda found: -abs(found[1]))[:most]
    return [
        Contribution(text[start:end], round(loss, 3))
        for (start, end), loss in sorted(heaviest, key=lambda found: (-found[1], found[0]))
        if abs(loss) >= _LEAST_SHOWN
    ]
