"""What of a ticket a model reads; the one place, the same for training and serving."""

from __future__ import annotations

from collections.abc import Sequence


def ticket_text(subject: str, messages: Sequence[str]) -> str:
    """The text a model is given: the subject, the customer's first message and, where there are more, the latest.

    Args:
        subject: may be empty.
        messages: the customer's public messages, oldest first.
    """
    parts = [subject, *messages[:1], *messages[1:][-1:]]
    return "\n".join(part for part in (part.strip() for part in parts) if part)
