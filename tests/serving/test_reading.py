"""Reading tickets: the same text whether at once or in pieces, and no long one at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import DeadlineExceeded
from registry.text.ticket import asked_text, asked_text_in_steps
from serving.access import ANY_SUGGESTION
from serving.answering import Answering
from serving.engine.pieces import Pieces
from serving.faces.product import SuggestionFace
from serving.metrics import Metrics
from serving.suggestions.reading import LONG, TicketReader
from serving.suggestions.views import Views
from tests.registry.test_masking import OF_RULES
from tests.registry.test_ticket import LINES
from tests.serving.helpers import spin

pytestmark = pytest.mark.anyio
KIBIBYTES_64 = 65_536
# What took longest, by which part of the reading.
WORST = [
    "00 49 30 1 2 3 4 5 6 7 8 ",
    "4 1 1 1 ",
    "\u0660\u0661 ",
    "03.04.2024 ",
    "<p>",
    "x<br>",
    "<p id=x_x_>",
    "From: x\n",
    "> x\n",
]


def reader(pieces: Pieces | None = None) -> TicketReader:
    return TicketReader(timeout_seconds=30.0, metrics=Metrics(), pieces=pieces)


async def test_a_short_ticket_is_read_at_once() -> None:
    read = reader().read("acme", "Re: Parcel", ["Call 0170 1234567", "<p>Hello?</p>"], timeout_seconds=None)
    with pytest.raises(StopIteration) as end:
        read.send(None)
    assert end.value.value == ("Parcel\nCall [phone]\nHello?", None)


@pytest.mark.parametrize("piece", WORST)
async def test_a_long_ticket_says_the_same(piece: str) -> None:
    text = (piece * KIBIBYTES_64)[: KIBIBYTES_64 // 3]
    pieces = Pieces(piece_seconds=0.0)
    task = asyncio.create_task(reader(pieces).read("acme", text, [text, f"{text}x"], timeout_seconds=20.0))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    said, left = await task
    assert said == asked_text(text, [text, f"{text}x"])
    assert left is not None
    assert 0 < left < 20
    assert turns > 8, "others had no turn"


@pytest.mark.parametrize("piece", WORST)
def test_no_long_text_is_read_in_one_step(piece: str) -> None:
    text = (piece * KIBIBYTES_64)[:KIBIBYTES_64]
    assert len(list(asked_text_in_steps("", [text]))) >= 4


async def test_tickets_that_are_long_together_are_long() -> None:
    said = "4 1 1 1 " * (LONG // 8 // 16 + 1)
    tickets: list[tuple[str, Sequence[str]]] = [("", [said])] * 16
    texts, left = await reader().read_all("acme", tickets[:15], timeout_seconds=None)
    assert (texts, left) == ([asked_text("", [said])] * 15, None)
    texts, left = await reader().read_all("acme", tickets, timeout_seconds=None)
    assert texts == [asked_text("", [said])] * 16
    assert left is not None
    assert 0 < left <= 30


async def test_a_long_ticket_that_is_late_is_refused() -> None:
    text = "4 1 1 1 " * 8_000
    with pytest.raises(DeadlineExceeded):
        await reader(Pieces(piece_seconds=0.0)).read("acme", "", [text], timeout_seconds=0.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from([*OF_RULES, *LINES, "\n"]) | st.text(max_size=9)).map("".join), max_size=3))
def test_any_ticket_says_the_same(messages: list[str]) -> None:
    long = [message * (LONG // max(len(message), 1) + 1) for message in messages]
    pieces = Pieces(piece_seconds=0.0, ahead_seconds=1e6)
    said, _ = asyncio.run(reader(pieces).read("acme", "", long, timeout_seconds=None))
    assert said == asked_text("", long)


class Open:
    """Lets everybody in."""

    def ask(self, tenant: str) -> None:
        pass


async def test_a_long_body_is_refused_unread_while_enough_of_the_tenants_are_read() -> None:
    pieces = Pieces(piece_seconds=0.0, max_waiting=4)
    long = "4 1 1 1 " * 8_000
    task = asyncio.create_task(reader(pieces).read("acme", "", [long], timeout_seconds=None))
    await spin(1)
    face = SuggestionFace(cast(Answering, Open()), cast(Views, None), reader(pieces))

    def status(tenant: str, length: str) -> int | None:
        answer = face.refusal(tenant, f"/v1/tenants/{tenant}/suggestions", ANY_SUGGESTION, length)
        return answer.status_code if answer else None

    assert pieces.waiting == 1
    assert status("acme", "64000") == 429
    assert [status("acme", length) for length in ("9999", "")] == [None, None]
    assert status("bolt", "64000") is None
    await task
    assert status("acme", "64000") is None
