from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.examples import Example, Split
from training.holdout import Holdout, hold_out


def rows(count: int, *, macros: int = 3, name: str = "t", outside: int = 0) -> tuple[Example, ...]:
    # Numbers in words, so that no two are near-duplicates.
    def body(number: int) -> str:
        return " ".join(f"{name}{digit}w{place}" for place, digit in enumerate(str(number)))

    return tuple(
        Example(
            ticket_id=f"{name}{number}",
            body=body(number),
            macro_id=None if number >= count else f"m{number % macros}",
        )
        for number in range(count + outside)
    )


def split(train: tuple[Example, ...], validation: tuple[Example, ...] = ()) -> Split:
    return Split(train=train, validation=validation, test=())


def test_validation_rows_of_the_data_are_used_and_not_fitted_on() -> None:
    found = hold_out(split(rows(300, outside=10), rows(250, name="v", outside=5)))
    (fold,) = found.folds
    assert (len(fold.fitted), len(found.final), found.fits) == (300, 300, 1)
    judged = [found.rows[row] for row in fold.judged]
    assert sum(row.ticket_id.startswith("v") for row in judged) == 255
    assert sum(row.macro_id is None for row in judged) == 15, (
        "out-of-scope training rows are judged, too: nothing saw them"
    )


def test_without_any_the_latest_of_many_training_rows_are_held_out_and_then_fitted_on() -> None:
    found = hold_out(split(rows(2500)))
    (fold,) = found.folds
    assert len(fold.judged) == 250
    assert (len(fold.fitted), len(found.final), found.fits) == (2250, 2500, 2)
    assert len(hold_out(split(rows(9000))).folds[0].judged) == 500


def test_few_rows_are_all_judged_by_what_did_not_see_them() -> None:
    for given_split in (split(rows(100, outside=7)), split(rows(80), rows(20, name="v", outside=7))):
        found = hold_out(given_split)
        judged = np.concatenate([fold.judged for fold in found.folds])
        assert sorted(judged) == list(range(107))
        assert (len(found.final), found.fits) == (100, 6)
        for fold in found.folds:
            assert not set(fold.fitted) & set(fold.judged)
            assert all(found.rows[row].macro_id is not None for row in fold.fitted)
            assert len(fold.fitted) + sum(found.rows[row].macro_id is not None for row in fold.judged) == 100
            of_macro = Counter(found.rows[row].macro_id for row in fold.judged if found.rows[row].macro_id)
            assert set(of_macro.values()) <= {6, 7}, "every macro is dealt out evenly"


def test_near_duplicates_are_not_taken_apart() -> None:
    twice = [
        *rows(60),
        *(Example(ticket_id=f"again{row.ticket_id}", body=row.body + "!", macro_id="m0") for row in rows(60)),
    ]
    for fold in hold_out(split(tuple(twice))).folds:
        bodies = {twice[row].body.rstrip("!") for row in fold.judged}
        assert not bodies & {twice[row].body.rstrip("!") for row in fold.fitted}


def test_rows_that_all_say_the_same_cannot_be_held_out() -> None:
    same = tuple(Example(ticket_id=str(n), body="same", macro_id=f"m{n % 2}") for n in range(30))
    found = hold_out(split(same))
    assert (found.folds, len(found.final), found.fits) == ((), 30, 1)


@settings(max_examples=25)
@given(st.integers(0, 40), st.integers(0, 30), st.integers(0, 5))
def test_the_order_of_rows_plays_no_part(train: int, validation: int, outside: int) -> None:
    def parts(of: Holdout) -> list[set[str]]:
        return [{of.rows[row].ticket_id for row in fold.judged} for fold in of.folds]

    found, valid = rows(train, outside=outside), rows(validation, name="v")
    assert parts(hold_out(split(found, valid))) == parts(hold_out(split(found[::-1], valid)))
