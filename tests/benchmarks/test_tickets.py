from __future__ import annotations

import json
import statistics
from typing import Any

import pytest

from benchmarks.tickets import ticket_bodies


def tickets(count: int, *, seed: int = 1, words: int | None = 50) -> list[dict[str, Any]]:
    return [json.loads(body)["ticket"] for body in ticket_bodies(count, seed=seed, words=words)]


def message_of(ticket: dict[str, Any]) -> str:
    message: str = ticket["comments"][0]["body"]
    return message


def word_count(ticket: dict[str, Any]) -> int:
    return len(ticket["subject"].split()) + len(message_of(ticket).split())


def test_they_are_the_same_for_the_same_seed() -> None:
    once = ticket_bodies(20, seed=1, words=50)
    assert once == ticket_bodies(20, seed=1, words=50)
    assert not set(once) & set(ticket_bodies(20, seed=2, words=50))


def test_they_are_as_many_as_asked_and_differ() -> None:
    assert len({json.dumps(ticket["comments"]) for ticket in tickets(200)}) == 200


@pytest.mark.parametrize("words", [10, 50, 400])
def test_they_have_as_many_words_as_asked(words: int) -> None:
    assert {word_count(ticket) for ticket in tickets(100, words=words)} == {words}


@pytest.mark.parametrize("words", [10, 50, 400])
def test_they_are_cut_or_filled_with_their_own_words_from_the_start(words: int) -> None:
    for whole, sized in zip(tickets(50, words=None), tickets(50, words=words), strict=True):
        assert sized["subject"] == whole["subject"]
        own = message_of(whole).split()
        found = message_of(sized).split()
        assert found == [own[place % len(own)] for place in range(len(found))]


def test_they_are_as_long_as_people_write_unless_asked_otherwise() -> None:
    lengths = [word_count(ticket) for ticket in tickets(400, words=None)]
    assert 35 < statistics.median(lengths) < 45
    assert len(set(lengths)) > 20


def test_they_are_what_the_server_takes() -> None:
    """One public message of the customer's: what `ticket_text` reads."""
    for ticket in tickets(5):
        assert ticket.keys() == {"id", "subject", "comments"}
        (comment,) = ticket["comments"]
        assert (comment["author"], comment["public"]) == ("customer", True)
