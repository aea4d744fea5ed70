"""What the checkers of `bench swap` must report, and what they must not."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.consistency import Answered, Published, find_mixed, parse_answer, taken_over
from benchmarks.expected import agrees

# Three versions of a tenant; the prefix of one begins like that of another.
HISTORY = {
    "acme": [
        Published(version="one", at=0.0, prefix="m-v1"),
        Published(version="two", at=10.0, prefix="m-v2"),
        Published(version="three", at=20.0, prefix="m-v11"),
    ],
    "beta": [Published(version="b-one", at=5.0, prefix="m-v1")],
}
PREFIXES = {one.version: one.prefix for versions in HISTORY.values() for one in versions}


def answered(
    version: str, sent: float, done: float, *, macros: Sequence[str] | None = None, tenant: str = "acme"
) -> Answered:
    """An answer of a version with two macros of its own."""
    ids = [f"{PREFIXES.get(version, 'm')}-{number}" for number in (0, 7)] if macros is None else macros
    return Answered(tenant=tenant, sent=sent, done=done, version=version, macros=[(name, 0.5) for name in ids], pick=0)


def problems(*answers: Answered) -> list[str]:
    return find_mixed(HISTORY, answers)


def test_versions_one_after_the_other_are_no_problem() -> None:
    assert not problems(
        answered("one", 0.0, 0.5),
        answered("one", 10.5, 11.0),  # the server need not have looked yet
        answered("two", 10.6, 10.9),
        answered("three", 20.0, 20.1),
        answered("b-one", 5.0, 5.1, tenant="beta"),
        answered("b-one", 50.0, 50.1, tenant="beta"),
    )


def test_nothing_is_wrong_with_no_answers() -> None:
    assert not problems()


def test_a_version_may_be_left_out() -> None:
    assert not problems(answered("one", 30.0, 30.1), answered("three", 30.2, 30.3))


def test_an_answer_on_its_way_when_a_later_version_answers_may_still_come() -> None:
    assert not problems(answered("two", 10.0, 11.0), answered("one", 10.9, 15.0))


@pytest.mark.parametrize("later", ["two", "three"])
def test_a_stale_version_is_reported(later: str) -> None:
    found = problems(answered("one", 25.1, 25.2), answered(later, 24.0, 25.0))
    assert found == ["acme: version one answered after a later one had"]


def test_every_answer_of_a_stale_version_is_reported_and_no_other() -> None:
    found = problems(
        answered("one", 1.0, 1.1),
        answered("three", 20.0, 21.0),
        answered("two", 20.5, 22.0),
        answered("two", 21.5, 22.0),
        answered("one", 21.6, 22.0),
        answered("three", 23.0, 24.0),
    )
    assert sorted(found) == [
        "acme: version one answered after a later one had",
        "acme: version two answered after a later one had",
    ]


def test_tenants_have_histories_of_their_own() -> None:
    assert not problems(answered("three", 20.0, 20.5), answered("b-one", 21.0, 21.5, tenant="beta"))
    assert problems(answered("b-one", 21.0, 21.5)) == ["acme: version b-one was never published"]


def test_a_version_before_its_time_is_reported() -> None:
    assert problems(answered("two", 9.0, 9.9)) == ["acme: version two answered before it was published"]
    assert not problems(answered("two", 9.0, 10.0))


@pytest.mark.parametrize(
    "macros",
    [
        ["m-v2-0", "m-v1-1"],
        ["m-v1-0", "m-v2-1"],
        ["m-v11-0"],
        ["m-v1"],
        ["other"],
        [],
    ],
)
def test_macros_of_another_version_are_reported(macros: list[str]) -> None:
    assert problems(answered("one", 1.0, 1.1, macros=macros)) == [
        "acme: version one answered with macros that are not its own"
    ]


def test_a_version_nobody_published_is_reported() -> None:
    assert problems(answered("four", 1.0, 1.1)) == ["acme: version four was never published"]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(20, 40), st.integers(0, 5)), max_size=12))
def test_stale_is_what_the_definition_says(drawn: list[tuple[int, int, int]]) -> None:
    """Pair by pair: sent after an answer of a later version had come."""
    order = [one.version for one in HISTORY["acme"]]
    answers = [answered(order[place], float(sent), float(sent + took)) for place, sent, took in drawn]
    stale = [
        one.version
        for one in answers
        if any(order.index(other.version) > order.index(one.version) and other.done < one.sent for other in answers)
    ]
    assert problems(*answers) == [f"acme: version {version} answered after a later one had" for version in stale]


def test_taking_over_lasts_until_the_first_answer_has_come() -> None:
    answers = [
        answered("two", 12.0, 14.0),
        answered("two", 12.5, 12.75),
        answered("two", 12.6, 13.0),
        answered("one", 0.0, 0.5),
        answered("b-one", 5.0, 7.0, tenant="beta"),
    ]
    assert taken_over(HISTORY, answers) == {"one": 0.5, "two": 2.75, "b-one": 2.0}


def test_what_was_never_published_takes_nothing_over() -> None:
    """`find_mixed` tells of it; the bench must live to say so."""
    assert taken_over(HISTORY, [answered("four", 1.0, 1.1), answered("one", 1.0, 1.1)]) == {"one": 1.1}


def test_an_answer_is_read() -> None:
    body = {"model_version": "one", "macros": [{"id": "m-0", "score": 0.75, "title": "A"}, {"id": "m-1", "score": 0.5}]}
    assert parse_answer(json.dumps(body).encode()) == ("one", [("m-0", 0.75), ("m-1", 0.5)])


SCORES = {"a": 0.5, "b": 0.3, "c": 0.3, "d": 0.1}


@pytest.mark.parametrize(
    "macros",
    [
        [("a", 0.5)],
        [("a", 0.5), ("b", 0.3)],
        [("a", 0.5), ("c", 0.3)],  # as good as b
        [("a", 0.5), ("c", 0.3), ("b", 0.3), ("d", 0.1)],
        [("a", 0.50009), ("b", 0.29991)],
    ],
)
def test_the_best_macros_with_their_scores_agree(macros: list[tuple[str, float]]) -> None:
    assert agrees(macros, SCORES)


@pytest.mark.parametrize(
    "macros",
    [
        [],
        [("b", 0.3)],  # not the best
        [("a", 0.5), ("d", 0.1)],
        [("b", 0.3), ("a", 0.5)],  # not in order
        [("a", 0.5002)],
        [("a", 0.5), ("b", 0.2998)],
        [("b", 0.5)],  # the best one's score, another's name
        [("other", 0.5)],
        [("a", float("nan"))],
        [("a", 0.5), ("b", 0.3), ("b", 0.3)],  # one twice
        [("a", 0.5), ("b", 0.3), ("c", 0.3), ("d", 0.1), ("d", 0.1)],  # more than there are
        [("a", 0.5), ("b", 0.3), ("c", 0.3), ("d", 0.1), ("other", 0.0)],
    ],
)
def test_anything_else_does_not(macros: list[tuple[str, float]]) -> None:
    assert not agrees(macros, SCORES)
