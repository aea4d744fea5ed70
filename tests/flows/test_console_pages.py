"""What the console's pages show and do: paging, what others wrote, actions, and what is away."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.console_fleet import console_names, fill_store
from flows.console import acceptance
from flows.console.acceptance import FeedbackReports, MacroUse, curve
from flows.console.fleet_index import FleetIndex
from flows.console.macro_view import SHOWN
from flows.console.prefect_rest import PrefectRest
from flows.console.rows import TenantRow
from flows.console.servers import Servers
from flows.console.tracked_view import TrackedRow
from flows.outcome import Outcome
from flows.runs import RunRecord, ShardRecord, write_record
from registry.errors import StoreUnavailable
from registry.feedback.report import Figures, TenantReport
from registry.fleet.state import read_fleet, update_fleet
from registry.layout import FLEET_ROOT, run_shard_key, training_record_key
from registry.store import ObjectStore, StoredObject
from registry.store.local import LocalStore
from registry.tenant_settings import edit_tenant_settings, read_tenant_settings
from tests.flows.console_world import (
    EXPLAINED,
    Console,
    Feedback,
    StandIn,
    asking,
    csrf,
    make_console,
    put_tickets,
    some_days,
    standing_in,
)

NAMES = console_names(130)
WAITING, FEW, FAILED, HALTED = NAMES[0], NAMES[5], NAMES[4], NAMES[6]
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    made = LocalStore(tmp_path / "store")
    fill_store(made, len(NAMES))
    return made


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with standing_in(StandIn(ready=NAMES[:2])) as server:
        yield server


@pytest.fixture
def console(tmp_path: Path, store: ObjectStore, stand_in: StandIn) -> Console:
    return make_console(tmp_path, store, servers=Servers((stand_in.url,)))


@pytest.fixture
def client(console: Console) -> Iterator[httpx.Client]:
    with asking(console) as made:
        assert console.sign_in(made).status_code == 303
        console.world.index.refresh_records()
        yield made


def tenants_of(page: httpx.Response) -> list[str]:
    return re.findall(r'<th scope="row"><a href="/tenants/([a-z0-9-]+)">', page.text)


def act(client: httpx.Client, tenant: str, action: str, **fields: str) -> httpx.Response:
    """Do something on a tenant's page; the page that comes of it."""
    token = csrf(client.get(f"/tenants/{tenant}").text)
    answer = client.post(f"/tenants/{tenant}/{action}", data={"csrf": token, **fields})
    return client.get(answer.headers["Location"]) if answer.status_code == 303 else answer


def test_the_overview_pages_searches_and_sorts_on_the_server(client: httpx.Client) -> None:
    first, third = client.get("/"), client.get("/?page=3")
    assert tenants_of(first) == sorted(NAMES)[:50]
    assert tenants_of(third) == sorted(NAMES)[100:]
    assert "1\u201350 of 130" in first.text
    assert "101\u2013130 of 130" in third.text
    assert 'rel="next"' not in third.text
    assert tenants_of(client.get("/", params={"q": WAITING.upper()})) == [WAITING]
    assert tenants_of(client.get("/?show=attention"))[:1]
    assert {WAITING, FAILED, HALTED} <= set(tenants_of(client.get("/?show=attention")))
    assert FEW in tenants_of(client.get("/?show=without"))
    best = client.get("/?sort=top1&dir=desc&size=200")
    shown = [float(value) for value in re.findall(r'data-label="Top 1">([0-9.]+) %', best.text)]
    assert shown == sorted(shown, reverse=True)
    assert len(shown) > 100
    nothing = client.get("/", params={"q": EVIL})
    assert "No tenant is found" in nothing.text
    assert "<script>alert" not in nothing.text
    assert "&lt;script&gt;" in nothing.text


