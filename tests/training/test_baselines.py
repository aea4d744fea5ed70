import numpy as np
import pytest

from training.baselines import most_frequent, tfidf
from training.evaluation import evaluate
from training.examples import Example


def rows(*pairs: tuple[str, str | None]) -> list[Example]:
    return [Example(ticket_id=str(n), body=body, macro_id=macro) for n, (body, macro) in enumerate(pairs)]


FITTED = rows(
    *[(f"where is my parcel {n}", "ship") for n in range(6)],
    *[(f"i want my money back {n}", "refund") for n in range(4)],
    *[(f"cannot log in {n}", "login") for n in range(2)],
    ("what a day", None),
)


def test_tfidf_learns_what_can_be_learned() -> None:
    test = rows(("parcels where", "ship"), ("mony back", "refund"), ("login", "login"), ("x", "unknown"), ("y", None))
    found = evaluate(tfidf(FITTED, test))
    assert (found.rows, found.top1, found.oos_recall) == (4, 0.75, 0.0)


def test_two_macros_have_one_margin() -> None:
    two = [row for row in FITTED if row.macro_id in {"ship", "refund"}]
    judged = tfidf(two, rows(("my parcel", "ship"), ("money", "refund")))
    assert judged.rank.tolist() == [0, 0]


@pytest.mark.parametrize("body", ["", "?!", "\u200b \U0001f600", "a b c"])
def test_of_what_has_no_words_the_most_frequent_come_first(body: str) -> None:
    fitted = rows((body, "ship"), (body, "ship"), (body, "refund"), (body, None))
    assert tfidf(fitted, rows((body, "refund"))).suggested.tolist() == [["ship", "refund", ""]]


def test_one_macro_alone_has_no_margin() -> None:
    assert tfidf(FITTED[:6], rows(("parcel", "ship"))).rank.tolist() == [0]


def test_the_most_frequent_come_first() -> None:
    judged = most_frequent(FITTED, rows(("a", "ship"), ("b", "login")))
    assert judged.suggested.tolist() == [["ship", "refund", "login"]] * 2
    assert judged.rank.tolist() == [0, 2]


@pytest.mark.parametrize("baseline", [tfidf, most_frequent])
def test_no_test_rows_are_no_trouble(baseline: object) -> None:
    assert callable(baseline)
    assert np.array_equal(baseline(FITTED, []).rank, [])
