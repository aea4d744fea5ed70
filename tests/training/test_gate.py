from collections.abc import Sequence

import numpy as np
import pytest

from training.evaluation import Judged
from training.gate import decide


def judged(targets: Sequence[str | None], said: Sequence[str | None], *, shown: bool | list[bool] = True) -> Judged:
    """A model that suggests one macro a row."""
    return Judged(
        targets=np.array([*targets, None], object)[:-1],
        suggested=np.array([[one, "", ""] for one in said], object),
        rank=np.array([0 if one == target else -1 for one, target in zip(said, targets, strict=True)], np.int64),
        confidence=np.ones(len(targets), np.float32),
        shown=np.full(len(targets), shown) if isinstance(shown, bool) else np.array(shown),
    )


TARGETS: Sequence[str | None] = ["a"] * 50 + ["b"] * 50
RIGHT = ["a"] * 50 + ["b"] * 50


def wrong(count: int, *, first: int = 0) -> list[str]:
    """Right but for `count` rows."""
    return ["z" if first <= row < first + count else said for row, said in enumerate(RIGHT)]


def test_what_is_as_good_or_better_passes() -> None:
    old = judged(TARGETS, wrong(20))
    for new in (old, judged(TARGETS, RIGHT), judged(TARGETS, wrong(20, first=60))):
        found = decide(new, champion=old, baselines={"tfidf": old})
        assert (found.promote, found.reason) == (True, "")


def test_a_first_model_passes_where_the_baseline_is_no_better() -> None:
    assert decide(judged(TARGETS, wrong(40))).promote
    assert decide(judged(TARGETS, wrong(40)), baselines={"tfidf": judged(TARGETS, wrong(45))}).promote


def test_a_difference_within_chance_passes_and_one_beyond_it_does_not() -> None:
    champion = judged(TARGETS, RIGHT)
    assert decide(judged(TARGETS, wrong(6)), champion=champion).promote  # p = 1/64
    refused = decide(judged(TARGETS, wrong(7)), champion=champion)  # p = 1/128
    assert not refused.promote
    assert (
        "top-1 0.930 is worse than the champion's 1.000 on the same 100 rows (lost 7, won 0, p = 0.0078)"
        in refused.reason
    )
    assert decide(judged(TARGETS, wrong(7)), champion=champion, significance=0.001).promote


def test_what_was_won_counts_against_what_was_lost() -> None:
    champion = judged(TARGETS, wrong(7, first=50))
    assert decide(judged(TARGETS, wrong(7)), champion=champion).promote


def test_a_model_worse_than_the_baseline_does_not_pass() -> None:
    refused = decide(judged(TARGETS, wrong(9)), baselines={"tfidf": judged(TARGETS, RIGHT)})
    assert "worse than the baseline tfidf's 1.000" in refused.reason


def test_a_macro_that_was_suggested_well_must_not_be_lost() -> None:
    targets = [*TARGETS, "rare", "rare", "rare", "rare"]
    champion = judged(targets, [*RIGHT, "rare", "rare", "rare", "z"])
    refused = decide(judged(targets, [*RIGHT, "a", "a", "a", "a"]), champion=champion)
    assert refused.reason == "never suggests what the champion suggests well: 'rare' (3 of 4)"
    assert decide(judged(targets, [*RIGHT, "rare", "a", "a", "a"]), champion=champion).promote, "once is not never"
    hidden = judged(targets, [*RIGHT, "rare", "rare", "rare", "a"], shown=[True] * 100 + [False] * 4)
    assert "'rare' (3 of 4)" in decide(hidden, champion=champion).reason, "abstaining is not suggesting"


@pytest.mark.parametrize("said", [["rare", "rare", "z", "z"], ["z", "z", "z", "z"]])
def test_a_macro_that_was_not_suggested_well_is_none_to_lose(said: list[str]) -> None:
    targets = [*TARGETS, "rare", "rare", "rare", "rare"]
    assert decide(judged(targets, [*RIGHT, "a", "a", "a", "a"]), champion=judged(targets, [*RIGHT, *said])).promote


def test_a_retired_macro_is_no_loss() -> None:
    champion, new = judged(TARGETS, RIGHT), judged(TARGETS, ["a"] * 100)
    assert not decide(new, champion=champion).promote
    assert decide(new, champion=champion, retired=frozenset(["b"])).promote


def test_out_of_scope_rows_do_not_count_and_no_rows_prove_nothing() -> None:
    targets = [*TARGETS, *[None] * 50]
    assert decide(judged(targets, RIGHT + ["a"] * 50), champion=judged(targets, RIGHT + ["b"] * 50)).promote
    assert decide(judged([], []), champion=judged([], [])).promote


def test_other_rows_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same rows"):
        decide(judged(TARGETS, RIGHT), champion=judged(TARGETS[::-1], RIGHT))
