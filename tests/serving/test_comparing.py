"""Comparing two versions on one ticket, held to the plain meaning of every count."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.model.bundle import Label
from serving.suggestions.choice import Shown
from serving.trials.comparing import COUNTS, SCORE_BINS, Comparison, Ranked, rank

IDS = [f"m{number}" for number in range(6)]
LABELS = [Label(id=name, title=name.upper()) for name in IDS]
SHARES = st.floats(0, 1, width=32)
RANKED = st.builds(
    Ranked,
    macros=st.lists(st.sampled_from(IDS), max_size=3, unique=True).map(tuple),
    score=SHARES,
    abstains=st.booleans(),
)


@settings(max_examples=50, deadline=None)
@given(
    scores=st.lists(SHARES, min_size=6, max_size=6),
    shown=st.sets(st.sampled_from(IDS)),
    exclude=st.sets(st.sampled_from(IDS)),
    threshold=SHARES,
)
def test_a_ranking_is_that_of_what_may_be_shown(
    scores: list[float], shown: set[str], exclude: set[str], threshold: float
) -> None:
    of_today = Shown.of(LABELS, {name: name for name in shown})
    found = rank(np.array(scores, np.float32), of_today, exclude=exclude, threshold=threshold)
    best = sorted((-score, place) for place, score in enumerate(scores) if IDS[place] in shown - exclude)[:3]
    assert found.macros == tuple(IDS[place] for _, place in best)
    assert found.score == (-best[0][0] if best else 0.0)
    assert found.abstains == (not best or found.score < threshold)


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.tuples(RANKED, RANKED), max_size=30))
def test_every_count_is_what_its_name_says(pairs: list[tuple[Ranked, Ranked]]) -> None:
    comparison = Comparison()
    for champion, shadow in pairs:
        comparison.add(champion, shadow)
    assert comparison.counts() == {
        "compared": len(pairs),
        "same_first": sum(a.macros[:1] == b.macros[:1] for a, b in pairs),
        "same_three": sum(sorted(a.macros) == sorted(b.macros) for a, b in pairs),
        "champion_abstained": sum(a.abstains for a, _ in pairs),
        "shadow_abstained": sum(b.abstains for _, b in pairs),
        "both_abstained": sum(a.abstains and b.abstains for a, b in pairs),
    }
    assert tuple(comparison.counts()) == COUNTS
    for counts, scores in (
        (comparison.champion_scores, [a.score for a, _ in pairs]),
        (comparison.shadow_scores, [b.score for _, b in pairs]),
    ):
        assert len(counts) == SCORE_BINS
        for place, count in enumerate(counts):
            assert count == sum(place == min(int(score * 10), 9) for score in scores)


def test_a_version_agrees_with_itself() -> None:
    said = rank(
        np.array([0.1, 0.7, 0.2], np.float32),
        Shown.of(LABELS[:3], {name: name for name in IDS}),
        exclude=(),
        threshold=0.5,
    )
    comparison = Comparison()
    comparison.add(said, said)
    assert (comparison.same_first, comparison.same_three, comparison.both_abstained) == (1, 1, 0)
