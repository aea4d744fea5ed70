"""From scores to suggestions: the best of what may be shown, where they are good enough. No I/O."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from registry.model.bundle import Label

# The group of whoever asks is switched off; nothing of the model's may be shown; what may be is not good enough.
Reason = Literal["below_threshold", "no_active_macro", "switched_off"]

# Finding the largest of a hundred a few times costs a quarter of sorting them.
_TAKEN_ONE_BY_ONE = 4
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})


@dataclass(frozen=True, slots=True)
class SuggestedMacro:
    """A macro to show, with its title of today and the model's probability for it."""

    id: str
    title: str
    score: float


@dataclass(frozen=True, slots=True)
class Suggestions:
    """Macros, best first, or the reason why there are none."""

    macros: tuple[SuggestedMacro, ...]
    reason: Reason | None = None


def is_blank(text: str) -> bool:
    """Whether a reader would see nothing: only spaces, controls and format characters (of zero width, say)."""
    # Most texts begin with a letter.
    return not text[:1].isalnum() and all(unicodedata.category(character) in _UNSEEN for character in text)


class Shown:
    """What may be shown of a model's macros. Made once for many tickets.

    Args:
        labels: the macros, in the order of the scores.
        titles: of today, by id; at least those of the macros that may be shown.
        may: whether each label's macro may be.

    Attributes:
        mask: the same as an array; None where all may be.
    """

    __slots__ = ("labels", "mask", "titles")

    def __init__(self, labels: Sequence[Label], titles: Mapping[str, str], may: Iterable[bool]) -> None:
        self.labels = labels
        self.titles = titles
        mask = np.fromiter(may, np.bool_, len(labels))
        self.mask: NDArray[np.bool_] | None = None if mask.all() else mask

    @classmethod
    def of(cls, labels: Sequence[Label], titles: Mapping[str, str]) -> Shown:
        """All macros that have a title."""
        return cls(labels, titles, (label.id in titles for label in labels))


def choose(
    scores: NDArray[Any], shown: Shown, *, exclude: Collection[str], limit: int, threshold: float
) -> Suggestions:
    """The best macros that may be shown.

    Args:
        scores: probabilities [macros]. They are not renormalised when macros drop out.
        shown: what may be, of the same macros.
        exclude: ids that the caller does not want.
        limit: how many at most.
        threshold: there are no suggestions when the best remaining score is below it.

    Returns:
        Best first, ties in the order of labels. Without macros, the reason: "no_active_macro" when none remained,
        "below_threshold" when none was good enough.
    """
    chosen: list[SuggestedMacro] = []
    labels = shown.labels
    # As a set: a thousand macros in a list of a thousand took the event loop 15 ms.
    unwanted = frozenset(exclude) if exclude else ()
    for index in _best_first(scores, shown.mask):
        macro = labels[index].id
        if macro in unwanted:
            continue
        score = float(scores[index])
        if not chosen and score < threshold:
            return Suggestions((), "below_threshold")
        chosen.append(SuggestedMacro(macro, shown.titles[macro], score))
        if len(chosen) == limit:
            break
    return Suggestions(tuple(chosen), None if chosen else "no_active_macro")


def _best_first(scores: NDArray[Any], mask: NDArray[np.bool_] | None) -> Iterator[int]:
    """Indices by falling score, ties in order, of what the mask lets pass; sorted only where the first few do not do."""
    left = scores.copy() if mask is None else np.where(mask, scores, scores.dtype.type(-1.0))
    for _ in range(min(_TAKEN_ONE_BY_ONE, len(left))):
        index = int(left.argmax())
        if left[index] < 0:
            return
        yield index
        left[index] = -1.0
    for index in np.argsort(-left, kind="stable").tolist():
        if left[index] < 0:
            return
        yield index