def test_an_empty_fleet_says_what_to_do(tmp_path: Path) -> None:
    console = make_console(tmp_path, LocalStore(tmp_path / "empty"))
    with asking(console) as client:
        console.sign_in(client)
        page = client.get("/").text
        assert "There is no tenant yet" in page
        assert "No server is named" in page
        assert client.get("/live.json").json()["answering"] == 0
        assert "No run has left a record yet" in client.get("/runs").text
        assert "disabled" in client.get("/playground").text


def test_live_figures_say_so_when_no_server_answers(tmp_path: Path, store: ObjectStore, stand_in: StandIn) -> None:
    nobody = "http://127.0.0.1:1"
    console = make_console(tmp_path, store, servers=Servers((stand_in.url, nobody)))
    with asking(console) as client:
        console.sign_in(client)
        told = client.get("/live.json", params={"tenant": [NAMES[0], NAMES[9]]}).json()
        assert (told["named"], told["answering"], told["models_loaded"]) == (2, 1, 612)
        assert told["loaded"] == {NAMES[0]: 1, NAMES[9]: 0}
        assert [bool(server["problem"]) for server in told["servers"]] == [False, True]
    console = make_console(tmp_path, store, servers=Servers((nobody,)))
    with asking(console) as client:
        console.sign_in(client)
        told = client.get("/live.json", params={"tenant": NAMES[0]}).json()
        assert (told["answering"], told["loaded"], told["p50_ms"]) == (0, None, None)
        assert "no answer" in told["servers"][0]["problem"]


def test_servers_are_asked_with_the_key_of_who_is_signed_in(
    console: Console, client: httpx.Client, stand_in: StandIn
) -> None:
    client.get("/live.json")
    client.get(f"/tenants/{WAITING}/live.json")
    assert stand_in.seen_keys == {f"Bearer {console.operator}"}


def test_a_tenants_page_shows_what_there_is(console: Console, client: httpx.Client, store: ObjectStore) -> None:
    page = client.get(f"/tenants/{WAITING}").text
    entry = read_fleet(store).entries[WAITING]
    for version in (entry.version, entry.previous, entry.candidate):
        assert version is not None
        assert version in page
    assert "Promote<" in page
    assert "Roll back<" in page
    assert page.count("serving</span>") == 1
    put_tickets(store, FEW, 61)
    part = client.get(f"/tenants/{FEW}/standing", headers={"X-Part": "1"}).text
    assert "Not eligible yet" in part
    assert "61 tickets with a shared macro in the last 9 months, 100 are needed" in part
    assert "<html" not in part
    assert "<html" in client.get(f"/tenants/{FEW}/standing").text
    assert "No feedback yet" in client.get(f"/tenants/{FEW}/acceptance").text
    console.feedback.answer = some_days()
    assert "<polyline" in client.get(f"/tenants/{FEW}/acceptance").text
    assert "Nothing is registered" in client.get(f"/tenants/{FEW}/tracked").text
    console.tracked.answer = [
        TrackedRow(number=2, version="a" * 16, aliases=["champion"], run_id="b" * 32, metrics={"top1": 0.5})
    ]
    assert "champion" in client.get(f"/tenants/{FEW}/tracked").text
    console.tracked.answer = None
    assert "MLflow is away. Start it." in client.get(f"/tenants/{FEW}/tracked").text


def rows_of(page: str) -> list[str]:
    return re.findall(r'<th scope="row">([^<]+?)(?: <span|</th>)', page)


