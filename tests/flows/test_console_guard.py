"""Who gets into the console, and what a form must bring: every route, every kind of key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.routing import Mount, Route

from benchmarks.console_fleet import fill_store
from flows.console.guard import METRICS, OPEN
from flows.console.sessions import CHECK_SECONDS, MOST_SESSIONS
from flows.console.settings import ConsoleSettings
from registry.errors import DatabaseUnavailable, InvalidInput
from registry.store.local import LocalStore
from tests.flows.console_world import Console, asking, csrf, make_console, running
from tests.serving.access_world import routes_of


@pytest.fixture
def console(tmp_path: Path) -> Console:
    store = LocalStore(tmp_path / "store")
    fill_store(store, 12)
    return make_console(tmp_path, store)


@pytest.fixture
def client(console: Console) -> Iterator[httpx.Client]:
    with asking(console) as made:
        yield made


def addresses(console: Console, method: str) -> list[str]:
    """Every route of a method, with names of things that there are."""
    tenant, run = "hazel-books", "20260101T000000-000000000000"
    found = []
    for route in routes_of(console.app):
        assert isinstance(route, Route | Mount)
        if isinstance(route, Route) and method in (route.methods or ()):
            path = route.path.replace("{tenant}", tenant).replace("{run}", run)
            found += [path.replace("{action}", action) for action in ("pin", "promote", "nonsense")]
    return sorted(set(found))


def test_nothing_is_open_but_signing_in_and_health(console: Console, client: httpx.Client) -> None:
    asked = addresses(console, "GET")
    assert len(asked) > 10
    for path in [*asked, "/nonsense", "/static"]:
        answer = client.get(path)
        if path in OPEN:
            assert answer.status_code == 200, path
        elif path == METRICS:
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        elif path.endswith(".json"):
            assert (answer.status_code, answer.json()) == (401, {"error": "signed out"}), path
        else:
            assert (answer.status_code, answer.text) == (303, ""), path
            assert answer.headers["Location"].startswith("/sign-in?next=/"), path
    part = client.get("/tenants/hazel-books/standing", headers={"X-Part": "1"})
    assert (part.status_code, part.text) == (401, "Signed out: load the page again.")
    assert client.get("/static/console.css").status_code == 200
    assert client.get("/static/../guard.py").status_code == 303
    assert client.get("/static/%2e%2e/guard.py").status_code == 404


def test_only_a_valid_operators_key_signs_in(console: Console, client: httpx.Client) -> None:
    keys = console.keys
    expired = keys.create(None, ["operator"], lifetime_seconds=1)[0]
    revoked, record = keys.create(None, ["operator"])
    keys.revoke([record.prefix])
    others = [keys.create("hazel-books", [scope])[0] for scope in ("suggest", "feedback", "tenant-admin")]
    console.clock[0] += 2
    unknown = console.operator[:-1] + ("0" if console.operator[-1] != "0" else "1")
    texts = set()
    for key in (expired, revoked, unknown, "", "x", "' OR 1=1 --", console.operator[:14], "ü" * 50, *others):
        answer = console.sign_in(client, key or " ")
        assert answer.status_code == 403, key
        assert "macrofleet_console" not in client.cookies
        texts.add(answer.text)
        assert key == "x" or not key or key not in answer.text
    assert len({text.replace(csrf(text), "") for text in texts}) == 1
    answer = console.sign_in(client, f" {console.operator} ")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    page = client.get("/")
    assert page.status_code == 200
    assert console.operator not in page.text
    assert console.operator.split("_")[2] not in page.text


def test_a_session_ends_with_its_key_its_time_or_by_signing_out(console: Console, client: httpx.Client) -> None:
    prefix = console.operator.split("_")[1]
    console.sign_in(client)
    console.keys.revoke([prefix])
    console.clock[0] += CHECK_SECONDS
    assert client.get("/").status_code == 303

    key = console.keys.create(None, ["operator"])[0]
    console.sign_in(client, key)
    console.clock[0] += 12 * 3600 - 1
    assert client.get("/").status_code == 200
    console.clock[0] += 1
    assert client.get("/").status_code == 303

    console.sign_in(client, key)
    token = client.cookies["macrofleet_console"]
    assert client.post("/sign-out", data={"csrf": csrf(client.get("/").text)}).status_code == 303
    client.cookies.set("macrofleet_console", token)
    assert client.get("/").status_code == 303


def test_every_form_brings_its_sessions_token(console: Console, client: httpx.Client) -> None:
    paths = addresses(console, "POST")
    assert {"/sign-in", "/sign-out", "/playground", "/tenants/hazel-books/pin"} <= set(paths)
    fleet = console.store.get("fleet/root.json").data
    console.sign_in(client)
    good = csrf(client.get("/").text)
    with httpx.Client(base_url=client.base_url) as other:
        console.sign_in(other)
        anothers = csrf(other.get("/").text)
    assert good != anothers
    for path in paths:
        for data in ({}, {"csrf": ""}, {"csrf": anothers}, {"csrf": good + "x"}, {"csrf": "ü"}):
            assert client.post(path, data=data).status_code == 403, (path, data)
        elsewhere = {"Sec-Fetch-Site": "cross-site"}
        assert client.post(path, data={"csrf": good}, headers=elsewhere).status_code == 403, path
        assert client.post(path, json={"csrf": good}).status_code == 403, path
        assert client.post(path, content=b"csrf=%ff\xff").status_code == 400, path
        assert client.post(path, data={"csrf": good, "body": "x" * 200_000}).status_code == 413, path
    assert console.store.get("fleet/root.json").data == fleet
    assert client.post("/tenants/hazel-books/pin", data={"csrf": good}).status_code == 303
    assert console.store.get("fleet/root.json").data != fleet


def test_another_browser_cannot_be_signed_in_with_ones_own_form(console: Console, client: httpx.Client) -> None:
    mine = csrf(client.get("/sign-in").text)
    with httpx.Client(base_url=client.base_url) as other:
        sent = {"key": console.operator, "csrf": mine}
        assert other.post("/sign-in", data=sent).status_code == 403
        other.get("/sign-in")
        assert other.post("/sign-in", data=sent).status_code == 403
    assert client.post("/sign-in", data=sent).status_code == 303


@pytest.mark.parametrize(
    ("there", "goes"),
    [
        ("/tenants/acme", "/tenants/acme"),
        ("//evil.example", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/\nx", "/"),
        ("", "/"),
    ],
)
def test_signing_in_leads_nowhere_else(console: Console, client: httpx.Client, there: str, goes: str) -> None:
    page = client.get("/sign-in", params={"next": there})
    answer = client.post("/sign-in", data={"key": console.operator, "csrf": csrf(page.text), "next": there})
    assert answer.headers["Location"] == goes


def test_cookies_and_headers_keep_others_out(tmp_path: Path, console: Console, client: httpx.Client) -> None:
    cookie = console.sign_in(client).headers.get_list("Set-Cookie")[0]
    assert cookie.startswith("macrofleet_console=")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    for path in ("/", "/sign-in", "/static/console.js", "/nonsense", "/live.json", "/healthz"):
        headers = client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert ("immutable" in headers["Cache-Control"]) == path.startswith("/static/")
    (tmp_path / "secure").mkdir()
    secured = make_console(tmp_path / "secure", console.store, secure=True)
    with running(secured.app) as url, httpx.Client(base_url=url) as other:
        cookie = other.get("/sign-in").headers["Set-Cookie"]
    assert cookie.startswith("__Host-macrofleet_sign_in=")
    assert "Secure" in cookie.split("; ")


def test_no_template_or_script_needs_what_the_policy_forbids() -> None:
    from flows.console.rendering import STATIC

    for template in (STATIC.parent / "templates").iterdir():
        text = template.read_text()
        for forbidden in (
            " style=",
            "onclick",
            "onload",
            "javascript:",
            "<style",
            "http://",
            "https://",
            "| safe",
            "|safe",
        ):
            assert forbidden not in text, (template.name, forbidden)
    script = (STATIC / "console.js").read_text()
    for forbidden in ("innerHTML", "eval(", "insertAdjacentHTML", "document.write", "http://", "https://"):
        assert forbidden not in script


def test_a_key_database_that_is_away_signs_nobody_in_and_out(
    console: Console, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.sign_in(client)

    def away(_: str) -> None:
        raise DatabaseUnavailable("the database is away", remedy="Start it.")

    monkeypatch.setattr(console.keys, "find", away)
    assert client.get("/").status_code == 200
    console.clock[0] += CHECK_SECONDS
    answer = client.get("/")
    assert answer.status_code == 503
    assert "The database is away" in answer.text
    assert client.get("/healthz").status_code == 200


def test_sessions_are_bounded(console: Console) -> None:
    sessions = console.world.sessions
    first = sessions.sign_in(console.operator)
    assert first is not None
    for _ in range(MOST_SESSIONS):
        last = sessions.sign_in(console.operator)
    assert last is not None
    assert sessions.find(first.token) is None
    assert sessions.find(last.token) is last
    assert console.operator not in repr(last)
    assert last.token not in repr(last)


def test_settings_keep_sessions_off_the_network_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ConsoleSettings().secure
    assert ConsoleSettings(console_secure=True).secure
    assert ConsoleSettings(console_host="0.0.0.0").secure
    with pytest.raises(InvalidInput, match="can be reached from other machines"):
        ConsoleSettings(console_host="0.0.0.0", console_secure=False)
    monkeypatch.setenv("MACROFLEET_SERVERS", "http://a:1, http://b:2")
    assert ConsoleSettings().servers == ("http://a:1", "http://b:2")
    with pytest.raises(InvalidInput, match="cannot be used"):
        ConsoleSettings(servers=("http://user:password@a",))
