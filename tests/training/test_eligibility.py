from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from registry.catalogue import Catalogue, Macro, make_catalogue
from training.eligibility import judge_eligibility
from training.examples import Example
from training.settings import TrainingSettings

NOW = datetime(2026, 11, 28, tzinfo=UTC)
SETTINGS = TrainingSettings()


def tickets(count: int, *macros: str | None, days: float | None = 1, also: tuple[str, ...] = ()) -> list[Example]:
    when = None if days is None else NOW - timedelta(days=days)
    return [
        Example(ticket_id=f"{days}-{n}", body="", macro_id=macros[n % len(macros)], also=also, applied_at=when)
        for n in range(count)
    ]


def reason(rows: list[Example], catalogue: Catalogue | None = None, settings: TrainingSettings = SETTINGS) -> str:
    return judge_eligibility(rows, catalogue, settings, NOW).reason


def test_a_hundred_recent_tickets_and_three_macros_will_do() -> None:
    found = judge_eligibility(tickets(100, "a", "b", "c"), None, SETTINGS, NOW)
    assert (found.eligible, found.tickets, found.macros, found.reason) == (True, 100, 3, "")


def test_too_few_tickets_are_counted() -> None:
    assert reason(tickets(62, "a", "b", "c")) == ("62 tickets with a shared macro in the last 9 months, 100 are needed")
    assert reason(tickets(99, "a", "b", "c") + tickets(40, "a", days=275)) == (
        "99 tickets with a shared macro in the last 9 months (40 more are older), 100 are needed"
    )


def test_too_few_macros_are_counted() -> None:
    assert reason(tickets(200, "a", "b")) == "2 shared macros used in that time, 3 are needed"
    assert reason(tickets(200, "a", "b") + tickets(5, "c", days=400)) == (
        "2 shared macros used in that time, 3 are needed"
    ), "one that is not used any more is not used"
    assert reason(tickets(1, "a")) == (
        "1 ticket with a shared macro in the last 9 months, 100 are needed; "
        "1 shared macro used in that time, 3 are needed"
    )


@pytest.mark.parametrize(("days", "counts"), [(0, True), (273, True), (273.9, True), (274, False), (-1, True)])
def test_the_last_nine_months_count(days: float, counts: bool) -> None:
    assert (reason(tickets(100, "a", "b", "c", days=days)) == "") == counts


def test_tickets_without_a_time_are_taken_as_recent() -> None:
    assert reason(tickets(100, "a", "b", "c", days=None)) == ""


def test_ones_own_macros_and_retired_ones_do_not_count() -> None:
    catalogue = make_catalogue(
        [
            Macro(id="a", title="A"),
            Macro(id="b", title="B", restriction={"type": "Group", "ids": [1]}),
            Macro(id="c", title="C", restriction={"type": "User", "id": 7}),
            Macro(id="d", title="D", active=False),
        ]
    )
    found = judge_eligibility(tickets(100, "a", "b", "c", "d", "gone"), catalogue, SETTINGS, NOW)
    assert (found.tickets, found.macros) == (40, 2)
    both = judge_eligibility(tickets(10, "c", also=("a",)), catalogue, SETTINGS, NOW)
    assert (both.tickets, both.macros) == (10, 1), "a ticket counts once, for what is shared"


def test_tickets_that_nothing_fitted_do_not_count() -> None:
    assert judge_eligibility(tickets(100, None), None, SETTINGS, NOW).tickets == 0


def test_all_of_it_can_be_set() -> None:
    rows = tickets(20, "a", "b", days=100)
    assert reason(rows, settings=TrainingSettings(least_tickets=20, least_macros=2)) == ""
    assert reason(rows, settings=TrainingSettings(least_tickets=20, least_macros=2, months=3)) == (
        "0 tickets with a shared macro in the last 3 months (20 more are older), 20 are needed; "
        "0 shared macros used in that time, 2 are needed"
    )
