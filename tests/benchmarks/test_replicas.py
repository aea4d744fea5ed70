"""What the bench of replicas makes of what it saw; seeing it takes minutes, and is `make test-replicas`."""

from __future__ import annotations

import json
from typing import cast

import numpy as np
import pytest

from benchmarks.hot_tenant import TICKETS, Busiest, HotTenant, not_answered, replica_parts
from benchmarks.load import Samples
from benchmarks.proxy_log import Request
from benchmarks.replica_group import Group, Hits
from benchmarks.replicas import _Event, _moves
from benchmarks.stage import TenantLoad

# A hundred requests each half second, and how many of them were hits; it happens at 2.
QUIET = [(0.5, 100.0, 0.0), (1.0, 100.0, 0.0), (1.5, 100.0, 0.0)]


def event(*rates: float) -> _Event:
    after = [(2.5 + place / 2, 100 * rate, 100 * (1 - rate)) for place, rate in enumerate(rates)]
    return _Event(2.0, 3.0, Hits([*QUIET, *after]), ())


@pytest.mark.parametrize(
    ("rates", "seconds"),
    [
        ((1.0, 1.0), 0.0),
        ((0.96, 1.0), 0.0),  # within 95 %
        ((0.5, 0.9, 0.99, 1.0), 1.5),
        ((0.5, 0.99, 0.7, 1.0), 2.0),  # it had not stayed
        ((0.5, 0.99, 0.7), None),
        ((), None),
    ],
)
def test_recovery(rates: tuple[float, ...], seconds: float | None) -> None:
    assert event(*rates).recovery_seconds() == seconds


def test_a_time_without_requests_is_neither() -> None:
    found = _Event(2.0, 3.0, Hits([*QUIET, (2.5, 0.0, 0.0), (3.0, 90.0, 10.0), (3.5, 100.0, 0.0)]), ())
    assert (found.rate_before(), found.least_rate(), found.recovery_seconds()) == (1.0, 0.9, 1.5)


class FakeGroup:
    """Two replicas that have tenants by their first letter, and a third that has `x`."""

    def server_of(self, number: int) -> str:
        return f"s{number}"

    def owners(self, names: list[str], numbers: range) -> dict[str, str]:
        return {name: "s2" if name == "x" and 2 in numbers else {"a": "s0"}.get(name[0], "s1") for name in names}


def asked(tenant: str, at: float, server: str) -> Request:
    return Request(tenant, at, at + 0.01, 200, server, 1)


def moves(kind: str, requests: list[Request]) -> tuple[list[str], int]:
    group, names = FakeGroup(), ["a1", "a2", "b1", "x"]
    found = _Event(2.0, 6.0, Hits(), requests)
    return _moves(kind, found, group.owners(names, range(2)), cast(Group, group), names, 2)


def test_who_had_to_move_and_who_had_not() -> None:
    before = [asked("a1", 1, "s0"), asked("a2", 1, "s0"), asked("b1", 1, "s1"), asked("x", 1, "s1")]
    away = [asked("a1", 4, "s1"), asked("a2", 4, "s1"), asked("b1", 4, "s1"), asked("x", 4, "s2")]
    assert moves("killed", [*before, *away]) == (["x"], 3)
    come = [asked("a1", 8, "s0"), asked("b1", 8, "s0"), asked("x", 8, "s2")]
    assert moves("added", [*before, *come]) == (["b1"], 2)


def test_the_parts_of_a_busy_tenant() -> None:
    requests = [asked("a1", 1, "s0")] * 3 + [asked("a1", 1, "s1"), asked("b1", 1, "s2")]
    assert replica_parts(requests, "a1") == [0.75, 0.25]


def run_of(*answers: tuple[int, int], seconds: float = 0.001) -> Samples:
    """Answers by status and tickets that were answered."""
    at = np.arange(len(answers), dtype=np.float64)
    return Samples(
        began=0.0,
        seconds=1.0,
        picks=np.zeros(len(answers), np.int64),
        intended=at,
        fired=at,
        sent=at,
        done=at + seconds,
        status=np.array([status for status, _ in answers]),
        answers=[b'{"status":200,"suggestion":{}},' * good for _, good in answers],
    )


def test_a_batch_may_be_answered_in_part() -> None:
    assert not_answered(run_of((200, TICKETS), (200, TICKETS - 3), (503, 0))) == 4


def test_a_full_machine_is_not_a_full_replica() -> None:
    def found(rate: float) -> HotTenant:
        even, hot = run_of((200, TICKETS)), run_of((200, TICKETS), seconds=0.003)
        return HotTenant(
            one_rps=100,
            all_rps=200,
            rate=rate,
            even=even,
            hot=hot,
            parts=[1.0],
            failed=0,
            busiest=Busiest([1.0, 3.0]),
            replica_cores=0.3,
        )

    assert found(169).unmeasured == []
    (reason,) = found(171).unmeasured
    assert "171 batches a second" in reason
    assert found(1).p99_ratio == pytest.approx(3)
    assert found(1).busiest.describe()["queue_depth_mean"] == 2


def test_a_batch_is_as_many_tickets() -> None:
    load = TenantLoad("http://127.0.0.1:1", ["a1"], core=None, tickets=3)
    first, second = (json.loads(load.body(pick))["requests"] for pick in (0, 1))
    assert len(first) == len(second) == 3
    assert not [one for one in first if one in second]
