"""Examples: a ticket as it was when an agent applied a macro to it, and that macro. The label is what the agent did."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from registry.ticket import ticket_text

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Example:
    """One labelled ticket.

    Attributes:
        ticket_id: unique within a tenant.
        body: the customer's first message as it came in, HTML and all.
        latest: the customer's latest message before the macro was applied, where that is not the first.
        macro_id: the macro that was applied; None where it is known that nothing fits (out of scope).
        also: further macros that were applied to it.
        applied_at: when the macro was applied, else when the ticket was made; None where neither is known.
        split: train, val or test where the data come with a split of their own.
    """

    ticket_id: str
    body: str
    macro_id: str | None
    subject: str = ""
    latest: str = ""
    also: tuple[str, ...] = ()
    channel: str = ""
    locale: str = ""
    applied_at: datetime | None = None
    split: str | None = None

    @cached_property
    def text(self) -> str:
        """What the model reads of it, cleaned; kept, because training reads it several times."""
        return ticket_text(self.subject, [message for message in (self.body, self.latest) if message])

    @property
    def macro_ids(self) -> tuple[str, ...]:
        """All macros that were applied."""
        return self.also if self.macro_id is None else (self.macro_id, *self.also)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Examples to fit on, to choose a threshold on, and to report figures on; no row is in two of them.

    Attributes:
        borrowed: the validation rows were taken from the training rows, for want of any of their own.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    borrowed: bool


def fingerprint(examples: Iterable[Example]) -> str:
    """A digest over what training reads of the examples, whatever their order."""
    rows = sorted(
        json.dumps([e.ticket_id, e.text, e.macro_ids, e.split, e.applied_at and e.applied_at.isoformat()])
        for e in examples
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def split_examples(
    examples: Sequence[Example], *, test_share: float = 0.15, validation_share: float = 0.1, most_validation: int = 500
) -> Split:
    """Cut examples the way production meets them: the future is the test.

    A split that comes with the data is kept. Otherwise the latest `test_share` by time is the test. What has no
    validation rows gives up the latest `validation_share` of its training rows, at most `most_validation`. Rows
    without a time are ordered by a digest of their id, which is as good as chance and the same every time.
    """
    if any(example.split for example in examples):
        train, validation, test = ([e for e in examples if (e.split or "train") == name] for name in SPLITS)
    else:
        ordered = _in_order(examples)
        cut = len(ordered) - round(test_share * len(ordered))
        train, validation, test = ordered[:cut], [], ordered[cut:]
    borrowed = not validation
    if borrowed:
        ordered = _in_order(train)
        cut = len(ordered) - min(most_validation, round(validation_share * len(ordered)))
        train, validation = ordered[:cut], ordered[cut:]
    return Split(train=tuple(train), validation=tuple(validation), test=tuple(test), borrowed=borrowed)


def _in_order(examples: Iterable[Example]) -> list[Example]:
    def place(example: Example) -> tuple[float, str]:
        when = example.applied_at.timestamp() if example.applied_at else 0.0
        return when, hashlib.sha256(example.ticket_id.encode()).hexdigest()

    return sorted(examples, key=place)
