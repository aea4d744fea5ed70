from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from registry.model.explain import Contribution, explain


class Words:
    """A model of two macros that weighs what it finds, and counts what it is asked."""

    def __init__(self, weights: dict[str, float], *, either: Sequence[str] = ()) -> None:
        self.weights = weights
        self.either = either
        self.calls: list[int] = []

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        self.calls.append(len(texts))
        odds = [
            sum(weight * text.lower().count(word) for word, weight in self.weights.items())
            + 3.0 * any(word in text.lower() for word in self.either)
            for text in texts
        ]
        first = np.array([1 / (1 + math.exp(-one)) for one in odds])
        return np.stack([first, 1 - first], axis=1)


def test_a_word_is_worth_what_the_odds_lose_without_it() -> None:
    score = Words({"refund": 1.5, "parcel": -0.5})
    for_first, for_second = explain("Refund for my parcel, a REFUND!", [0, 1], score)
    assert for_first == [Contribution("Refund", 3.0), Contribution("parcel", -0.5)]
    assert for_second == [Contribution("parcel", 0.5), Contribution("Refund", -3.0)]
    assert len(score.calls) == 1


def test_a_pair_stands_for_words_that_make_up_for_each_other() -> None:
    (found,) = explain("give money back now", [0], Words({"now": 1.0}, either=["money", "back"]))
    assert found == [Contribution("money back", 3.0), Contribution("now", 1.0)]


@pytest.mark.parametrize(
    ("text", "word", "piece"),
    [
        ("商品がまだ届きません", "届き", "届き"),
        ("สินค้ายังไม่มาถึง", "ยัง", "ยัง"),
        ("أين طلبي؟ لم يصل", "يصل", "يصل"),
        ("私のiPhoneが壊れた", "iphone", "iPhone"),
        ("don't e-mail me", "don't", "don't"),
    ],
)
def test_scripts_without_spaces_are_cut_into_short_runs(text: str, word: str, piece: str) -> None:
    (found,) = explain(text, [0], Words({word: 2.0}))
    assert found[0].contribution == 2.0
    assert piece in found[0].text
    assert len(found[0].text) <= 6


def test_a_long_ticket_is_cut_into_phrases() -> None:
    words = [f"w{number}" for number in range(300)]
    words[200] = "refund"
    score = Words({"refund": 2.0})
    (found,) = explain(" ".join(words), [0], score, most_spans=64)
    assert score.calls[0] <= 65
    (one,) = found
    assert "refund" in one.text.split()
    assert (len(one.text.split()), one.contribution) == (5, 2.0)


def test_nothing_to_leave_out_and_nothing_to_explain() -> None:
    score = Words({})
    assert explain(" ", [0, 1], score) == [[], []]
    assert explain("refund", [], score) == []
    assert score.calls == []
    assert explain("nothing speaks for it", [0], score) == [[]]


def test_certain_scores_have_finite_odds() -> None:
    (found,) = explain("refund", [0], Words({"refund": 500.0}))
    assert found == [Contribution("refund", 16.118)]


@given(st.text(max_size=120) | st.text(alphabet="ab c\n商ไ'!", max_size=120), st.integers(1, 12))
def test_pieces_are_of_the_text_and_not_too_many(text: str, most: int) -> None:
    score = Words({"a": 1.0, "商": 1.0})
    (found,) = explain(text, [0], score, most_spans=most)
    assert all(one.text in text for one in found)
    assert len(found) <= 8
    assert [one.contribution for one in found] == sorted((one.contribution for one in found), reverse=True)
    assert all(count <= most + 1 for count in score.calls)
