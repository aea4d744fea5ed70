"""Tickets to ask about, as request bodies."""

from __future__ import annotations

from itertools import cycle, islice

from registry.documents import canonical_json
from training.synthetic import make_tenant

WORDS = 50


def ticket_bodies(count: int, *, seed: int, words: int | None = None) -> list[bytes]:
    """Request bodies of made-up English tickets, 40 words in the median.

    Args:
        words: cut or fill every ticket (subject and message together) to so many, its own words again from the start.
    """
    tickets = make_tenant("bench", seed=seed, tickets=count, locale="en").tickets
    return [
        canonical_json(
            {
                "ticket": {
                    "id": ticket.ticket_id,
                    "subject": ticket.subject,
                    "comments": [
                        {
                            "author": "customer",
                            "public": True,
                            "body": ticket.body if words is None else _sized(ticket.subject, ticket.body, words),
                        }
                    ],
                }
            }
        )
        for ticket in tickets
    ]


def _sized(subject: str, body: str, words: int) -> str:
    return " ".join(islice(cycle(body.split()), max(1, words - len(subject.split()))))