def test_macros_are_shown_one_by_one(console: Console, client: httpx.Client, store: LocalStore) -> None:
    assert f'data-part="/tenants/{WAITING}/macros"' in client.get(f"/tenants/{WAITING}").text
    serves = read_fleet(store).entries[WAITING].version
    used, weakest = (client.get(f"/tenants/{WAITING}/macros?by={by}").text for by in ("used", "weakest"))
    assert f"Version <code>{serves}</code> on held-out tickets, most used first" in used
    assert rows_of(used) == [f"Macro {number}" for number in range(8)]
    # Of the last four there are fewer than five tickets.
    assert rows_of(weakest) == [f"Macro {number}" for number in (3, 2, 1, 0, 7, 6, 5, 4)]
    assert used.count("too few to tell") == 4
    assert "90.0 %" in used
    assert "nobody knows which macros are used" in used
    console.feedback.use = MacroUse(days=90, never_used=("m1", "gone"), never_suggested={"m2": 7})
    told = client.get(f"/tenants/{WAITING}/macros", headers={"X-Part": "1"}).text
    assert "<html" not in told
    assert re.search(r"Macro 2 <span class=.quiet small.>m2</span> <span class=.quiet small.>7 times", told)
    assert "2 macros were never applied in the last 90 days" in told
    assert "<li>gone</li>" in told, "it is in no catalogue any more"
    console.feedback.use = MacroUse(days=90, never_used=(), never_suggested={})
    assert "Every macro was applied" in client.get(f"/tenants/{WAITING}/macros").text


