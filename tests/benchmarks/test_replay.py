"""A trace replayed against a server that refuses, stalls, or is somebody else's."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.latency import curve
from benchmarks.load import Plan, http_request, percentiles, run_load
from benchmarks.refusals import reason_of
from benchmarks.replay import Target, measure_load
from benchmarks.trace import Trace
from benchmarks.verdicts import Bound, all_passed
from registry.errors import InvalidInput
from tests.scripted_server import STALL_SECONDS, Scripted, scripted

NOTHING: dict[str, Any] = {}


def quietly(_: str, __: float) -> None:
    pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Scripted]]]:
    with scripted() as found:
        yield found


def trace(paths: list[str], gap: float = 0.001) -> Trace:
    """A tenant for each path, so that the server answers a tenant as its name says."""
    names = list(dict.fromkeys(paths))
    return Trace(
        tenants=names,
        at=np.arange(len(paths), dtype=np.float64) * gap,
        places=np.array([names.index(path) for path in paths]),
        seconds=len(paths) * gap,
    )


def target(url: str, **more: Any) -> Target:
    return Target(url=url, path="/{tenant}", bodies=[b"one", b"two"], **more)


STALLING = ["200"] * 100 + ["stall"] + ["200"] * 500


@pytest.mark.parametrize("connections", [1, 2000])
def test_a_stall_is_in_the_99th_percentile(server: tuple[str, type[Scripted]], connections: int) -> None:
    """Whether what is due opens a connection of its own or waits for the only one."""
    report = measure_load(trace(STALLING), target(server[0]), max_connections=connections, step=quietly)
    assert report["failed"] == 0
    assert report["p99_ms"] > 0.9 * 1000 * STALL_SECONDS
    # Half of the run is in the stall: of all requests a quarter waited for half of it or longer.
    assert curve(report["hdr"], [75.0])[0] > 0.4 * 1000 * STALL_SECONDS


def test_a_loop_that_waits_for_answers_would_leave_the_stall_out(server: tuple[str, type[Scripted]]) -> None:
    """Coordinated omission: it asks once while the server stalls, and one request is no 99th percentile."""
    requests = [http_request(server[0], f"/{path}", b"x") for path in ("200", "stall")]
    picks = np.array([path == "stall" for path in STALLING]).astype(np.int64)
    closed = run_load(Plan(url=server[0], requests=requests, picks=picks, connections=1))
    assert percentiles(closed.latency)["max_ms"] >= 1000 * STALL_SECONDS
    assert percentiles(closed.latency)["p99_ms"] < 0.5 * 1000 * STALL_SECONDS


def test_every_refusal_is_counted_by_status_and_reason(server: tuple[str, type[Scripted]]) -> None:
    url, _ = server
    paths = ["200"] * 5 + ["problem"] * 3 + ["429", "hangup"]
    report = measure_load(trace(paths, 0.005), target(url), bounds={"failed": Bound(at_most=0)}, step=quietly)
    assert report["refusals"] == [
        {"status": "503", "reason": "overloaded", "count": 3, "retry_after": 3},
        {"status": "429", "reason": report["refusals"][1]["reason"], "count": 1, "retry_after": 0},
        {"status": "broken", "reason": "", "count": 1, "retry_after": 0},
    ]
    assert report["refusals"][1]["reason"] in ("one", "two")
    assert (report["failed"], report["failed_share"], report["requests"]) == (5, 0.5, 10)
    assert report["first_requests"]["requests"] == 4
    assert not all_passed(report)


def test_what_never_answers_is_told(server: tuple[str, type[Scripted]]) -> None:
    report = measure_load(trace(["never", "200"]), target(server[0]), patience_seconds=0.1, step=quietly)
    assert report["refusals"] == [{"status": "unanswered", "reason": "", "count": 1, "retry_after": 0}]


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_ends_it_with_what_came_until_then(server: tuple[str, type[Scripted]]) -> None:
    url, seen = server
    told = []

    def interrupting(text: str, _: float) -> None:
        told.append(text)
        if text.startswith("replaying"):
            threading.Timer(0, os.kill, (os.getpid(), signal.SIGINT)).start()
            threading.Event().wait(5)  # the signal ends it

    report = measure_load(trace(["200"] * 100 + ["200"] * 100, 1.0), target(url), step=interrupting)
    # On a busy machine the generator was late as well, and nothing else may be wrong.
    assert [why for why in report["void"] if not why.startswith("the generator was late")] == ["interrupted"]
    assert 1 <= report["requests"] == len(seen.seen) < 100
    assert report["failed"] == 0
    assert told[-1] == "stopping"


def test_keys_headers_and_path_reach_the_server() -> None:
    requests = target(
        "http://127.0.0.1:1/prefix/",
        keys={"a/b": "secret"},
        key="common",
        headers={"x-more": "1", "content-type": "text/plain"},
    ).requests(["a/b", "c"])
    first, last = requests[0].decode(), requests[-1].decode()
    assert first.startswith("POST /prefix/a%2Fb HTTP/1.1\r\nHost: 127.0.0.1:1\r\n")
    assert "Authorization: Bearer secret\r\n" in first
    assert "Authorization: Bearer common\r\n" in last
    assert "Content-Type: text/plain\r\n" in first
    assert "application/json" not in first
    assert "X-More: 1\r\n" in first
    assert {request.rpartition(b"\r\n")[2] for request in requests} == {b"one", b"two"}
    assert "secret" not in repr(target("http://127.0.0.1:1", keys={"a": "secret"}, key="secret"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"url": "ftp://127.0.0.1"}, "is no address"),
        ({"url": "http://example.org"}, "example.org is not this machine"),
        ({"url": "http://10.0.0.1"}, "10.0.0.1 is not this machine"),
        ({"url": "http://127.0.0.1", "bodies": []}, "no request body"),
    ],
)
def test_a_target_that_cannot_be_asked_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        Target(**{"bodies": [b"x"], **given})
    assert Target(url="http://example.org", bodies=[b"x"], remote=True).url


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"type":"urn:macrofleet:problem:throttled","title":"Too many"}', "throttled"),
        (b'{"type":"about:blank","title":"Service Unavailable"}', "Service Unavailable"),
        (b'{"code": 503, "type": "ServiceUnavailableException", "message": "x"}', "ServiceUnavailableException"),
        (b'{"detail":"model 17 of 0123456789abcdef is busy"}', "model … of … is busy"),
        (b"<h1>Bad\n Gateway</h1>", "<h1>Bad Gateway</h1>"),
        (b"", ""),
        (b"\xff", "\ufffd"),
        (b"[1]", "[…]"),
    ],
)
def test_a_reason_is_what_tells_refusals_apart(body: bytes, reason: str) -> None:
    assert reason_of(body) == reason


def test_several_servers_each_have_connections_of_their_own(server: tuple[str, type[Scripted]]) -> None:
    url, seen = server
    with scripted() as (other_url, other):
        requests = [http_request(url, "/200", str(number).encode()) for number in range(6)]
        samples = run_load(
            Plan(
                url=url,
                more_urls=[other_url],
                requests=requests,
                picks=np.arange(6),
                targets=np.array([0, 1, 1, 0, 1, 1]),
                at=np.arange(6, dtype=np.float64) * 0.005,
                connections=2,
                keep_answers=True,
            )
        )
        assert samples.status.tolist() == [200] * 6
        assert sorted(seen.seen) == [b"0", b"3"]
        assert sorted(other.seen) == [b"1", b"2", b"4", b"5"]


def test_a_connection_that_the_server_closes_is_not_used_again(server: tuple[str, type[Scripted]]) -> None:
    url, seen = server
    report = measure_load(trace(["closing"] * 5, 0.01), target(url), max_connections=1, step=quietly)
    assert report["failed"] == 0
    assert seen.connections >= 5
