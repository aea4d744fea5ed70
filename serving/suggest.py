"""From scores to suggestions: what may be shown, what is good enough, and an id to refer to it by. No I/O."""

from __future__ import annotations

import base64
import hmac
import json
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from registry.bundle import Label

Reason = Literal["below_threshold", "no_active_macro"]

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
    for index in np.argsort(-scores, kind="stable").tolist():
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


def suggestion_id(
    key: bytes, *, tenant: str, ticket: str, revision: int, version: str, macros: Sequence[SuggestedMacro]
) -> str:
    """An id that the same answer to the same ticket always has, and that nobody without the key can make up."""
    said = json.dumps([tenant, ticket, revision, version, [macro.id for macro in macros]], separators=(",", ":"))
    digest = hmac.digest(key, said.encode(), "sha256")
    return base64.urlsafe_b64encode(digest[:18]).decode()