def test_macros_say_what_is_missing(client: httpx.Client, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No version yet, so nothing is suggested" in client.get(f"/tenants/{FEW}/macros").text
    serves = read_fleet(store).entries[WAITING].version
    key = f"tenants/{WAITING}/models/{serves}/provenance.json"
    for told in (b"{}", b"no json", b"[]", b'{"by_macro": 3}', b'{"by_macro": [{"macro": 1}]}'):
        store.put(key, told)
        assert "was made without figures of single macros" in client.get(f"/tenants/{WAITING}/macros").text
    many = [{"macro": f"{EVIL}{n}", "support": n, "precision": None, "recall": 0.5, "top3": 0.5} for n in range(53)]
    store.put(key, json.dumps({"by_macro": many}).encode())
    page = client.get(f"/tenants/{WAITING}/macros?by={EVIL}").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "3 more." in page
    assert len(rows_of(page)) == SHOWN

    def away(_: object, tenant: str) -> None:
        raise StoreUnavailable("the store is away", remedy="Wait.")

    monkeypatch.setattr(Feedback, "macros", away)
    assert "the store is away" in client.get(f"/tenants/{WAITING}/macros").text


def test_what_agents_make_of_macros_is_known_from_feedback_alone(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FeedbackReports(store)
    assert source.macros(WAITING) is None, "or every macro would be one that nobody uses"
    total = Figures(views=3, shown=3, answered=1)
    report = TenantReport(
        tenant=WAITING, total=total, days={}, versions={}, never_used=("m1",), never_suggested={"m2": 5}
    )
    monkeypatch.setattr(acceptance, "report_tenant", lambda *_, **__: report)
    assert source.macros(WAITING) == MacroUse(days=90, never_used=("m1",), never_suggested={"m2": 5})


@pytest.mark.parametrize("name", ["nobody", "UPPER", "a..b", "-", "%3Cscript%3E", "a" * 64])
def test_a_tenant_that_is_not_there_is_a_page_that_is_not_there(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/tenants/{name}")
    assert answer.status_code == 404
    assert "There is no such tenant" in answer.text
    assert "<script>" not in answer.text


def test_a_version_is_promoted_and_rolled_back_after_a_look(client: httpx.Client, store: ObjectStore) -> None:
    before = read_fleet(store).entries[WAITING]
    assert before.candidate is not None
    assert before.version is not None
    preview = client.get(f"/tenants/{WAITING}/promote", params={"version": before.candidate})
    assert before.version in preview.text
    assert read_fleet(store).entries[WAITING] == before
    page = act(client, WAITING, "promote", version=before.candidate)
    after = read_fleet(store).entries[WAITING]
    assert (after.version, after.previous, after.candidate) == (before.candidate, before.version, None)
    assert "1 of 1 servers follow it already" in page.text
    assert "follow it already" not in client.get(f"/tenants/{WAITING}").text
    act(client, WAITING, "rollback", version=before.version)
    back = read_fleet(store).entries[WAITING]
    assert (back.version, back.hold_version) == (before.version, True)
    assert "Release the hold" in client.get(f"/tenants/{WAITING}").text
    assert tenants_of(client.get("/?show=held")).count(WAITING) == 1
    act(client, WAITING, "release")
    assert not read_fleet(store).entries[WAITING].hold_version


def test_pins_and_shadows_are_set_and_taken_away(client: httpx.Client, store: ObjectStore) -> None:
    previous = read_fleet(store).entries[WAITING].previous
    assert previous is not None
    act(client, WAITING, "shadow", version=previous)
    page = act(client, WAITING, "pin")
    entry = read_fleet(store).entries[WAITING]
    assert (entry.keep_loaded, entry.shadow) == (True, previous)
    assert "Unpin" in page.text
    assert "nothing was to be changed" in act(client, WAITING, "pin").text
    act(client, WAITING, "unshadow")
    act(client, WAITING, "unpin")
    entry = read_fleet(store).entries[WAITING]
    assert (entry.keep_loaded, entry.shadow) == (False, None)


def test_what_cannot_be_done_is_told_on_the_tenants_page(client: httpx.Client, store: ObjectStore) -> None:
    before = store.get(FLEET_ROOT).data
    assert "waits to be promoted" in act(client, WAITING, "promote", version="f" * 16).text
    assert "notice bad" in act(client, WAITING, "rollback", version="../../x").text
    assert act(client, WAITING, "explode").status_code == 404
    token = csrf(client.get("/").text)
    assert client.post("/tenants/nobody/pin", data={"csrf": token}).status_code == 404
    assert client.get(f"/tenants/{WAITING}/pin").status_code == 404
    assert client.get(f"/tenants/{WAITING}/promote", params={"version": "f" * 16}).status_code == 404
    assert store.get(FLEET_ROOT).data == before


def test_settings_are_a_tenants_own_or_the_fleets(client: httpx.Client, store: ObjectStore) -> None:
    act(client, WAITING, "settings", precision="0.9", least_tickets="50", program="encoder")
    own = read_tenant_settings(store, WAITING)
    assert (own.precision, own.least_tickets, own.program, own.months) == (0.9, 50, "encoder", None)
    page = act(client, WAITING, "settings", precision="2").text
    assert "The setting precision cannot be used" in page or "the setting precision cannot be used" in page
    assert "is a number" in act(client, WAITING, "settings", months="many").text
    assert read_tenant_settings(store, WAITING) == own
    act(client, WAITING, "settings", precision="", program="", least_tickets="")
    assert read_tenant_settings(store, WAITING).model_dump(exclude_none=True) == {}


def test_saving_the_form_leaves_settings_that_it_does_not_have(client: httpx.Client, store: ObjectStore) -> None:
    edit_tenant_settings(store, [WAITING], {"exclude_macros": ["m3"], "off_groups": ["night"]})
    page = client.get(f"/tenants/{WAITING}").text
    fields = dict.fromkeys(re.findall(r'id="set-[a-z_]+" name="([a-z_]+)"', page), "")
    assert "least_acceptance" in fields
    act(
        client,
        WAITING,
        "settings",
        **fields,
    )
    act(client, WAITING, "settings", **{**fields, "least_acceptance": "0.25", "months": "12"})
    own = read_tenant_settings(store, WAITING).model_dump(mode="json", exclude_none=True)
    assert own == {"exclude_macros": ["m3"], "off_groups": ["night"], "least_acceptance": 0.25, "months": 12}
    act(client, WAITING, "settings", exclude_macros="", off_groups="x")
    assert read_tenant_settings(store, WAITING).exclude_macros is not None


def test_what_others_wrote_is_shown_and_not_run(
    console: Console, client: httpx.Client, store: ObjectStore, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(entry: Any) -> Any:
        return entry.model_copy(update={"version": None, "manifest": None, "reason": EVIL})

    update_fleet(store, {WAITING: spoil})
    record = json.loads(store.get(training_record_key(WAITING)).data)
    store.put(training_record_key(WAITING), json.dumps({**record, "reason": EVIL, "state": EVIL}).encode())
    run = "20261128T010101-000000000099"
    outcome = Outcome(tenant=WAITING, state="failed", reason=EVIL).as_dict()
    began = datetime(2026, 11, 28, tzinfo=UTC)
    told = RunRecord(
        run=run, flow=EVIL, flow_run_id=EVIL, state="failed", started_at=began, reason=EVIL, warnings=(EVIL,)
    )
    write_record(store, told)
    store.put(run_shard_key(run, 0), ShardRecord(written_at=began, outcomes=(outcome,)).to_bytes())
    console.world.index.refresh_fleet()
    console.world.index.refresh_records()
    macro = {"id": EVIL, "title": EVIL, "score": 0.5, "explanation": [{"text": EVIL, "contribution": 1.0}]}
    monkeypatch.setitem(EXPLAINED, "macros", [macro])
    console.tracked.answer = [TrackedRow(number=1, version=EVIL, aliases=[EVIL], run_id=EVIL, metrics={})]
    token = csrf(client.get("/").text)
    ticket = {"csrf": token, "tenant": WAITING, "subject": EVIL, "body": f"</textarea>{EVIL}"}
    pages = [
        client.get("/", params={"q": WAITING}),
        client.get(f"/tenants/{WAITING}"),
        client.get(f"/tenants/{WAITING}/tracked"),
        client.get("/runs"),
        client.get(f"/runs/{run}", params={"state": EVIL[:20]}),
        client.get(f"/runs/{run}"),
        client.post("/playground", data=ticket),
        client.post("/playground", data={**ticket, "tenant": EVIL}),
        client.get("/playground", params={"tenant": EVIL}),
    ]
    for page in pages:
        assert page.status_code in {200, 422}, page.url
        assert "<script>alert" not in page.text, page.url
        assert "<img src=x" not in page.text, page.url
        assert page.text.count("</textarea>") <= 1
    for page in (pages[0], pages[1], pages[2], pages[3], pages[5], pages[6]):
        assert "&lt;script&gt;" in page.text, page.url


def test_the_playground_asks_a_server_and_shows_the_words(client: httpx.Client, stand_in: StandIn) -> None:
    token = csrf(client.get("/playground").text)
    sent = {"csrf": token, "tenant": f" {WAITING} ", "subject": "Parcel", "body": "Where is my parcel? Money back!"}
    page = client.post("/playground", data=sent)
    assert page.status_code == 200
    assert "Shipping::Where is my parcel" in page.text
    assert '<mark class="for w3">parcel</mark>' in page.text
    assert '<mark class="against w1">Money back</mark>' in page.text
    (asked,) = stand_in.asked
    assert asked["explain"] is True
    assert asked["ticket"]["comments"][0]["body"] == "Where is my parcel? Money back!"
    empty = client.post("/playground", data={"csrf": token, "tenant": WAITING, "subject": " ", "body": ""})
    assert (empty.status_code, "Type a ticket" in empty.text) == (422, True)
    assert len(stand_in.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, {"title": "there is no such tenant"}, "there is no such tenant"),
        (409, {"detail": "it has no model yet"}, "it has no model yet"),
        (503, {"title": "overloaded"}, "no server answers"),
        (200, "no JSON", "no server answers"),
    ],
)
def test_the_playground_tells_what_a_server_refuses(status: int, body: Any, said: str) -> None:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=content))
    with httpx.Client(transport=transport) as answering:
        servers = Servers(("http://server",), client=answering)
        with pytest.raises(Exception, match=said):
            servers.suggest("acme", subject="x", body="", key="k")


