"""Zendesk's API as documented: macros, the export of tickets, their audits, and the export of their events.

docs/connectors.md says where each shape is from, and which of them nobody has seen with real data.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from registry.catalogue import Macro
from registry.errors import HelpDeskRefused
from training.connectors.client import HelpDesk, endless_pages, repeated_page
from training.connectors.pace import Pace

DOMAIN = "zendesk.com"
# Of the exports; with the High Volume add-on 30.
EXPORT_RATE = 10.0
_PAGE = 100
_EXPORT_PAGE = 1000
_MOST_PAGES = 100_000
MACRO_REFERENCE = "AgentMacroReference"
# What an export may answer to a cursor that it does not know any more: undocumented, so whatever says "not this".
_EXPIRED = frozenset((400, 404, 410, 422))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A ticket as the export has it; its messages are in its audits.

    Attributes:
        updated: seconds since the epoch; what later exports are told apart by.
        requester: id of the user whose ticket it is; 0 where none is said.
    """

    id: int
    updated: float
    requester: int
    subject: str
    channel: str
    locale: str
    deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of an export.

    Attributes:
        cursor: names the next page, now or in a later run.
        last: whether there is nothing further now.
    """

    tickets: tuple[Ticket, ...]
    cursor: str
    last: bool


class CursorExpired(Exception):
    """The export does not know the cursor any more: start again by time."""


def credentials(token: str, email: str | None) -> dict[str, str]:
    """The header for an API token, which is an e-mail address' own, or for an OAuth token, which needs none."""
    if email is None:
        return {"Authorization": f"Bearer {token}"}
    return {"Authorization": f"Basic {b64encode(f'{email}/token:{token}'.encode()).decode()}"}


def read_macros(desk: HelpDesk, pace: Pace) -> list[Macro]:
    """All macros that the token's user may see, active or not. Raises HelpDeskRefused where one is none."""
    path, parameters = "/api/v2/macros.json", {"page[size]": _PAGE}
    macros: dict[str, Macro] = {}
    for body in _pages(desk, path, parameters, pace):
        for one in _list(body, "macros"):
            macro = macro_of(one)
            macros[macro.id] = macro  # a macro that moved to another page meanwhile stands twice
    return list(macros.values())


def macro_of(one: Mapping[str, Any]) -> Macro:
    """A macro of the catalogue. Its restriction and its actions stay as Zendesk says them."""
    restriction = one.get("restriction")
    actions = [action for action in one.get("actions") or () if isinstance(action, dict)]
    try:
        return Macro(
            id=_id(one["id"]),
            title=str(one.get("title") or one.get("raw_title") or one["id"])[:512],
            active=one.get("active") is not False,
            restriction=restriction if isinstance(restriction, dict) else None,
            actions=tuple(actions[:200]),
        )
    except (KeyError, ValueError, TypeError):
        raise _unexpected("a macro") from None


def export_tickets(
    desk: HelpDesk, pace: Pace, *, cursor: str | None, since: int, page_size: int = _EXPORT_PAGE
) -> Iterator[Page]:
    """Tickets that changed, oldest change first, from a cursor on, or from a time where there is none yet.

    Args:
        since: seconds since the epoch.

    Raises:
        CursorExpired: the cursor is not known any more.
        HelpDeskRefused: a page names one as the next that came before: what follows cannot be had. What came is right.
    """
    path = "/api/v2/incremental/tickets/cursor.json"
    seen = {cursor}
    for _ in range(_MOST_PAGES):  # what is further goes on from the last cursor, in the next run
        parameters: dict[str, str | int] = {"per_page": page_size, "include": "users"}
        parameters |= {"start_time": since} if cursor is None else {"cursor": cursor}
        try:
            body = desk.get(path, parameters, pace=pace)
        except HelpDeskRefused as refused:
            if cursor is not None and refused.status in _EXPIRED:
                raise CursorExpired from None
            raise
        page = _page(body, cursor)
        yield page
        if page.last:
            return
        cursor = page.cursor
        if cursor in seen:
            raise repeated_page("tickets")
        seen.add(cursor)


