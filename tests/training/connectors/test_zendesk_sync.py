from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.zendesk_server import Account, Fault, ZendeskServer, add_ticket, macro
from registry.catalogue import read_catalogue
from registry.errors import HelpDeskRefused, HelpDeskUnavailable, InvalidInput, PublishConflict
from registry.layout import examples_key, sync_prefix
from registry.store.local import LocalStore
from tests.training.connectors.zendesk_world import (
    AGENT,
    JANE,
    NOW,
    START,
    comment,
    plain_ticket,
    small_account,
    synced,
    used,
)
from training.lake import Lake

EXPORT = "/api/v2/incremental/tickets/cursor.json"
EVENTS = "/api/v2/incremental/ticket_events.json"
MACROS = "/api/v2/macros.json"
AUDITS = "/api/v2/tickets/{}/audits.json"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def serve() -> Iterator[Callable[[Account], ZendeskServer]]:
    running: list[ZendeskServer] = []

    def start(account: Account) -> ZendeskServer:
        running.append(ZendeskServer(account).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__(None, None, None)


Serve = Callable[[Account], ZendeskServer]


def ids(store: LocalStore) -> list[str]:
    return [example.ticket_id for example in Lake(store).read("acme")]


def test_everything_once(store: LocalStore, serve: Serve) -> None:
    server = serve(small_account())
    report = synced(store, server)
    assert (report.tickets, report.pages, report.audited, report.labelled, report.added) == (5, 3, 5, 5, 5)
    assert (report.macros, report.waiting, report.throttled) == (3, 0, 0)
    first = Lake(store).read("acme")[0]
    assert (first.ticket_id, first.subject, first.body, first.latest) == ("1", "Parcel 1", "Where is 1?", "")
    assert (first.macro_id, first.channel) == ("360000002", "email")
    assert first.applied_at is not None
    assert first.applied_at.timestamp() == START + 1000 + 60
    catalogue = read_catalogue(store, "acme")
    assert catalogue is not None
    assert [(one.id, one.active) for one in catalogue[0].macros][-1] == ("360000003", False)


def test_again_nothing_is_asked_twice_or_added(store: LocalStore, serve: Serve) -> None:
    server = serve(small_account())
    synced(store, server)
    etag = store.head(examples_key("acme")).etag
    server.asked.clear()
    report = synced(store, server)
    assert (report.added, report.changed, report.removed, report.audited, report.tickets) == (0, 0, 0, 0, 0)
    assert server.asked == {MACROS: 1, EXPORT: 1}
    assert store.head(examples_key("acme")).etag == etag
    assert [found.key for found in store.list(sync_prefix("acme", "zendesk"))] == [
        f"{sync_prefix('acme', 'zendesk')}state.json"
    ]


def test_from_nothing_again_the_lake_stays_as_it_was(store: LocalStore, serve: Serve) -> None:
    server = serve(small_account())
    synced(store, server)
    store.delete(f"{sync_prefix('acme', 'zendesk')}state.json")
    report = synced(store, server)
    assert (report.added, report.changed, report.unchanged, report.removed) == (0, 0, 5, 0)


def test_a_later_run_reads_what_changed(store: LocalStore, serve: Serve) -> None:
    account = small_account()
    server = serve(account)
    synced(store, server)
    plain_ticket(account, 9)
    server.asked.clear()
    assert synced(store, server).added == 1
    assert server.asked[AUDITS.format(9)] == 1
    assert server.asked[AUDITS.format(1)] == 0


def test_throttling_is_obeyed_and_counted(store: LocalStore, serve: Serve) -> None:
    server = serve(small_account())
    for path in (EXPORT, AUDITS.format(3), MACROS):
        server.fail(path, [Fault(status=429, headers={"Retry-After": "0"})])
    report = synced(store, server)
    assert (report.throttled, report.added) == (3, 5)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=503, headers={"Retry-After": "0"}),
        Fault(cut=20),
        Fault(body=b'{"tickets": ['),
        Fault(status=502, body=b"<html>Bad Gateway"),
    ],
    ids=["500", "503", "cut off", "half a body", "502"],
)
@pytest.mark.parametrize("path", [EXPORT, AUDITS.format(3), MACROS], ids=["export", "audits", "macros"])
def test_what_fails_for_the_moment_is_asked_again(store: LocalStore, serve: Serve, path: str, fault: Fault) -> None:
    server = serve(small_account())
    server.fail(path, [fault, fault])
    report = synced(store, server)
    assert (report.added, report.retried) == (5, 2)


