from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.deploying import deploy_deployments
from flows.identities import Pools
from flows.prefect_answers import asking_prefect
from flows.prefect_runs import known_runs
from flows.timetable import Timetable
from registry.errors import SchedulerUnavailable


class Refusing(http.server.BaseHTTPRequestHandler):
    """Prefect's server, asked without its password."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


def test_a_server_that_asks_for_a_password_is_a_sentence_that_names_it(refusing: str) -> None:
    with temporary_settings({PREFECT_API_URL: refusing, PREFECT_CLIENT_MAX_RETRIES: 0}):
        with pytest.raises(SchedulerUnavailable, match=r"refuses these credentials \(401\).*PREFECT_API_AUTH_STRING"):
            known_runs(last=1)
        with pytest.raises(SchedulerUnavailable, match="refuses these credentials"):
            deploy_deployments(Timetable(), pools=Pools(training="a"), job_variables={}, say=lambda _: None)


def test_a_server_that_is_away_is_a_sentence_with_what_to_do() -> None:
    with (
        pytest.raises(SchedulerUnavailable, match=r"does not answer \(ConnectError\).*look for it"),
        asking_prefect("look for it"),
    ):
        raise httpx.ConnectError("no route")
    with pytest.raises(SchedulerUnavailable, match="does not answer"), asking_prefect():
        raise RuntimeError("Failed to reach API at http://127.0.0.1:1/api/.")


def test_what_a_flow_fails_of_is_its_own() -> None:
    with pytest.raises(RuntimeError, match="mine"), asking_prefect():
        raise RuntimeError("mine")
