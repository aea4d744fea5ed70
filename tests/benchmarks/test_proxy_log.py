"""Reading the proxy's log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.proxy_log import Affinity, Request, affinity, read_log, usual_server

OWNERS = {"a": "one", "b": "two"}


def asked(tenant: str, began: float, seconds: float, server: str) -> Request:
    return Request(tenant, began, began + seconds, 200, server, 1)


def test_a_log(tmp_path: Path) -> None:
    line = {
        "time": "2026-11-28T10:00:01.500000Z", "path": "/v1/tenants/acme/suggestions", "status": 200,
        "microseconds": 2500, "server": "127.0.0.1:1", "tries": 2,
    }  # fmt: skip
    first = {**line, "time": "2026-11-28T10:00:01.000000Z", "microseconds": None, "server": None, "status": 503}
    path = tmp_path / "log"
    path.write_text("\n".join(json.dumps(one) for one in (line, {**line, "path": "/readyz"}, first)) + '\n{"tim')
    early, late = read_log(path)
    assert (early.status, early.ended - early.began, late.began - early.began) == (503, 0.0, 0.5)
    assert (late.tenant, late.server, late.tries) == ("acme", "127.0.0.1:1", 2)
    assert late.ended - late.began == pytest.approx(0.0025, abs=1e-6)


def test_whoever_goes_elsewhere_without_need_is_counted() -> None:
    requests = [asked("a", number, 0.01, "two" if number == 3 else "one") for number in range(10)]
    assert affinity(requests, OWNERS, servers=2) == Affinity(10, 9)
    assert affinity(requests, OWNERS, servers=2).share == 0.9
    assert affinity([], OWNERS, servers=2).share is None


def test_whose_replica_is_at_its_bound_is_not_counted() -> None:
    """Of two servers, one may have (4 + 1) · 1.5 / 2, rounded up to 4: 4 are not above it. Of a crowd the eighth is above."""
    after = asked("a", 1.0, 0.01, "two")
    few = [asked("a", number / 100, 10, "one") for number in range(4)]
    assert affinity([*few, after], OWNERS, servers=2) == Affinity(5, 4)
    crowd = [asked("a", number / 100, 10, "one") for number in range(8)]
    assert affinity([*crowd, after], OWNERS, servers=2) == Affinity(7, 7)


def test_what_has_ended_is_not_under_way() -> None:
    before = [asked("a", number / 100, 0.005, "one") for number in range(50)]
    assert affinity([*before, asked("a", 1.0, 0.01, "two")], OWNERS, servers=2) == Affinity(51, 50)


def test_the_usual_server_is_where_most_went() -> None:
    requests = [asked("a", 0, 1, "one"), asked("a", 1, 1, "two"), asked("a", 2, 1, "two"), asked("b", 0, 1, "one")]
    assert usual_server(requests) == {"a": "two", "b": "one"}