def test_what_keeps_failing_ends_the_run_and_the_next_one_goes_on(store: LocalStore, serve: Serve) -> None:
    server = serve(small_account())
    server.fail(AUDITS.format(2), [Fault(status=500)] * 6)
    with pytest.raises(HelpDeskUnavailable):
        synced(store, server, threads=1)
    read_before = [n for n in range(1, 6) if server.asked[AUDITS.format(n)] == 1]
    assert read_before, "newer ones were read"
    server.asked.clear()
    report = synced(store, server)
    assert ids(store) == ["1", "2", "3", "4", "5"]
    assert report.added == 5
    assert server.asked[EXPORT] == 1, "from its cursor"
    assert not any(server.asked[AUDITS.format(n)] for n in read_before if n > 2)


def test_ctrl_c_loses_nothing(store: LocalStore, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(small_account())

    def interrupted(asked: set[Any], **_: Any) -> Any:
        some = concurrent.futures.as_completed(asked)
        for _number in range(3):
            next(some)
        raise KeyboardInterrupt

    monkeypatch.setattr("training.connectors.zendesk_sync.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synced(store, server)
    monkeypatch.undo()
    asked = sum(server.asked[AUDITS.format(n)] for n in range(1, 6))
    assert asked >= 3
    report = synced(store, server)
    assert (report.added, report.labelled) == (5, 5 - asked)
    assert sum(server.asked[AUDITS.format(n)] for n in range(1, 6)) == 5, "nobody was asked for twice"


def test_a_crash_between_any_two_writes_is_made_good(tmp_path: Path, serve: Serve) -> None:
    server = serve(small_account())
    for most in range(40):
        store = _Failing(tmp_path / str(most), most)
        try:
            synced(store, server)
        except OSError:
            store.left = 10**6
            synced(store, server)
        else:
            assert most > 8, "it writes less often than it should"
            return
        assert ids(store) == ["1", "2", "3", "4", "5"], most


class _Failing(LocalStore):
    def __init__(self, folder: Path, left: int) -> None:
        super().__init__(folder)
        self.left = left

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        if self.left == 0:
            raise OSError
        self.left -= 1
        return super().put(key, data, if_match=if_match, if_absent=if_absent)


def test_an_expired_cursor_begins_again_by_time(store: LocalStore, serve: Serve) -> None:
    account = small_account()
    server = serve(account)
    synced(store, server)
    plain_ticket(account, 9)
    account.generation = 1
    server.targets.clear()
    assert synced(store, server).added == 1
    again = [target for target in server.targets if "start_time" in target and EXPORT in target]
    assert len(again) == 1
    assert "start_time=0" not in again[0], "not from the beginning of all time"


def _page(server: ZendeskServer, ticket: dict[str, Any], after: str, *, end: bool = False) -> Fault:
    body = {"tickets": [ticket], "users": server.account.users, "after_cursor": after, "end_of_stream": end}
    return Fault(body=json.dumps(body).encode())


@pytest.mark.parametrize("cursors", [["0-1", "0-1"], ["0-1", "0-2", "0-1"]], ids=["the same again", "round"])
def test_an_export_that_leads_back_is_an_error_and_keeps_what_came(
    store: LocalStore, serve: Serve, cursors: list[str]
) -> None:
    account = small_account()
    server = serve(account)
    server.fail(EXPORT, [_page(server, account.tickets[place], cursor) for place, cursor in enumerate(cursors)])
    with pytest.raises(HelpDeskRefused, match=r"pages of tickets lead back to one that it gave before") as raised:
        synced(store, server)
    assert "kept" in raised.value.remedy
    assert server.asked[EXPORT] == len(cursors)
    # Mended, it goes on from there, and nothing is missing.
    assert synced(store, server).waiting == 0
    assert ids(store) == ["1", "2", "3", "4", "5"]


def test_the_last_page_may_name_itself(store: LocalStore, serve: Serve) -> None:
    account = small_account()
    server = serve(account)
    synced(store, server)
    cursor = f"{account.generation}-{len(account.tickets)}"
    server.fail(EXPORT, [_page(server, account.tickets[0], cursor, end=True)])
    assert synced(store, server).pages == 1


def test_audits_and_macros_that_lead_back_are_an_error(store: LocalStore, serve: Serve) -> None:
    server = serve(small_account())
    again = {"meta": {"has_more": True, "after_cursor": "1"}}
    for path, name in ((MACROS, "macros"), (AUDITS.format(5), "audits")):
        server.fail(path, [Fault(body=json.dumps({name: [], **again}).encode())] * 2)
        with pytest.raises(HelpDeskRefused, match=f"pages of {path} lead back"):
            synced(store, server)
    synced(store, server)
    assert ids(store) == ["1", "2", "3", "4", "5"]


def test_events_that_lead_back_are_an_error(store: LocalStore, serve: Serve) -> None:
    server = serve(small_account())
    stuck = {"ticket_events": [{"ticket_id": 1, "child_events": []}], "end_time": 0, "end_of_stream": False}
    server.fail(EVENTS, [Fault(body=json.dumps(stuck).encode())])
    with pytest.raises(HelpDeskRefused, match="pages of ticket events lead back"):
        synced(store, server)


def test_pages_that_repeat_tickets_are_read_once(store: LocalStore, serve: Serve) -> None:
    account = small_account()
    account.tickets += account.tickets[-3:]
    server = serve(account)
    assert (synced(store, server).tickets, ids(store)) == (8, ["1", "2", "3", "4", "5"])
    assert max(server.asked[AUDITS.format(n)] for n in range(1, 6)) == 1


def test_the_newest_are_read_first_where_not_all_are(store: LocalStore, serve: Serve) -> None:
    server = serve(small_account())
    report = synced(store, server, audits=2)
    assert (report.audited, report.waiting, ids(store)) == (2, 3, ["4", "5"])
    report = synced(store, server, audits=2)
    assert (report.audited, report.waiting, ids(store)) == (2, 1, ["2", "3", "4", "5"])
    assert synced(store, server).waiting == 0
    assert len(ids(store)) == 5


def test_deleted_tickets_leave_the_lake(store: LocalStore, serve: Serve) -> None:
    account = small_account()
    server = serve(account)
    synced(store, server)
    account.tickets.append(account.tickets[0] | {"status": "deleted", "generated_timestamp": START + 90_000})
    account.tickets.append(account.tickets[1] | {"generated_timestamp": START + 90_001})
    del account.audits[2]
    report = synced(store, server)
    assert (report.removed, report.gone) == (2, 1)
    assert ids(store) == ["3", "4", "5"]


def test_deleting_leaves_what_others_imported(store: LocalStore, serve: Serve) -> None:
    account = small_account(1)
    server = serve(account)
    synced(store, server)
    one = Lake(store).read("acme")[0]
    from dataclasses import replace

    Lake(store).merge("acme", [replace(one, ticket_id=name) for name in ("x1", "1-1", "1#", "1#b", "12")])
    account.tickets.append(account.tickets[0] | {"status": "deleted", "generated_timestamp": START + 90_000})
    assert synced(store, server).removed == 1
    assert ids(store) == ["1#", "1#b", "1-1", "12", "x1"]


def test_events_spare_audits_where_they_name_macros(store: LocalStore, serve: Serve) -> None:
    account = small_account()
    add_ticket(account, 6, START + 6000, JANE, [(JANE, [comment("No macro here", JANE)])])
    for number in range(1, 7):
        child = (
            {"event_type": "AgentMacroReference", "macro_id": 360000001} if number < 6 else {"event_type": "Comment"}
        )
        account.events.append({"ticket_id": number, "timestamp": START + number, "child_events": [child]})
    server = serve(account)
    report = synced(store, server)
    assert (report.events, report.audited, report.added) == (True, 5, 5)
    assert server.asked[AUDITS.format(6)] == 0
    assert "include=comment_events" in next(target for target in server.targets if EVENTS in target)
    server.asked.clear()
    plain_ticket(account, 9)
    account.events.append(
        {
            "ticket_id": 9,
            "timestamp": START + 90_000,
            "child_events": [{"type": "AgentMacroReference", "macro_id": "1"}],
        }
    )
    assert synced(store, server).added == 1


def test_an_event_that_comes_later_than_its_ticket_is_not_missed(store: LocalStore, serve: Serve) -> None:
    account = small_account(2)
    uses = [
        {
            "ticket_id": number,
            "timestamp": NOW - 600 + number,
            "child_events": [{"type": "AgentMacroReference", "macro_id": 1}],
        }
        for number in (1, 2)
    ]
    account.tickets = [one | {"generated_timestamp": NOW - 600 + one["id"]} for one in account.tickets]
    account.events = uses[:1]
    server = serve(account)
    assert synced(store, server).added == 1
    account.events = uses
    assert (synced(store, server).added, ids(store)) == (1, ["1", "2"])
    assert synced(store, server).audited == 0


def test_half_of_what_the_account_may_is_asked_for(store: LocalStore, serve: Serve) -> None:
    account = small_account()
    account.rate_limit = 60_000
    said: list[str] = []
    synced(store, serve(account), rate=None, step=lambda text, _share: said.append(text))
    assert "5 tickets to read, at 30000 a minute: about 0 seconds" in said


def test_events_that_name_no_macro_are_looked_at_once(store: LocalStore, serve: Serve) -> None:
    account = small_account()
    account.events = [{"ticket_id": 1, "timestamp": START, "child_events": [{"event_type": "Comment"}]}]
    server = serve(account)
    assert (synced(store, server).events, ids(store)) == (False, ["1", "2", "3", "4", "5"])
    plain_ticket(account, 9)
    server.asked.clear()
    synced(store, server)
    assert server.asked[EVENTS] == 0


def test_a_catalogue_of_several_pages_keeps_restrictions(store: LocalStore, serve: Serve) -> None:
    group = {"type": "Group", "id": 7, "ids": [7, 8]}
    account = small_account()
    account.macros = [
        macro(1), macro(2, restriction=group), macro(3, restriction={"type": "User", "id": 501}),
        macro(4, actions=[{"field": "comment_value", "value": ["channel:all", "Hello {{ticket.id}}"]}]), macro(5, title=""),
    ]  # fmt: skip
    account.page = 2
    synced(store, serve(account))
    found = read_catalogue(store, "acme")
    assert found is not None
    by_id = {one.id[-1]: one for one in found[0].macros}
    assert (by_id["2"].restriction, by_id["3"].personal, by_id["4"].reply) == (group, True, "Hello")
    assert sorted(one[-1] for one in found[0].suggestible()) == ["1", "4", "5"]


def test_examples_of_deleted_macros_stay_in_the_lake(store: LocalStore, serve: Serve) -> None:
    account = small_account(1)
    updates = [(JANE, [comment("Where?", JANE)]), (AGENT, [used(99, macro_id=360000099, macro_deleted=True)])]
    add_ticket(account, 7, START, JANE, updates)
    report = synced(store, serve(account))
    assert report.references == {"deleted": 1, "unresolved": 0, "wordless": 0}
    assert {example.macro_id for example in Lake(store).read("acme")} == {"360000002", "360000099"}


def test_no_macros_at_all_do_not_replace_those_there_are(store: LocalStore, serve: Serve) -> None:
    account = small_account()
    server = serve(account)
    synced(store, server)
    account.macros = []
    with pytest.raises(InvalidInput, match="shows no macros"):
        synced(store, server)


def test_another_account_is_refused(store: LocalStore, serve: Serve) -> None:
    server = serve(small_account())
    synced(store, server)
    with pytest.raises(InvalidInput, match="--restart"):
        synced(store, server, account="other")


def test_of_two_at_once_one_is_refused(store: LocalStore, serve: Serve) -> None:
    account = small_account()
    with pytest.raises(PublishConflict, match="another synchronisation"):
        _interleaved(store, serve(account), serve(account))
    assert ids(store) == ["1", "2", "3", "4", "5"]


def _interleaved(store: LocalStore, first: ZendeskServer, second: ZendeskServer) -> None:
    """A run of which a whole other one comes in between."""
    done: list[bool] = []

    class Between(LocalStore):
        def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
            if "/labelled-" in key and not done:
                done.append(True)
                synced(store, second)
            return super().put(key, data, if_match=if_match, if_absent=if_absent)

    synced(Between(Path(store.url.removeprefix("file://"))), first)


def test_a_wrong_token_is_said_without_the_token(
    store: LocalStore, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    from benchmarks import zendesk_server

    server = serve(small_account())
    caplog.set_level(0)
    original = zendesk_server.AUTHORIZATION
    zendesk_server.AUTHORIZATION = "Basic other"
    try:
        with pytest.raises(HelpDeskRefused) as caught:
            synced(store, server)
    finally:
        zendesk_server.AUTHORIZATION = original
    assert caught.value.status == 401
    assert "administrator" in caught.value.remedy
    assert zendesk_server.TOKEN not in str(caught.value) + caplog.text


def test_redirects_are_not_followed(store: LocalStore, serve: Serve) -> None:
    elsewhere = serve(small_account())
    server = serve(small_account())
    server.fail(MACROS, [Fault(status=302, headers={"Location": f"{elsewhere.url}{MACROS}"})])
    with pytest.raises(HelpDeskRefused, match="302"):
        synced(store, server)
    assert not elsewhere.asked


def test_further_pages_on_another_host_are_not_followed(store: LocalStore, serve: Serve) -> None:
    elsewhere = serve(small_account())
    server = serve(small_account())
    body = {"macros": [macro(1)], "next_page": f"{elsewhere.url}{MACROS}?page=2"}
    server.fail(MACROS, [Fault(body=json.dumps(body).encode())])
    with pytest.raises(InvalidInput, match="another host"):
        synced(store, server)
    assert not elsewhere.asked


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{}", b'{"macros": {}}', b'{"macros": [1]}', b'{"macros": [{"title": "no id"}]}', b"null", b"[" * 9999],
)
def test_other_shapes_are_refused(store: LocalStore, serve: Serve, body: bytes) -> None:
    server = serve(small_account())
    server.fail(MACROS, [Fault(body=body)] * 6)
    with pytest.raises((HelpDeskRefused, HelpDeskUnavailable)):
        synced(store, server)


@pytest.mark.parametrize("fields", [{"generated_timestamp": float("inf")}, {"requester_id": 2**70}, {"id": 2**70}])
def test_numbers_that_are_none_are_refused(store: LocalStore, serve: Serve, fields: dict[str, Any]) -> None:
    account = small_account(1)
    account.tickets[0].update(fields)
    with pytest.raises(HelpDeskRefused, match="no a ticket"):
        synced(store, serve(account))


def test_halves_of_characters_and_the_first_day_there_is_break_nothing(store: LocalStore, serve: Serve) -> None:
    account = small_account(1)
    account.tickets[0].update({"subject": "\ud83d", "via": {"channel": "\ud83d"}})
    account.audits[1][1]["created_at"] = "0001-01-01T00:00:00+14:00"
    assert synced(store, serve(account), mask=False).added == 1


def test_personal_data_do_not_reach_the_store(tmp_path: Path, store: LocalStore, serve: Serve) -> None:
    account = small_account(1)
    words = "mail canary@shop.example or +49 170 1234567, card 4111 1111 1111 1111"
    updates = [
        (JANE, [{"type": "Create", "field_name": "subject", "value": words}, comment(words, JANE)]),
        (AGENT, [used(1)]),
    ]
    add_ticket(account, 7, START + 9, JANE, updates, subject=words)
    server = serve(account)
    server.fail(AUDITS.format(1), [Fault(status=500)] * 6)
    with pytest.raises(HelpDeskUnavailable):
        synced(store, server)
    import polars as pl

    for path in (tmp_path / "store").rglob("*.parquet"):
        assert "canary" not in str(pl.read_parquet(path).rows())
    synced(store, server)
    found = next(example for example in Lake(store).read("acme") if example.ticket_id == "7")
    assert found.body == found.subject == "mail [email] or [phone], card [card]"
    store.delete(f"{sync_prefix('acme', 'zendesk')}state.json")
    synced(store, server, mask=False)
    assert "canary" in next(example for example in Lake(store).read("acme") if example.ticket_id == "7").body
