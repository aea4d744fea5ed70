from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from training.examples import Example, fingerprint, split_examples

START = datetime(2026, 1, 1, tzinfo=UTC)


def make(count: int, *, timed: bool, splits: list[str | None] | None = None) -> list[Example]:
    return [
        Example(
            ticket_id=str(number),
            body=f"text {number}",
            macro_id="m",
            applied_at=START + timedelta(hours=number) if timed else None,
            split=splits[number % len(splits)] if splits else None,
        )
        for number in range(count)
    ]


def test_the_future_is_the_test() -> None:
    rows = make(100, timed=True)
    split = split_examples(rows[::-1])
    assert [e.ticket_id for e in split.test] == [str(n) for n in range(85, 100)]
    assert ([e.ticket_id for e in split.train], split.validation) == ([str(n) for n in range(85)], ())


def test_a_split_of_the_data_is_kept() -> None:
    split = split_examples(make(90, timed=False, splits=["train", "val", "test"]))
    assert [len(part) for part in (split.train, split.validation, split.test)] == [30, 30, 30]
    split = split_examples(make(90, timed=False, splits=["train", "train", "test"]))
    assert [len(part) for part in (split.train, split.validation, split.test)] == [60, 0, 30]
    assert {e.split for e in split.test} == {"test"}


def test_rows_without_a_split_beside_a_file_that_had_one_are_cut_by_time() -> None:
    names = ["train"] * 6 + ["val"] * 2 + ["test"] * 2 + [None] * 20
    split = split_examples(make(30, timed=True, splits=names))
    assert [row.ticket_id for row in split.test] == ["8", "9", "27", "28", "29"]
    assert len(split.train) == 6 + 17
    assert [row.ticket_id for row in split.validation] == ["6", "7"]


def test_who_asks_again_is_not_in_the_test() -> None:
    rows = make(100, timed=True)
    rows[99] = replace(rows[99], body="Text 3!")
    rows[98] = replace(rows[98], body="nothing like it")
    rows[97] = replace(rows[97], body="nothing, like it")
    split = split_examples(rows)
    assert [e.ticket_id for e in split.test] == [str(n) for n in range(85, 99)], (
        "97 and 98 repeat each other, 99 repeats 3"
    )
    assert split.train[-1].ticket_id == "99"


@given(st.integers(0, 60), st.booleans(), st.sampled_from([None, ["train"], ["test"], ["train", None, "test", "val"]]))
def test_every_row_lands_once_whatever_the_order(count: int, timed: bool, splits: list[str | None] | None) -> None:
    rows = make(count, timed=timed, splits=splits)
    split = split_examples(rows)
    assert sorted(e.ticket_id for part in (split.train, split.validation, split.test) for e in part) == sorted(
        e.ticket_id for e in rows
    )
    again = split_examples(rows[::-1])
    assert {e.ticket_id for e in split.test} == {e.ticket_id for e in again.test}


def test_the_fingerprint_is_of_the_content() -> None:
    rows = make(5, timed=True)
    assert fingerprint(rows) == fingerprint(rows[::-1])
    changed = [*rows[:4], Example(ticket_id="4", body="other", macro_id="m", applied_at=rows[4].applied_at)]
    assert len({fingerprint(rows), fingerprint(rows[:4]), fingerprint(changed)}) == 3
