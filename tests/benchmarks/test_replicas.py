"""What the bench of replicas makes of what it saw; seeing it takes minutes, and is `make test-replicas`."""

from __future__ import annotations

from typing import cast

import pytest

from benchmarks.hot_tenant import replica_parts
from benchmarks.proxy_log import Request
from benchmarks.replica_group import Group, Hits
from benchmarks.replicas import _Event, _moves

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
