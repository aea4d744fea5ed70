"""From scores to suggestions: what may be shown, what is good enough, and an id to refer to it by. No I/O."""

from __future__ import annotations

import base64
import hmac
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from registry.bundle import Label

Reason = Literal["below_threshold", "no_active_macro"]

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
    return all(unicodedata.category(character) in _UNSEEN for character in text)


def choose(
    scores: NDArray[Any],
    labels: Sequence[Label],
    titles: Mapping[str, str],
    *,
    exclude: Collection[str],
    limit: int,
    threshold: float,
) -> Suggestions:
    """The best macros that may be shown.

    Args:
        scores: probabilities [macros]. They are not renormalised when macros drop out.
        labels: what each score is for.
        titles: by id, the macros that may be shown today; a label that is not among them drops out.
        exclude: ids that the caller does not want.
        limit: how many at most.
        threshold: there are no suggestions when the best remaining score is below it.

    Returns:
        Best first, ties in the order of labels. Without macros, the reason: "no_active_macro" when none remained,
        "below_threshold" when none was good enough.
    """
    chosen: list[SuggestedMacro] = []
    for index in _best_first(scores):
        macro = labels[index].id
        title = titles.get(macro)
        if title is None or macro in exclude:
            continue
        score = float(scores[index])
        if not chosen and score < threshold:
            return Suggestions((), "below_threshold")
        chosen.append(SuggestedMacro(macro, title, score))
        if len(chosen) == limit:
            break
    return Suggestions(tuple(chosen), None if chosen else "no_active_macro")


def _best_first(scores: NDArray[Any]) -> Iterator[int]:
    """Indices by falling score, ties in order; sorted only where the first few do not do."""
    left = scores.copy()
    for _ in range(min(_TAKEN_ONE_BY_ONE, len(left))):
        index = int(left.argmax())
        yield index
        left[index] = -1.0
    for index in np.argsort(-left, kind="stable").tolist():
        if left[index] >= 0:
            yield index


def suggestion_id(
    key: bytes, *, tenant: str, ticket: str, revision: int, version: str, macros: Sequence[SuggestedMacro]
) -> str:
    """An id that the same answer to the same ticket always has, and that nobody without the key can make up."""
    said = to_json([tenant, ticket, revision, version, [macro.id for macro in macros]])
    digest = hmac.digest(key, said, "sha256")
    return base64.urlsafe_b64encode(digest[:18]).decode()
