"""Feedback joined to tickets, what limits its weight, and when it asks for another training."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from registry.feedback.records import Feedback, Shown
from registry.fleet.state import FleetEntry
from registry.layout import examples_key
from tests.registry.memory_store import MemoryStore
from training import lake
from training.examples import Example, fingerprint
from training.feedback import LEAST_ANSWERED, LEAST_PROMPTED, join_feedback, limit_prompted, poor_acceptance
from training.inputs import Inputs
from training.lake import Lake
from training.record import TrainingRecord

NOW = datetime(2026, 11, 28, 3, tzinfo=UTC)
AT = NOW.timestamp() - 86_400


def example(ticket: str = "t1", macro: str | None = "m1", **more: Any) -> Example:
    return Example(ticket_id=ticket, body="Where is my parcel?", macro_id=macro, **more)


def shown(*macros: str, ticket: str | None = "t1", suggestion: str = "s1", at: float = AT, **more: Any) -> Shown:
    return Shown(tenant="acme", at=at, suggestion_id=suggestion, ticket_id=ticket, macros=macros, **more)


def told(
    applied: str | None, *, ticket: str | None = "t1", suggestion: str = "s1", at: float = AT, **more: Any
) -> Feedback:
    name = f"{suggestion}{applied}{at}"
    return Feedback(tenant="acme", at=at, id=name, suggestion_id=suggestion, ticket_id=ticket, applied=applied, **more)


def joined(one: Example, *records: Shown | Feedback) -> Example:
    (after,) = join_feedback([one], records)
    return after


def test_without_feedback_nothing_changes() -> None:
    assert joined(example()) == example()
    assert joined(example(), shown("m1", ticket="other"), told("m2", ticket="other")) == example()


def test_what_was_applied_is_the_label() -> None:
    assert joined(example(macro=None), told("m2")).macro_ids == ("m2",)
    assert joined(example(macro="m1", also=("m3",)), told("m2")).macro_ids == ("m2",)
    assert joined(example(macro="m1", also=("m3",)), told("m3")).macro_ids == ("m1", "m3")
    assert joined(example(), told("m2", at=AT), told("m3", at=AT - 1)).macro_id == "m2"


@pytest.mark.parametrize("view_first", [True, False])
def test_feedback_on_one_ticket_relabels_no_other(view_first: bool) -> None:
    """Who holds a key for feedback has the id of a suggestion, and names a ticket that it was not made for."""
    view = shown("m1", "m9", ticket="t1", suggestion="s1")
    lie = told("m9", ticket="t2", suggestion="s1")
    records: list[Shown | Feedback] = [view, lie] if view_first else [lie, view]
    one, other = join_feedback([example("t1"), example("t2")], records)
    assert (one.macro_id, other) == ("m1", example("t2"))
    # What is said of the ticket itself counts, and so does what nobody can know better.
    records += [told("m3", ticket="t1", suggestion="s1"), told("m4", ticket="t2", suggestion="nobody knows")]
    one, other = join_feedback([example("t1"), example("t2")], records)
    assert (one.macro_id, other.macro_id) == ("m3", "m4")


def test_what_is_no_macro_of_the_catalogue_takes_no_label_away() -> None:
    records = [told("Where is my parcel"), told("m2", ticket="t2")]
    after = join_feedback([example(), example("t2")], records, known={"m1", "m2"})
    assert [one.macro_ids for one in after] == [("m1",), ("m2",)]


def test_a_label_that_feedback_makes_has_its_time() -> None:
    assert joined(example(macro=None), told("m2")).applied_at == datetime.fromtimestamp(AT, UTC)
    assert joined(example(applied_at=NOW), told("m2")).applied_at == NOW


def test_that_nothing_was_applied_is_no_label() -> None:
    assert joined(example(), told(None)) == example()


def test_feedback_without_a_ticket_is_joined_by_its_view() -> None:
    assert joined(example(macro=None), told("m2", ticket=None), shown("m2")).macro_id == "m2"


@pytest.mark.parametrize(
    ("records", "prompted"),
    [
        ([shown("m1", "m2")], True),
        ([shown("m2")], False),
        ([shown()], False),
        ([shown("m1", held_back=True)], False),
        ([told("m1", shown=("m1",))], True),
        ([told("m1", shown=())], False),
        ([told("m1")], None),
        ([shown("m1", held_back=True), shown("m1", suggestion="s2")], True),
    ],
)
def test_whether_a_label_was_prompted(records: list[Shown | Feedback], prompted: bool | None) -> None:
    assert joined(example(), *records).prompted is prompted


def test_a_ticket_without_a_label_was_prompted_by_nothing() -> None:
    assert joined(example(macro=None), shown("m1")).prompted is None


def test_the_digest_of_the_data_sees_feedback_and_is_what_it_was_without() -> None:
    before = [example(), example("t2", None)]
    assert fingerprint(before) == fingerprint(join_feedback(before, []))
    digests = {
        fingerprint(join_feedback(before, records))
        for records in ([], [shown("m1")], [shown("m2")], [told("m2")], [told("m2", ticket="t2")])
    }
    assert len(digests) == 5


def test_prompted_rows_are_limited_by_the_others_of_their_macro() -> None:
    def rows(macro: str, count: int, prompted: bool | None) -> list[Example]:
        return [
            example(f"{macro}-{prompted}-{number}", macro, prompted=prompted, applied_at=NOW + timedelta(hours=number))
            for number in range(count)
        ]

    left = limit_prompted(
        [
            *rows("few", LEAST_PROMPTED, True),
            *rows("many", 200, True),
            *rows("many", 80, False),
            *rows("mixed", 100, True),
            *rows("mixed", 90, None),
            *rows("unknown", 300, None),
        ]
    )
    counts = Counter((one.macro_id, one.prompted) for one in left)
    assert counts == {
        ("few", True): LEAST_PROMPTED,
        ("many", True): 80,
        ("many", False): 80,
        ("mixed", True): 90,
        ("mixed", None): 90,
        ("unknown", None): 300,
    }
    kept = [one.applied_at for one in left if one.macro_id == "many" and one.prompted]
    assert min(kept) == NOW + timedelta(hours=120)  # type: ignore[type-var]  # the newest


INPUTS = Inputs(data="1" * 64, catalogue="2" * 64, program="3" * 64, settings="4" * 64)
SERVING = FleetEntry(version="a" * 16, manifest="a" * 64)


def record(days: float = 10) -> TrainingRecord:
    finished = NOW - timedelta(days=days)
    return TrainingRecord(state="trained", inputs=INPUTS.digest, parts=INPUTS, finished_at=finished)


def views(count: int, accepted: int, *, version: str = "a" * 16, at: float = AT) -> list[Shown | Feedback]:
    records: list[Shown | Feedback] = []
    for number in range(count):
        records.append(shown("m1", suggestion=f"{version}{number}", at=at, model_version=version))
        records.append(told("m1" if number < accepted else None, suggestion=f"{version}{number}", at=at))
    return records


def poor(
    records: list[Shown | Feedback], found: TrainingRecord | None = None, entry: FleetEntry | None = SERVING
) -> str | None:
    return poor_acceptance("acme", records, found or record(), entry, NOW, least=0.2)


def test_poor_acceptance_is_a_reason() -> None:
    assert poor(views(LEAST_ANSWERED, 5)) == "acceptance fell to 10% of 50 suggestions, below 20%"
    assert poor(views(LEAST_ANSWERED, 10)) is None


def test_little_other_or_old_feedback_is_none() -> None:
    assert poor(views(LEAST_ANSWERED - 1, 0)) is None
    assert poor(views(LEAST_ANSWERED, 0, version="b" * 16)) is None
    assert poor(views(LEAST_ANSWERED, 0, at=AT - 30 * 86_400)) is None
    assert poor(views(LEAST_ANSWERED, 0), entry=FleetEntry(reason="new")) is None
    assert poor(views(LEAST_ANSWERED, 0), record(days=3)) is None


def test_a_bound_of_zero_is_never_reached() -> None:
    assert poor_acceptance("acme", views(LEAST_ANSWERED, 0), record(), SERVING, NOW, least=0.0) is None


def test_files_of_earlier_releases_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(versioned=False)
    with monkeypatch.context() as patch:
        patch.setattr(lake, "_SCHEMA", {name: kind for name, kind in lake._SCHEMA.items() if name != "prompted"})
        Lake(store).merge("acme", [example()])
    assert "prompted" not in pl.read_parquet(store.get(examples_key("acme")).data).columns
    assert Lake(store).read("acme") == [example()]
    Lake(store).merge("acme", [example(prompted=True)])
    assert Lake(store).read("acme") == [example(prompted=True)]
