"""How two versions compare on the same tickets: pure counts, no ticket's text in them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from serving.suggestions.choice import Shown, choose

SHOWN = 3
# What `Comparison.counts` has.
COUNTS = ("compared", "same_first", "same_three", "champion_abstained", "shadow_abstained", "both_abstained")
# Scores from 0 to 1 in tenths.
SCORE_BINS = 10


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a version says of a ticket.

    Attributes:
        macros: the best that may be shown, best first, whether it would show them or not.
        score: of the best one; 0 where none may be shown.
        abstains: whether it would show nothing.
    """

    macros: tuple[str, ...]
    score: float
    abstains: bool


def rank(scores: NDArray[Any], shown: Shown, *, exclude: Collection[str], threshold: float) -> Ranked:
    """What a version says of a ticket, from its scores; the arguments are those of `choose`."""
    best = choose(scores, shown, exclude=exclude, limit=SHOWN, threshold=0.0).macros
    score = best[0].score if best else 0.0
    return Ranked(tuple(macro.id for macro in best), score, abstains=not best or score < threshold)


@dataclass(slots=True)
class Comparison:
    """Counts over tickets that both versions scored.

    Attributes:
        compared: how many.
        same_first: of these, how often both put the same macro first, whether it would be shown or not.
        same_three: how often the same three came first, in any order.
        champion_abstained, shadow_abstained: how often each would have shown nothing.
        both_abstained: how often neither would have shown anything.
        champion_scores, shadow_scores: tickets by the score of the best macro, in tenths.
    """

    compared: int = 0
    same_first: int = 0
    same_three: int = 0
    champion_abstained: int = 0
    shadow_abstained: int = 0
    both_abstained: int = 0
    champion_scores: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)
    shadow_scores: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)

    def add(self, champion: Ranked, shadow: Ranked) -> None:
        """Count one ticket."""
        self.compared += 1
        self.same_first += champion.macros[:1] == shadow.macros[:1]
        self.same_three += set(champion.macros) == set(shadow.macros)
        self.champion_abstained += champion.abstains
        self.shadow_abstained += shadow.abstains
        self.both_abstained += champion.abstains and shadow.abstains
        self.champion_scores[_bin(champion.score)] += 1
        self.shadow_scores[_bin(shadow.score)] += 1

    def counts(self) -> dict[str, int]:
        """The counts that are single numbers, by name."""
        return {name: getattr(self, name) for name in COUNTS}


def _bin(score: float) -> int:
    return min(int(score * SCORE_BINS), SCORE_BINS - 1)
