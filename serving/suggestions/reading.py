"""What a model reads of a ticket: made at once where the ticket is short, in pieces where it is long."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeVar

from registry.text.steps import Steps
from registry.text.ticket import asked_text, asked_text_in_steps
from serving.engine.pieces import Pieces
from serving.metrics import Metrics

T = TypeVar("T")
# In code points. At once, a ticket of so many takes 1.1 ms at most, whatever is in it, and one of words 0.05 (docs/serving.md).
LONG = 1_000


class TicketReader:
    """Makes `registry.text.ticket.asked_text` of tickets. Owned by one event loop.

    Args:
        timeout_seconds: until a caller who does not say stops waiting.
        metrics: counts what is refused, and how long it takes to read what is long.
        pieces: does what is long.
    """

    def __init__(self, *, timeout_seconds: float, metrics: Metrics, pieces: Pieces | None = None) -> None:
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._pieces = pieces or Pieces(refused=metrics.refused)

    def check(self, tenant: str) -> None:
        """Raises Overloaded or TenantThrottled where `read` would refuse a long ticket now."""
        self._pieces.check(tenant)

    async def read(
        self, tenant: str, subject: str, messages: Sequence[str], timeout_seconds: float | None
    ) -> tuple[str, float | None]:
        """The text, and how long the caller waits from now on.

        Args:
            tenant: whose turn a long one takes.
            subject, messages: as for `asked_text`.
            timeout_seconds: how long the caller waits; None takes the setting, and stays None where no time was spent.

        Raises:
            Overloaded, TenantThrottled, DeadlineExceeded: see `Pieces.run`.
        """
        if _length(subject, messages) <= LONG:
            return asked_text(subject, messages), timeout_seconds
        return await self._in_pieces(tenant, asked_text_in_steps(subject, messages), timeout_seconds)

    async def read_all(
        self, tenant: str, tickets: Sequence[tuple[str, Sequence[str]]], timeout_seconds: float | None
    ) -> tuple[list[str], float | None]:
        """The same of several tickets, each a subject and messages, which together are long or not."""
        if sum(_length(*ticket) for ticket in tickets) <= LONG:
            return [asked_text(*ticket) for ticket in tickets], timeout_seconds
        return await self._in_pieces(tenant, _all_in_steps(tickets), timeout_seconds)

    async def _in_pieces(self, tenant: str, steps: Steps[T], timeout_seconds: float | None) -> tuple[T, float]:
        began = time.monotonic()
        deadline = began + (self._timeout_seconds if timeout_seconds is None else timeout_seconds)
        made = await self._pieces.run(steps, tenant=tenant, deadline=deadline)
        now = time.monotonic()
        self._metrics.phase("read", now - began)
        return made, max(deadline - now, 0.0)


def _length(subject: str, messages: Sequence[str]) -> int:
    """Code points of what is looked at."""
    if not messages:
        return len(subject)
    return len(subject) + len(messages[0]) + (len(messages[-1]) if len(messages) > 1 else 0)


def _all_in_steps(tickets: Sequence[tuple[str, Sequence[str]]]) -> Steps[list[str]]:
    texts = []
    for ticket in tickets:
        texts.append((yield from asked_text_in_steps(*ticket)))
        yield
    return texts
