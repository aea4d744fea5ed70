from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engine.traffic import Traffic
from serving.engine.traffic_record import read_traffic, write_traffic


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_request_counts_half_after_a_half_life() -> None:
    clock = Clock()
    traffic = Traffic(half_life_seconds=10, clock=clock)
    traffic.count("old")
    clock.now += 10
    traffic.count("new")
    assert traffic.requests() == {"new": pytest.approx(1.0), "old": pytest.approx(0.5)}
    assert traffic.weight("new") > traffic.weight("old") > traffic.weight("never seen") == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5000)), max_size=60))
def test_it_is_the_sum_of_decayed_requests(events: list[tuple[str, float]]) -> None:
    clock = Clock()
    traffic = Traffic(half_life_seconds=10, clock=clock)
    times: dict[str, list[float]] = {}
    for tenant, pause in events:
        clock.now += pause
        traffic.count(tenant)
        times.setdefault(tenant, []).append(clock.now)
    found = traffic.requests()
    for tenant, at in times.items():
        assert found.get(tenant, 0.0) == pytest.approx(sum(2 ** -((clock.now - time) / 10) for time in at), abs=1e-12)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_years_of_silence_do_not_overflow() -> None:
    clock = Clock()
    traffic = Traffic(half_life_seconds=1, clock=clock)
    traffic.count("a")
    clock.now += 1e9
    traffic.count("b")
    assert traffic.requests() == {"b": 1.0}


def test_what_another_process_counted_is_added() -> None:
    clock = Clock()
    traffic = Traffic(half_life_seconds=10, clock=clock)
    clock.now += 30
    traffic.restore({"a": 2.0, "bad": float("nan"), "worse": -1.0, "worst": float("inf")})
    traffic.count("a")
    assert traffic.requests() == {"a": pytest.approx(3.0)}


def test_who_left_the_fleet_is_forgotten() -> None:
    traffic = Traffic()
    for tenant in "ab":
        traffic.count(tenant)
    assert traffic.forget_all_but({"b"})
    assert list(traffic.requests()) == ["b"]
    assert not traffic.forget_all_but({"b", "c"})


def test_a_record_comes_back(tmp_path: Path) -> None:
    write_traffic(tmp_path / "disk", {"a": 2.5, "b": 1.0})
    assert read_traffic(tmp_path / "disk") == {"a": 2.5, "b": 1.0}
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["traffic.json"]


def test_a_tenant_that_was_quiet_for_weeks_does_not_spoil_the_record(tmp_path: Path) -> None:
    clock = Clock()
    traffic = Traffic(clock=clock)
    traffic.count("quiet")
    for _ in range(3 * 7):
        clock.now += 86_400.0
        traffic.count("busy")
        write_traffic(tmp_path, traffic.requests())
    assert read_traffic(tmp_path) == {"busy": pytest.approx(1.0)}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"tenants": {"a": "x"}}', b'{"tenants": {"a": -1}}', b"\xff"])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    assert read_traffic(tmp_path) == {}
    (tmp_path / "traffic.json").write_bytes(content)
    assert read_traffic(tmp_path) == {}


def test_a_disk_that_refuses_costs_the_record_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    write_traffic(tmp_path / "file", {"a": 1.0})
