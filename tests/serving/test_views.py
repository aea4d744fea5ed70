"""Which views are held back, and what the observer is told."""

from __future__ import annotations

from typing import Any

import pytest

from serving.suggestions.asking import Answer
from serving.suggestions.choice import SuggestedMacro, Suggestions
from serving.suggestions.views import Views, is_held_back

MACRO = SuggestedMacro("m1", "Where is my parcel", 0.9)


class Noted:
    def __init__(self) -> None:
        self.views: list[dict[str, Any]] = []

    def shown(self, tenant: str, **about: Any) -> None:
        self.views.append({"tenant": tenant, **about})


def answer(*macros: SuggestedMacro) -> Answer:
    suggestions = Suggestions(macros, None if macros else "below_threshold")
    return Answer(suggestion_id="s1", model_version="v1", suggestions=suggestions)


@pytest.mark.parametrize("share", [0.02, 0.03, 0.05, 0.5])
def test_the_share_is_kept(share: float) -> None:
    held = sum(is_held_back("salt", f"tenant-{number % 7}", str(number), share) for number in range(20_000))
    assert held / 20_000 == pytest.approx(share, rel=0.15)


def test_a_ticket_is_always_in_or_always_out_and_in_every_greater_share() -> None:
    small = {number for number in range(5000) if is_held_back("salt", "acme", str(number), 0.02)}
    assert small == {number for number in range(5000) if is_held_back("salt", "acme", str(number), 0.02)}
    assert small < {number for number in range(5000) if is_held_back("salt", "acme", str(number), 0.05)}
    assert small != {number for number in range(5000) if is_held_back("salt", "beta", str(number), 0.02)}
    assert small != {number for number in range(5000) if is_held_back("other", "acme", str(number), 0.02)}


def test_nothing_is_held_back_of_a_tenant_that_does_not_want_it() -> None:
    assert not any(is_held_back("salt", "acme", str(number), 0.0) for number in range(5000))


def test_what_was_to_be_shown_is_noted_whether_it_was_or_not() -> None:
    noted = Noted()
    assert not Views(noted, share_of=lambda _: 0.0, salt="s").see("acme", "4711", answer(MACRO))
    assert Views(noted, share_of=lambda _: 1.0, salt="s").see("acme", "4711", answer(MACRO))
    said = {
        "tenant": "acme",
        "suggestion_id": "s1",
        "model_version": "v1",
        "macro_ids": ["m1"],
        "abstained": False,
        "ticket_id": "4711",
    }
    assert noted.views == [{**said, "held_back": False}, {**said, "held_back": True}]


def test_a_view_with_nothing_to_show_is_not_held_back() -> None:
    noted = Noted()
    assert not Views(noted, share_of=lambda _: 1.0, salt="s").see("acme", "4711", answer())
    assert [(view["abstained"], view["held_back"]) for view in noted.views] == [(True, False)]


def test_who_looks_at_the_model_sees_everything_and_is_not_counted() -> None:
    noted = Noted()
    assert not Views(noted, share_of=lambda _: 1.0, salt="s").see("acme", "4711", answer(MACRO), eligible=False)
    assert not Views(noted, share_of=lambda _: 1.0, salt="s").see("acme", None, answer(MACRO))
    assert noted.views == []