def test_no_ticket_and_no_key_gets_into_the_log(
    console: Console, client: httpx.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "canary-7f3a9c"
    with caplog.at_level(logging.DEBUG):
        token = csrf(client.get("/playground").text)
        sent = {"csrf": token, "tenant": WAITING, "subject": canary, "body": canary}
        assert canary in client.post("/playground", data=sent).text
        client.post("/playground", data={**sent, "tenant": "nobody!"})
        client.get("/", params={"q": canary})

        def breaks(*_: Any, **__: Any) -> None:
            raise ValueError(canary)

        monkeypatch.setattr(console.world.servers, "suggest", breaks)
        broken = client.post("/playground", data=sent)
        console.sign_in(client, console.operator)
    ours = [
        record.getMessage() + (record.exc_text or "") for record in caplog.records if record.name.startswith("flows")
    ]
    assert broken.status_code == 500
    assert canary not in broken.text
    assert any("POST /playground 200" in line for line in ours)
    assert canary not in "\n".join(ours)
    assert console.operator not in caplog.text


def test_runs_are_shown_tenant_by_tenant(client: httpx.Client) -> None:
    page = client.get("/runs")
    run = re.findall(r'href="/runs/([0-9T]+-[0-9a-f]+)"', page.text)[0]
    shown = client.get(f"/runs/{run}")
    assert tenants_of(shown) == sorted(NAMES)[:100]
    assert len(tenants_of(client.get(f"/runs/{run}?page=2"))) == 30
    failed = client.get(f"/runs/{run}?state=failed")
    assert FAILED in tenants_of(failed)
    assert "MemoryError; where is in this run" in failed.text
    assert tenants_of(client.get(f"/runs/{run}", params={"q": FEW})) == [FEW]
    assert client.get("/runs/20010101T000000-000000000000").status_code == 404
    assert client.get("/runs/nonsense").status_code == 404


def test_prefect_adds_what_it_alone_knows(tmp_path: Path, store: ObjectStore) -> None:
    asked: list[tuple[str, Any]] = []

    def prefect(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        asked.append((request.url.path, body))
        if request.url.path.endswith("/flows/filter"):
            return httpx.Response(200, json=[{"id": "f1", "name": "retrain_fleet"}])
        if "any_" in body["flow_runs"]["state"]["type"]:
            late = {"type": "SCHEDULED", "name": "Late"}
            soon = (datetime.now(UTC) + timedelta(hours=2, minutes=1)).isoformat()
            return httpx.Response(200, json=[{"id": "r1", "flow_id": "f1", "state": late, "expected_start_time": soon}])
        crashed = {"type": "CRASHED", "name": "Crashed", "message": "its process died\nand more"}
        began = {"start_time": "2026-11-27T01:00:00Z", "total_run_time": 61.0}
        return httpx.Response(200, json=[{"id": "r2", "flow_id": "f1", "state": crashed, **began}])

    with httpx.Client(transport=httpx.MockTransport(prefect)) as answering:
        rest = PrefectRest("http://prefect/api/", client=answering)
        console = make_console(tmp_path, store, prefect=rest)
        with asking(console) as client:
            console.sign_in(client)
            page = client.get("/runs").text
    assert "late" in page
    assert "in 2 h" in page
    assert "its process died" in page
    assert "and more" not in page
    assert {path for path, _ in asked} == {"/api/flows/filter", "/api/flow_runs/filter"}
    gone = PrefectRest("http://127.0.0.1:1/api")
    console = make_console(tmp_path, store, prefect=gone)
    with asking(console) as client:
        console.sign_in(client)
        page = client.get("/runs").text
    assert "server does not answer" in page
    assert "retrain fleet" in page


class Away:
    """A store that stops answering."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.away = False

    def __getattr__(self, name: str) -> Any:
        if self.away and name != "url":
            raise StoreUnavailable("the store is away", remedy="Start it.")
        return getattr(self._store, name)


def test_a_store_that_is_away_leaves_the_overview_and_says_so(tmp_path: Path, store: ObjectStore) -> None:
    away: Any = Away(store)
    console = make_console(tmp_path, away)
    with asking(console) as client:
        console.sign_in(client)
        console.world.index.refresh_records()
        away.away = True
        console.world.index.refresh_fleet()
        page = client.get("/")
        assert tenants_of(page) == sorted(NAMES)[:50]
        assert "What is shown may be old: the store is away" in page.text
        broken = client.get(f"/tenants/{WAITING}")
        assert (broken.status_code, "The object store does not answer" in broken.text) == (503, True)
        away.away = False
        index = console.world.index
        index.refresh_fleet()
        # The index's own thread may have met with the store that was away, too.
        assert index.refresh_records()
        assert index.refresh_tickets()
        assert "may be old" not in client.get("/").text


class Counting:
    """A store that counts what is read whole."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.read: list[str] = []
        self.asked = 0

    def get_if_changed(self, key: str, etag: str | None, **options: Any) -> StoredObject | None:
        found = self._store.get_if_changed(key, etag, **options)
        self.asked += 1
        self.read += [key] if found is not None else []
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_the_index_reads_again_only_what_changed(store: ObjectStore) -> None:
    counting: Any = Counting(store)
    index = FleetIndex(counting)
    index.refresh_fleet()
    assert not index.rows.records_read
    index.refresh_records()
    assert len(counting.read) > 100
    rows, counting.read, counting.asked = index.rows, [], 0
    index.refresh_fleet()
    assert counting.asked == 1
    index.refresh_records()
    assert counting.read == []
    assert index.rows == rows
    key = training_record_key(FAILED)
    store.put(key, store.get(key).data.replace(b'"failed"', b'"trained"'))
    index.refresh_records()
    assert counting.read == [key]
    assert row_of(index, FAILED).trained == "trained"
    store.delete(key)
    update_fleet(store, {FAILED: lambda _: None})
    index.refresh_fleet()
    index.refresh_records()
    assert FAILED not in {row.tenant for row in index.rows.rows}
    index.refresh_tickets()
    assert row_of(index, FAILED) == TenantRow(tenant=FAILED)


def test_a_tenant_that_changed_in_the_fleet_is_looked_at_at_once(store: ObjectStore) -> None:
    index = FleetIndex(store)
    index.refresh_fleet()
    index.refresh_records()
    key = training_record_key(FAILED)
    store.put(key, store.get(key).data.replace(b'"failed"', b'"trained"'))
    index.refresh_fleet()
    assert row_of(index, FAILED).trained == "failed"
    update_fleet(
        store, {FAILED: lambda entry: entry and entry.model_copy(update={"keep_loaded": not entry.keep_loaded})}
    )
    index.refresh_fleet()
    assert row_of(index, FAILED).trained == "trained"


def row_of(index: FleetIndex, tenant: str) -> TenantRow:
    return next(row for row in index.rows.rows if row.tenant == tenant)


def test_acceptance_is_what_the_feedback_in_the_store_says(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        date(2026, 11, 3): Figures(shown=9, answered=4, accepted_at_1=1, accepted_at_3=3),
        date(2026, 11, 1): Figures(shown=9, answered=2, accepted_at_1=1, accepted_at_3=2),
        date(2026, 11, 9): Figures(shown=9),
    }
    source = FeedbackReports(store)
    assert source.days(WAITING) == ()

    def report(*_: Any, **__: Any) -> TenantReport:
        return TenantReport(tenant=WAITING, total=Figures(), days=told, versions={}, never_used=(), never_suggested={})

    monkeypatch.setattr(acceptance, "report_tenant", report)
    days = source.days(WAITING)
    assert [(one.day.day, one.shown, one.accepted_first, one.accepted) for one in days] == [
        (1, 2, 1, 2), (2, 0, 0, 0), (3, 4, 1, 3),
    ]  # fmt: skip
    assert curve(days, width=100, height=10) == "0.0,0.0 100.0,2.5"
