"""A ticket's audits to examples: which macro was applied, and what the ticket said just before. Nothing is read from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from registry.text.masking import masked
from training.connectors.zendesk import Ticket, names_macro, time_of, writable
from training.examples import Example

# Of one message, in code points; a model reads 4,000 of a ticket.
MOST_OF_MESSAGE = 16_000


@dataclass(slots=True)
class Labelled:
    """What came of a ticket.

    Attributes:
        examples: one for every state of the ticket that macros were applied to.
        deleted: references to macros that are gone from the account.
        unresolved: references without an id, whose title names no macro, or more than one.
        wordless: references before which the customer had said nothing.
    """

    examples: list[Example] = field(default_factory=list)
    deleted: int = 0
    unresolved: int = 0
    wordless: int = 0


@dataclass(slots=True)
class _Said:
    author: Any
    public: bool
    body: str


def label(
    ticket: Ticket, audits: Sequence[Mapping[str, Any]], *, ids: Mapping[str, str | None], mask: bool = True
) -> Labelled:
    """The examples of a ticket.

    A macro is a label for what the ticket said before the audit that has its reference: the macro's own reply is in that
    same audit, and the customer's thanks come later. Macros that were applied with nothing said in between are labels of one
    example; later ones are an example of their own, whose id is the ticket's, `#` and the audit's.

    A customer is whoever was the ticket's requester, unless he applied a macro: nobody else's role is known for sure, and an
    agent's words taken for a customer's would be the answer among the question.

    Args:
        audits: oldest first.
        ids: macro ids by title; None where a title is several macros'.
        mask: replace personal data in subject and messages.
    """
    found = Labelled()
    customers = _customers(ticket, audits)
    said: dict[Any, _Said] = {}
    subject = _first_subject(ticket, audits)
    for audit in audits:
        events = [event for event in audit.get("events") or () if isinstance(event, dict)]
        macros = list(dict.fromkeys(_macros(events, ids, found)))
        if macros:
            _add(found, ticket, audit, subject, _messages(said, customers), macros, mask=mask)
        for number, event in enumerate(events):
            kind = event.get("type")
            if kind == "Comment":
                author = event.get("author_id") or audit.get("author_id")
                key = event.get("id") or (audit.get("id"), number)
                said[key] = _Said(
                    author, event.get("public") is not False, _text(event.get("body") or event.get("html_body"))
                )
            elif kind == "CommentPrivacyChange" and event.get("comment_id") in said:
                said[event["comment_id"]].public = event.get("public") is True
            elif kind == "Change" and event.get("field_name") == "subject":
                subject = _text(event.get("value")) or subject
    return found


def _add(
    found: Labelled,
    ticket: Ticket,
    audit: Mapping[str, Any],
    subject: str,
    messages: Sequence[str],
    macros: Sequence[str],
    *,
    mask: bool,
) -> None:
    hide = masked if mask else str
    first = hide(messages[0])[:MOST_OF_MESSAGE] if messages else ""
    latest = hide(messages[-1])[:MOST_OF_MESSAGE] if len(messages) > 1 else ""
    example = Example(
        ticket_id=str(ticket.id),
        subject=hide(subject),
        body=first,
        latest=latest,
        macro_id=macros[0],
        also=tuple(macros[1:]),
        channel=ticket.channel,
        locale=ticket.locale,
        applied_at=_time(audit),
    )
    if not (first or example.subject).strip():
        found.wordless += len(macros)
        return
    before = found.examples[-1] if found.examples else None
    if before is None:
        found.examples.append(example)
    elif (before.subject, before.body, before.latest) == (example.subject, first, latest):
        further = tuple(macro for macro in macros if macro not in before.macro_ids)
        found.examples[-1] = replace(before, also=(*before.also, *further))
    else:
        found.examples.append(replace(example, ticket_id=f"{ticket.id}#{audit.get('id')}"))


def _macros(events: Iterable[Mapping[str, Any]], ids: Mapping[str, str | None], found: Labelled) -> Iterable[str]:
    for event in filter(names_macro, events):
        found.deleted += event.get("macro_deleted") is True
        macro = event.get("macro_id")
        # A number from some endpoints, its digits from others.
        known = str(macro).strip() if isinstance(macro, int | str) and not isinstance(macro, bool) else ""
        known = known or ids.get(str(event.get("macro_title") or "")) or ""
        if known and len(known) <= 128:
            yield known
        else:
            found.unresolved += 1


def _customers(ticket: Ticket, audits: Iterable[Mapping[str, Any]]) -> frozenset[int]:
    requesters: set[int | None] = {ticket.requester}
    agents = set()
    for audit in audits:
        for event in audit.get("events") or ():
            if not isinstance(event, dict):
                continue
            if names_macro(event):
                agents.add(audit.get("author_id"))
            elif event.get("field_name") == "requester_id":
                requesters |= {_number(event.get("value")), _number(event.get("previous_value"))}
    return frozenset(one for one in requesters - agents if one)


def _messages(said: Mapping[Any, _Said], customers: frozenset[int]) -> list[str]:
    return [one.body for one in said.values() if one.public and one.author in customers and one.body.strip()]


def _first_subject(ticket: Ticket, audits: Sequence[Mapping[str, Any]]) -> str:
    """The subject that the ticket was made with; the one of today only where no audit tells of another."""
    changes = [
        event
        for audit in audits
        for event in audit.get("events") or ()
        if isinstance(event, dict) and event.get("field_name") == "subject"
    ]
    for event in changes:
        if event.get("type") == "Create":
            return _text(event.get("value"))
    if changes:
        return _text(changes[0].get("previous_value"))
    return _text(ticket.subject)


def _number(value: Any) -> int | None:
    text = str(value) if isinstance(value, int | str) else ""
    return int(text) if text.isdecimal() else None


def _time(audit: Mapping[str, Any]) -> datetime | None:
    return time_of(audit.get("created_at"))


def _text(value: Any) -> str:
    return writable(value) if isinstance(value, str) else ""