def read_audits(desk: HelpDesk, pace: Pace, ticket: int) -> list[dict[str, Any]] | None:
    """All updates of a ticket, oldest first; None where the ticket is gone."""
    audits: dict[int, dict[str, Any]] = {}
    try:
        for body in _pages(desk, f"/api/v2/tickets/{ticket}/audits.json", {"page[size]": _PAGE}, pace):
            for number, audit in enumerate(_list(body, "audits"), start=len(audits)):
                audits[audit.get("id") or -number] = audit
    except HelpDeskRefused as refused:
        if refused.status == 404:
            return None
        raise
    return sorted(audits.values(), key=lambda audit: (str(audit.get("created_at") or ""), audit.get("id") or 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """A page of ticket events.

    Attributes:
        events: how many.
        with_macro: tickets whose events name a macro.
        end: seconds since the epoch; where the next page begins.
    """

    events: int
    with_macro: tuple[int, ...]
    end: int
    last: bool


def export_macro_uses(desk: HelpDesk, pace: Pace, *, since: int) -> Iterator[EventPage]:
    """Which tickets a macro was applied to since a time, where the account's ticket events say so.

    Raises:
        HelpDeskRefused: the next page would be this one again, and it says that it is not the last.
    """
    for _ in range(_MOST_PAGES):  # as in `export_tickets`
        body = desk.get(
            "/api/v2/incremental/ticket_events.json", {"start_time": since, "include": "comment_events"}, pace=pace
        )
        events = _list(body, "ticket_events")
        found = tuple(
            dict.fromkeys(
                event["ticket_id"]
                for event in events
                if isinstance(event.get("ticket_id"), int) and any(map(names_macro, event.get("child_events") or ()))
            )
        )
        end = body.get("end_time")
        ended = body.get("end_of_stream")
        stuck = ended is False and bool(events) and isinstance(end, int) and end <= since
        last = not stuck and (ended is True or not isinstance(end, int) or end <= since)
        yield EventPage(events=len(events), with_macro=found, end=end if isinstance(end, int) else since, last=last)
        if stuck:
            raise repeated_page("ticket events")
        if last:
            return
        since = end


def names_macro(event: Any) -> bool:
    """Whether an event says that a macro was applied."""
    if not isinstance(event, dict):
        return False
    kind = event.get("type") or event.get("event_type")
    return kind == MACRO_REFERENCE and (event.get("macro_id") is not None or bool(event.get("macro_title")))


def _page(body: Any, cursor: str | None) -> Page:
    locales = {
        user.get("id"): str(user.get("locale") or "")
        for user in (body.get("users") or () if isinstance(body, dict) else ())
        if isinstance(user, dict)
    }
    tickets = tuple(_ticket(one, locales) for one in _list(body, "tickets"))
    after = body.get("after_cursor")
    last = body.get("end_of_stream") is True or after is None
    if after is not None and not isinstance(after, str):
        raise _unexpected("after_cursor")
    if after is None and cursor is None and tickets:
        raise _unexpected("after_cursor")
    return Page(tickets=tickets, cursor=after or cursor or "", last=last)


def _ticket(one: Mapping[str, Any], locales: Mapping[Any, str]) -> Ticket:
    try:
        via = one.get("via")
        return Ticket(
            id=_whole(one["id"]),
            updated=float(_whole(one.get("generated_timestamp") or seconds_of(one.get("updated_at")) or 0)),
            requester=_whole(one.get("requester_id") or 0),
            subject=writable(str(one.get("raw_subject") or one.get("subject") or "")),
            channel=writable(str(via.get("channel") or "")) if isinstance(via, dict) else "",
            locale=writable(locales.get(one.get("requester_id"), "")),
            deleted=one.get("status") == "deleted",
        )
    except (KeyError, ValueError, TypeError, OverflowError):
        raise _unexpected("a ticket") from None


def _whole(value: Any) -> int:
    """A number that the store's files have room for. Raises ValueError, TypeError or OverflowError."""
    found = int(value)
    if not -(2**63) <= found < 2**63:
        raise OverflowError
    return found


def writable(text: str) -> str:
    """A text that any file can hold: escapes such as \\ud800 in JSON are halves of characters."""
    return text.encode("utf-8", "replace").decode().replace("\x00", " ")


def seconds_of(when: Any) -> float | None:
    """Seconds since the epoch of an ISO 8601 time."""
    found = time_of(when)
    return None if found is None else found.timestamp()


def time_of(when: Any) -> datetime | None:
    """An ISO 8601 time in UTC; None where it is none."""
    if not isinstance(when, str):
        return None
    try:
        found = datetime.fromisoformat(when)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):  # the first or the last day there is, in another time zone
        return None


def _pages(desk: HelpDesk, path: str, parameters: Mapping[str, str | int], pace: Pace) -> Iterator[Any]:
    """Pages by cursor, or by the next one's address where the endpoint has no cursors.

    Raises:
        HelpDeskRefused: a page names one as the next that came before, or they do not end.
    """
    asked: Mapping[str, str | int] | None = parameters
    seen: set[str] = set()
    for _ in range(_MOST_PAGES):
        body = desk.get(path, asked, pace=pace)
        yield body
        meta = body.get("meta") if isinstance(body, dict) else None
        cursor = meta.get("after_cursor") if isinstance(meta, dict) and meta.get("has_more") else None
        following = body.get("next_page") if isinstance(body, dict) else None
        if isinstance(cursor, str):
            asked = {**parameters, "page[after]": cursor}
        elif meta is None and isinstance(following, str):
            path, asked, cursor = following, None, following
        if not isinstance(cursor, str) or not cursor:
            return
        if cursor in seen:
            raise repeated_page(path)
        seen.add(cursor)
    raise endless_pages(path, _MOST_PAGES)


def _list(body: Any, name: str) -> Sequence[dict[str, Any]]:
    found = body.get(name) if isinstance(body, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _unexpected(name)
    return found


def _id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
        raise TypeError
    return str(value).strip()


def _unexpected(what: str) -> HelpDeskRefused:
    return HelpDeskRefused(
        f"the help desk's answer has no {what} as docs/connectors.md describes it",
        remedy="Its API has changed, or the base URL is another service's.",
    )
