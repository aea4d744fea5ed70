"""Macro catalogues of Gorgias, Intercom and Chatwoot. Their tickets come as files: `macrofleet tickets import`.

A macro keeps its actions as the help desk says them; where one says something to the customer, the text stands beside as
`text`, which `Macro.reply` reads. Who may use it is put as Zendesk puts it (`{"type": "Group", "ids": […]}` for teams,
`{"type": "User", …}` for one agent), so that whoever serves it need not know where it came from.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from registry.catalogue import Macro
from registry.errors import HelpDeskRefused
from training.connectors.client import HelpDesk, endless_pages, repeated_page
from training.connectors.pace import Pace

INTERCOM_HOSTS = {"us": "api.intercom.io", "eu": "api.eu.intercom.io", "au": "api.au.intercom.io"}
GORGIAS_DOMAIN = "gorgias.com"
_MOST_PAGES = 1000
_MOST_ACTIONS = 200


def gorgias_credentials(key: str, email: str) -> dict[str, str]:
    """The header for an API key and the e-mail address of its user."""
    return {"Authorization": f"Basic {b64encode(f'{email}:{key}'.encode()).decode()}"}


def intercom_credentials(token: str) -> dict[str, str]:
    """The headers for an access token."""
    return {"Authorization": f"Bearer {token}", "Intercom-Version": "Preview"}


def chatwoot_credentials(token: str) -> dict[str, str]:
    """The header for a user's access token."""
    return {"api_access_token": token}


def read_gorgias(desk: HelpDesk, pace: Pace) -> list[Macro]:
    """All macros: `GET /api/macros`, `meta.next_cursor`. Raises HelpDeskRefused."""

    def following(body: Any) -> dict[str, str | int] | None:
        cursor = _of(body, "meta", "next_cursor")
        return {"limit": 100, "cursor": cursor} if isinstance(cursor, str) and cursor else None

    return _read(desk, pace, "/api/macros", {"limit": 100}, "data", following, gorgias_macro)


def read_intercom(desk: HelpDesk, pace: Pace) -> list[Macro]:
    """All macros that the token's user may see: `GET /macros`, `pages.next.starting_after`. Raises HelpDeskRefused."""

    def following(body: Any) -> dict[str, str | int] | None:
        cursor = _of(body, "pages", "next", "starting_after")
        return {"per_page": 50, "starting_after": cursor} if isinstance(cursor, str) and cursor else None

    return _read(desk, pace, "/macros", {"per_page": 50}, "data", following, intercom_macro)


def read_chatwoot(desk: HelpDesk, pace: Pace, *, account: int) -> list[Macro]:
    """All macros that the token's user may see: pages are counted, and end with one that has none. Raises HelpDeskRefused."""
    page = 1

    def following(body: Any) -> dict[str, str | int] | None:
        nonlocal page
        page += 1
        return {"page": page} if _of(body, "payload") else None

    path = f"/api/v1/accounts/{account:d}/macros"
    return _read(desk, pace, path, {"page": 1}, "payload", following, chatwoot_macro, counted=True)


def gorgias_macro(one: Mapping[str, Any]) -> Macro:
    """A macro of Gorgias."""
    actions = []
    for action in _actions(one):
        said = action.get("arguments")
        text = (said.get("body_text") or said.get("body_html")) if isinstance(said, dict) else None
        actions.append({**action, "text": text} if isinstance(text, str) else action)
    return _macro(one, one.get("name"), active=not one.get("archived_datetime"), actions=actions)


def intercom_macro(one: Mapping[str, Any]) -> Macro:
    """A macro of Intercom: a saved reply."""
    text = one.get("body_text") or one.get("body")
    teams = one.get("visible_to_team_ids")
    restriction = None
    if one.get("visible_to") not in {None, "everyone"}:
        ids = [str(team) for team in teams] if isinstance(teams, list) else []
        restriction = {"type": "Group", "ids": ids}
    actions = [{"text": text}] if isinstance(text, str) else []
    return _macro(one, one.get("name"), restriction=restriction, actions=actions)


def chatwoot_macro(one: Mapping[str, Any]) -> Macro:
    """A macro of Chatwoot. One of which it is not said that all may use it is its maker's own."""
    actions = []
    for action in _actions(one):
        said = action.get("action_params")
        text = said[0] if isinstance(said, list) and said and action.get("action_name") == "send_message" else None
        actions.append({**action, "text": text} if isinstance(text, str) else action)
    restriction = None if one.get("visibility") == "global" else {"type": "User", "id": _of(one, "created_by", "id")}
    return _macro(one, one.get("name"), restriction=restriction, actions=actions)


def _read(
    desk: HelpDesk,
    pace: Pace,
    path: str,
    parameters: Mapping[str, str | int],
    name: str,
    following: Callable[[Any], Mapping[str, str | int] | None],
    macro_of: Callable[[Mapping[str, Any]], Macro],
    *,
    counted: bool = False,
) -> list[Macro]:
    """All pages.

    Args:
        following: what to ask for the page after one, None after the last.
        counted: by numbers of our own, which a release may not know that gives everything at once: there, a page with nothing
            new is the end. Who gives cursors knows them.
    """
    seen: list[Mapping[str, str | int]] = []
    macros: dict[str, Macro] = {}
    asked: Mapping[str, str | int] | None = parameters
    for _ in range(_MOST_PAGES):
        body = desk.get(path, asked, pace=pace)
        rows = _of(body, name)
        if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
            raise _unexpected(name)
        before = len(macros)
        for one in rows:
            macro = macro_of(one)
            macros[macro.id] = macro
        asked = following(body)
        if asked is None or (counted and len(macros) == before):
            return list(macros.values())
        if asked in seen:
            raise repeated_page(path)
        seen.append(asked)
    raise endless_pages(path, _MOST_PAGES)


def _macro(
    one: Mapping[str, Any],
    title: Any,
    *,
    active: bool = True,
    restriction: dict[str, Any] | None = None,
    actions: Iterable[dict[str, Any]] = (),
) -> Macro:
    number = one.get("id")
    try:
        if isinstance(number, bool) or not isinstance(number, int | str):
            raise TypeError
        return Macro(
            id=str(number).strip(),
            title=str(title or number)[:512],
            active=active,
            restriction=restriction,
            actions=tuple(actions)[:_MOST_ACTIONS],
        )
    except (ValueError, TypeError):
        raise _unexpected("macro") from None


def _actions(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = one.get("actions")
    return [action for action in found if isinstance(action, dict)] if isinstance(found, list) else []


def _of(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _unexpected(what: str) -> HelpDeskRefused:
    return HelpDeskRefused(
        f"the help desk's answer has no {what} as docs/connectors.md describes it",
        remedy="Its API has changed, or the address is another service's.",
    )
