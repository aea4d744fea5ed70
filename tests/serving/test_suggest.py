"""From scores to suggestions: the rules, against a slow restatement of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.model.bundle import Label
from serving.suggestions.choice import Shown, SuggestedMacro, choose, is_blank

LABELS = [Label(id=f"m{index}", title=f"Trained {index}") for index in range(4)]
TITLES = {f"m{index}": f"Today {index}" for index in range(4)}
SCORES = np.array([0.1, 0.5, 0.3, 0.1], np.float32)

ids = st.sampled_from([f"m{index}" for index in range(6)])


def picked(**changes: object) -> list[str]:
    arguments: dict[str, object] = {"exclude": (), "limit": 3, "threshold": 0.0}
    return [macro.id for macro in choose(SCORES, Shown.of(LABELS, TITLES), **{**arguments, **changes}).macros]  # type: ignore[arg-type]


def test_the_best_come_first_with_the_titles_of_today() -> None:
    found = choose(SCORES, Shown.of(LABELS, TITLES), exclude=(), limit=2, threshold=0.0)
    assert [(macro.id, macro.title, macro.score) for macro in found.macros] == [
        ("m1", "Today 1", 0.5),
        ("m2", "Today 2", pytest.approx(0.3)),
    ]
    assert found.reason is None


def test_ties_stand_in_the_order_of_labels() -> None:
    assert picked(exclude=["m1", "m2"]) == ["m0", "m3"]


def test_a_macro_that_may_not_be_shown_drops_out_and_the_rest_keep_their_scores() -> None:
    found = choose(SCORES, Shown.of(LABELS, {"m2": "Today 2"}), exclude=(), limit=3, threshold=0.3)
    assert found.macros == (SuggestedMacro("m2", "Today 2", float(SCORES[2])),)


def test_nothing_is_suggested_below_the_threshold() -> None:
    found = choose(SCORES, Shown.of(LABELS, TITLES), exclude=["m1"], limit=3, threshold=0.4)
    assert (found.macros, found.reason) == ((), "below_threshold")


def test_nothing_is_suggested_when_nothing_remains() -> None:
    found = choose(SCORES, Shown.of(LABELS, {"new": "Not trained on"}), exclude=(), limit=3, threshold=0.0)
    assert (found.macros, found.reason) == ((), "no_active_macro")


def test_many_that_are_not_wanted_are_not_compared_one_by_one() -> None:
    compared = 0

    class Id(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    labels = [Label(id=f"m{index}", title="") for index in range(1000)]
    shown = Shown.of(labels, {label.id: label.title for label in labels})
    exclude = tuple(Id(label.id) for label in labels)
    found = choose(np.linspace(0, 1, 1000, dtype=np.float32), shown, exclude=exclude, limit=3, threshold=0.0)
    assert found.reason == "no_active_macro"
    assert compared <= 3 * len(labels)


@given(
    scores=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
    titles=st.dictionaries(ids, st.text(max_size=5)),
    exclude=st.lists(ids),
    limit=st.integers(1, 3),
    threshold=st.floats(0, 1),
)
def test_the_rules(
    scores: list[float], titles: dict[str, str], exclude: list[str], limit: int, threshold: float
) -> None:
    found = choose(
        np.array(scores, np.float32), Shown.of(LABELS, titles), exclude=exclude, limit=limit, threshold=threshold
    )
    by_id = {label.id: score for label, score in zip(LABELS, scores, strict=True)}
    allowed = sorted((macro for macro in by_id if macro in titles and macro not in exclude), key=lambda m: -by_id[m])
    if not allowed:
        assert (found.macros, found.reason) == ((), "no_active_macro")
    elif by_id[allowed[0]] < threshold:
        assert (found.macros, found.reason) == ((), "below_threshold")
    else:
        assert found.reason is None
        assert [(macro.id, macro.title, macro.score) for macro in found.macros] == [
            (macro, titles[macro], by_id[macro]) for macro in allowed[:limit]
        ]


@pytest.mark.parametrize(
    "text", ["", " \n\t", "\u200b\u200d\ufeff", "\u00a0\u3000\u2028\u2029", "\x00\x1b\x85", "\u202e\u2066"]
)
def test_what_nobody_sees_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["?", " \u200b.", "注", "👍", "\u0301"])
def test_whatever_can_be_seen_is_not_blank(text: str) -> None:
    assert not is_blank(text)
