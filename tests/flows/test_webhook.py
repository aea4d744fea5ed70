from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stamina
from pydantic import SecretStr

from flows.webhook import WebhookSettings, notify
from registry.errors import InvalidInput, WebhookRefused, WebhookUnavailable
from registry.settings import read_settings

SECRET = "T0000SECRET"


class Hook:
    """A webhook that answers as it is told, and keeps what it was told."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.bodies: list[Any] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.statuses.pop(0) if hook.statuses else 200)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.settings = self.at(f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}?key={SECRET}")

    @staticmethod
    def at(url: str) -> WebhookSettings:
        return WebhookSettings(webhook_url=SecretStr(url), webhook_timeout_seconds=5)


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=4, cap=True):
        yield


def test_a_run_is_told_as_json(hook: Hook) -> None:
    notify(hook.settings, {"text": "retrain_fleet completed", "counts": {"trained": 3}})
    assert hook.bodies == [{"text": "retrain_fleet completed", "counts": {"trained": 3}}]


def test_an_overloaded_webhook_is_told_again(hook: Hook) -> None:
    hook.statuses = [503, 429, 500]
    notify(hook.settings, {"text": "x"})
    assert len(hook.bodies) == 4


def test_four_times_is_enough_and_nothing_says_where_it_is(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hook.statuses = [503] * 9
    with pytest.raises(WebhookUnavailable) as problem:
        notify(hook.settings, {"text": "x"})
    assert len(hook.bodies) == 4
    assert SECRET not in str(problem.value) + repr(problem.value.__cause__) + caplog.text


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404])
def test_a_refusal_is_final_and_a_redirect_is_not_followed(hook: Hook, status: int) -> None:
    hook.statuses = [status]
    with pytest.raises(WebhookRefused, match=str(status)):
        notify(hook.settings, {"text": "x"})
    assert len(hook.bodies) == 1


def test_nobody_listening_is_a_warning_for_the_caller_and_names_no_address(
    hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hook.server.server_close()
    with pytest.raises(WebhookUnavailable) as problem:
        notify(hook.settings, {"text": "x"})
    assert SECRET not in str(problem.value) + caplog.text


@pytest.mark.parametrize(
    "url",
    ["ftp://host/x", "file:///etc/passwd", "http://", "http://user:T0000SECRET@host/", "T0000SECRET", "http://h:x"],
)
def test_what_is_no_address_is_said_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidInput) as problem:
        notify(Hook.at(url), {})
    assert "MACROFLEET_WEBHOOK_URL" in str(problem.value)
    assert SECRET not in str(problem.value)


def test_without_an_address_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MACROFLEET_WEBHOOK_URL", raising=False)
    notify(read_settings(WebhookSettings), {"text": "x"})


def test_the_address_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROFLEET_WEBHOOK_URL", f"https://chat.example/{SECRET}")
    assert SECRET not in repr(read_settings(WebhookSettings))
