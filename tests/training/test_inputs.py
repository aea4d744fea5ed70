from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.catalogue import Catalogue, Macro, make_catalogue
from training.examples import Example
from training.inputs import Inputs, inputs_of

WORD = st.text("abcdefgh", min_size=1, max_size=8)
MACRO = st.sampled_from(["a", "b", "c"])
TIMES = st.none() | st.datetimes(datetime(2025, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC))
# What training reads of an example, each with what it may be changed to.
READ: dict[str, st.SearchStrategy[Any]] = {
    "ticket_id": WORD,
    "subject": WORD,
    "body": WORD,
    "latest": WORD,
    "macro_id": MACRO,
    "also": st.just(()) | st.just(("d",)),
    "applied_at": TIMES,
    "split": st.sampled_from([None, "train", "val", "test"]),
    "prompted": st.sampled_from([None, True, False]),
}
NOT_READ = {"channel": WORD, "locale": WORD}
EXAMPLES = st.lists(st.builds(Example, **READ, **NOT_READ), max_size=8, unique_by=lambda example: example.ticket_id)
PROGRAMS = {"bag": "1" * 64}
CATALOGUE = make_catalogue([Macro(id="a", title="A"), Macro(id="b", title="B"), Macro(id="new", title="New")])


def inputs(
    examples: list[Example],
    catalogue: Catalogue | None = CATALOGUE,
    *,
    programs: dict[str, str] = PROGRAMS,
    **settings: Any,
) -> Inputs:
    return inputs_of(examples, catalogue, programs=programs, settings=settings)


def changed(catalogue: Catalogue | None) -> list[str]:
    """What differs when the catalogue is this one."""
    rows = [Example(ticket_id=macro, body="x", macro_id=macro) for macro in ("a", "b")]
    return inputs(rows, catalogue).changed_since(inputs(rows))


def test_every_field_of_an_example_is_in_one_of_the_lists() -> None:
    assert {field.name for field in fields(Example)} == READ.keys() | NOT_READ.keys()


@given(EXAMPLES, st.randoms())
def test_the_order_of_rows_does_not_matter(examples: list[Example], random: Any) -> None:
    shuffled = [replace(example) for example in examples]
    random.shuffle(shuffled)
    assert inputs(shuffled) == inputs(examples)
    assert inputs(shuffled).digest == inputs(examples).digest


@given(EXAMPLES.filter(bool), st.sampled_from(sorted(READ)), st.data())
def test_any_field_that_training_reads_does(examples: list[Example], field: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(examples) - 1))
    value = data.draw(READ[field].filter(lambda value: value != getattr(examples[place], field)))
    other = [*examples[:place], replace(examples[place], **{field: value}), *examples[place + 1 :]]
    assert inputs(other).data != inputs(examples).data
    assert inputs(other).digest != inputs(examples).digest


@given(EXAMPLES.filter(bool), st.sampled_from(sorted(NOT_READ)))
def test_what_training_does_not_read_does_not(examples: list[Example], field: str) -> None:
    other: dict[str, Any] = {field: "other"}
    assert inputs([replace(example, **other) for example in examples]) == inputs(examples)


@given(EXAMPLES.filter(bool))
def test_a_row_more_or_less_does(examples: list[Example]) -> None:
    assert inputs(examples[1:]).data != inputs(examples).data


def test_the_time_zone_of_a_time_does_not_make_it_another() -> None:
    example = Example(ticket_id="1", body="x", macro_id="a", applied_at=datetime(2026, 1, 1, 12, tzinfo=UTC))
    assert example.applied_at is not None
    later = replace(example, applied_at=example.applied_at + timedelta(seconds=1))
    assert inputs([later]).data != inputs([example]).data


A, B, NEW = Macro(id="a", title="A"), Macro(id="b", title="B"), Macro(id="new", title="New")
REPLY = ({"field": "comment_value", "value": "It is on its way"},)


@pytest.mark.parametrize(
    ("macros", "matters"),
    [
        ([A, B, NEW], False),
        ([A, Macro(id="b", title="Bee"), NEW], True),
        ([A, Macro(id="b", title="B", active=False), NEW], True),
        ([A, NEW], True),
        ([A, Macro(id="b", title="B", actions=REPLY), NEW], True),
        ([A, Macro(id="b", title="B", actions=({"field": "priority", "value": "high"},)), NEW], False),
        ([A, Macro(id="b", title="B", restriction={"type": "User", "id": 1}), NEW], True),
        ([A, Macro(id="b", title="B", restriction={"type": "Group", "id": 1}), NEW], False),
        ([A, B], False),
        ([A, B, Macro(id="new", title="Newer", active=False)], False),
    ],
    ids=["same", "title", "retired", "gone", "reply", "action", "own", "of a group", "unused gone", "unused changed"],
)
def test_of_the_catalogue_counts_what_training_reads(macros: list[Macro], matters: bool) -> None:
    assert changed(make_catalogue(macros)) == (["catalogue"] if matters else [])


def test_no_catalogue_is_not_an_empty_one() -> None:
    assert changed(None) == ["catalogue"]
    assert inputs([], None) != inputs([], make_catalogue([]))


def test_programs_and_settings_are_parts_of_their_own() -> None:
    before = inputs([], precision=0.8)
    assert inputs([], precision=0.9).changed_since(before) == ["settings"]
    assert inputs([], programs={"bag": "2" * 64}, precision=0.8).changed_since(before) == ["program"]
    assert inputs([], programs={**PROGRAMS, "encoder": "3" * 64}, precision=0.8).changed_since(before) == ["program"]
    assert inputs([Example(ticket_id="1", body="", macro_id="x")], precision=0.7).changed_since(before) == [
        "data",
        "settings",
    ]
