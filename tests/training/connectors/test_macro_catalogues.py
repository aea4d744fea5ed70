import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.zendesk_server import AUTHORIZATION, Account, Fault, ZendeskServer
from registry.errors import HelpDeskRefused
from training.connectors import macro_catalogues
from training.connectors.client import HelpDesk
from training.connectors.macro_catalogues import (
    chatwoot_credentials,
    chatwoot_macro,
    gorgias_credentials,
    gorgias_macro,
    intercom_credentials,
    intercom_macro,
    read_chatwoot,
    read_gorgias,
    read_intercom,
)
from training.connectors.pace import Pace

PACE = Pace(None)


@contextmanager
def answering(path: str, *bodies: Any) -> Iterator[tuple[HelpDesk, ZendeskServer]]:
    with ZendeskServer(Account()) as server:
        server.fail(path, [Fault(body=json.dumps(body).encode()) for body in bodies])
        with HelpDesk(server.url, {"Authorization": AUTHORIZATION}, attempts=1) as desk:
            yield desk, server


def test_gorgias() -> None:
    row = {
        "id": 23453, "name": "Order status", "actions": [
            {"name": "addTags", "arguments": {"tags": "a, b"}, "title": "Add tags", "type": "user"},
            {"name": "setResponseText", "arguments": {"body_text": "Hi {{ticket.customer.firstname}}, delivered."}},
        ],
    }  # fmt: skip
    pages = (
        {"data": [row], "object": "list", "meta": {"prev_cursor": None, "next_cursor": "abc"}},
        {"data": [{"id": 2, "name": "Old", "archived_datetime": "2026-01-01"}], "meta": {"next_cursor": None}},
    )
    with answering("/api/macros", *pages) as (desk, server):
        one, two = read_gorgias(desk, PACE)
        assert server.targets == ["/api/macros?limit=100", "/api/macros?limit=100&cursor=abc"]
    assert (one.id, one.title, one.restriction, one.active, two.active) == ("23453", "Order status", None, True, False)
    assert one.reply == "Hi , delivered."
    assert one.actions[0]["arguments"] == {"tags": "a, b"}


def test_intercom() -> None:
    row = {
        "type": "macro", "id": "123", "name": "Status", "body": "<p>Hi</p>", "body_text": "Hi there",
        "visible_to": "specific_teams", "visible_to_team_ids": ["456", 789],
    }  # fmt: skip
    pages = (
        {"type": "list", "data": [row], "pages": {"type": "pages", "next": {"starting_after": "WzE3XQ=="}}},
        {"type": "list", "data": [row | {"id": "2", "visible_to": "everyone"}], "pages": {"next": None}},
    )
    with answering("/macros", *pages) as (desk, server):
        one, two = read_intercom(desk, PACE)
        assert server.targets[1] == "/macros?per_page=50&starting_after=WzE3XQ%3D%3D"
    assert (one.restriction, two.restriction) == ({"type": "Group", "ids": ["456", "789"]}, None)
    assert (one.reply, one.personal) == ("Hi there", False)


def test_chatwoot() -> None:
    row = {
        "id": 1, "name": "Close", "visibility": "global", "created_by": {"id": 4}, "account_id": 9, "actions": [
            {"action_name": "send_message", "action_params": ["Thank you!"]},
            {"action_name": "resolve_conversation", "action_params": []},
        ],
    }  # fmt: skip
    pages: tuple[dict[str, Any], ...] = ({"payload": [row, row | {"id": 2, "visibility": "personal"}]}, {"payload": []})
    with answering("/api/v1/accounts/9/macros", *pages) as (desk, server):
        one, two = read_chatwoot(desk, PACE, account=9)
        assert len(server.targets) == 2
    assert (one.reply, one.restriction, two.personal) == ("Thank you!", None, True)
    # A version that knows no pages gives the first one again.
    with answering("/api/v1/accounts/9/macros", *[pages[0]] * 3) as (desk, server):
        assert len(read_chatwoot(desk, PACE, account=9)) == 2
        assert len(server.targets) == 2


def test_a_cursor_that_comes_again_is_an_error_and_no_end() -> None:
    rows = [[{"id": number, "name": "n"}] for number in range(3)]
    gorgias = [{"data": row, "meta": {"next_cursor": cursor}} for row, cursor in zip(rows, "aba", strict=True)]
    with (
        answering("/api/macros", *gorgias) as (desk, server),
        pytest.raises(HelpDeskRefused, match=r"pages of /api/macros lead back") as raised,
    ):
        read_gorgias(desk, PACE)
    assert (len(server.targets), "cursors" in raised.value.remedy) == (3, True)
    # A page with nothing new is not the last one by that.
    intercom = [
        {"data": row, "pages": {"next": {"starting_after": cursor} if cursor else None}}
        for row, cursor in ((rows[0], "a"), (rows[0], "b"), (rows[1], ""))
    ]
    with answering("/macros", *intercom) as (desk, _):
        assert len(read_intercom(desk, PACE)) == 2


def test_pages_without_an_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macro_catalogues, "_MOST_PAGES", 3)
    pages = [{"data": [{"id": number, "name": "n"}], "meta": {"next_cursor": f"c{number}"}} for number in range(4)]
    with answering("/api/macros", *pages) as (desk, _), pytest.raises(HelpDeskRefused, match="do not end after 3"):
        read_gorgias(desk, PACE)


@pytest.mark.parametrize(
    "body", [{}, [], {"data": {}}, {"data": [1]}, {"data": [{"name": "no id"}]}, {"data": [{"id": True}]}]
)
def test_other_shapes_are_refused(body: Any) -> None:
    with answering("/api/macros", body) as (desk, _), pytest.raises(HelpDeskRefused, match="docs/connectors"):
        read_gorgias(desk, PACE)


@pytest.mark.parametrize("macro_of", [gorgias_macro, intercom_macro, chatwoot_macro])
@pytest.mark.parametrize("actions", [None, {}, "x", [None, 1], [{"arguments": 7, "action_params": 7}]])
def test_odd_actions_are_no_reason_to_fail(macro_of: Any, actions: Any) -> None:
    assert macro_of({"id": 1, "name": None, "actions": actions}).title == "1"


def test_credentials() -> None:
    assert gorgias_credentials("k", "a@b.example") == {"Authorization": "Basic YUBiLmV4YW1wbGU6aw=="}
    assert intercom_credentials("t")["Authorization"] == "Bearer t"
    assert chatwoot_credentials("t") == {"api_access_token": "t"}
