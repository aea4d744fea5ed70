"""Examples: a ticket as it was when an agent applied a macro to it, and that macro. The label is what the agent did."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from registry.text.ticket import ticket_text
from training.duplicates import near_duplicates

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
        prompted: whether the macro was applied after it had been suggested; None where that is not known.
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
    prompted: bool | None = None

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
    """Examples to fit on, to calibrate on, and to report figures on; no row is in two of them.

    Attributes:
        validation: empty where the data mark none; `training.holdout` then holds out some of `train`.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]


def fingerprint(examples: Iterable[Example]) -> str:
    """A digest over what training reads of the examples, whatever their order."""
    rows = sorted(json.dumps(_read_of(example)) for example in examples)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def split_examples(examples: Sequence[Example], *, test_share: float = 0.15) -> Split:
    """Cut examples the way production meets them: the future is the test.

    A split that comes with rows is kept. Of the others the latest `test_share` by time is the test, but for rows that
    nearly repeat an earlier one: those go where the first of them is, so that nobody is asked what he was told. (The
    test is the smaller for it.) Rows without a time are ordered by a digest of their id, which is as good as chance
    and the same every time.
    """
    train, validation, test = ([e for e in examples if e.split == name] for name in SPLITS)
    # A help desk's rows, say, beside those of a file with a split: or the file's would be the test for ever.
    unmarked = [example for example in examples if example.split is None]
    earlier, later = cut_by_time(unmarked, round(test_share * len(unmarked)), after=(*train, *validation))
    return Split(train=(*train, *earlier), validation=tuple(validation), test=(*test, *later))


def cut_by_time(
    examples: Iterable[Example], count: int, *, after: Sequence[Example] = ()
) -> tuple[list[Example], list[Example]]:
    """All but the latest `count`, and these; near-duplicates are with the first of them, whatever its side.

    Args:
        after: rows that came before all of them, and are not returned.
    """
    ordered = [*after, *_in_order(examples)]
    if len(ordered) == len(after):
        return [], []
    cut = len(ordered) - count
    earlier = near_duplicates([example.text for example in ordered]) < cut
    sides = list(zip(ordered, earlier, strict=True))[len(after) :]
    return [example for example, before in sides if before], [example for example, before in sides if not before]


def digest(text: str) -> str:
    """What rows are ordered by where no time orders them: the same every time, and nothing else."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _read_of(e: Example) -> list[object]:
    read: list[object] = [e.ticket_id, e.text, e.macro_ids, e.split, e.applied_at and e.applied_at.isoformat()]
    # Tickets without feedback have the digest that they had before there was any.
    return read if e.prompted is None else [*read, e.prompted]


def _in_order(examples: Iterable[Example]) -> list[Example]:
    def place(example: Example) -> tuple[float, str]:
        when = example.applied_at.timestamp() if example.applied_at else 0.0
        return when, digest(example.ticket_id)

    return sorted(examples, key=place)
