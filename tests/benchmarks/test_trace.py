"""Traces: what they look like, and that one saved is the one replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.trace import Trace, TraceSpec, make_trace, read_trace, trace_of
from registry.errors import InvalidInput

SPECS = st.builds(
    TraceSpec,
    seconds=st.floats(0.1, 20),
    rate=st.floats(0.1, 100),
    tenants=st.integers(1, 50),
    zipf=st.floats(0, 2),
    day=st.sampled_from([0.0, 5.0]),
    swing=st.floats(0, 1),
    bursts=st.sampled_from([0.0, 3.0]),
    tail=st.integers(0, 20),
    seed=st.integers(0, 1000),
)


def arrivals(trace: Trace) -> list[tuple[float, str]]:
    return [(at, trace.tenants[place]) for at, place in zip(trace.at.tolist(), trace.places.tolist(), strict=True)]


@given(SPECS)
def test_a_saved_trace_is_the_same_trace(tmp_path_factory: pytest.TempPathFactory, spec: TraceSpec) -> None:
    trace = make_trace(spec)
    path = tmp_path_factory.getbasetemp() / "trace.csv"
    trace.save(path)
    found = read_trace(path)
    assert arrivals(found) == arrivals(trace)
    assert (found.seconds, found.made, found.digest) == (trace.seconds, trace.made, trace.digest)
    assert found.describe() == trace.describe()


@given(SPECS)
def test_arrivals_rise_within_the_trace_and_the_tail_asks_once(spec: TraceSpec) -> None:
    trace = make_trace(spec)
    assert (np.diff(trace.at) >= 0).all()
    assert ((trace.at >= 0) & (trace.at <= spec.seconds)).all()
    tail = trace.places[trace.places >= spec.tenants]
    assert sorted(tail.tolist()) == list(range(spec.tenants, spec.tenants + spec.tail))
    assert trace.first.sum() == len(set(trace.places.tolist()))


def made(**fields: Any) -> Trace:
    return make_trace(TraceSpec.model_validate({"rate": 2000, "seconds": 20, "tenants": 100, **fields}))


def test_the_seed_decides_all_of_it() -> None:
    assert made().digest == made().digest
    assert made().digest != made(seed=2).digest


def test_a_longer_tail_leaves_the_rest_as_it_is() -> None:
    long = made(tail=50)
    assert [found for found in arrivals(long) if found[1].startswith("tenant-")] == arrivals(made())


def test_tenants_have_their_share() -> None:
    counts = np.bincount(made(zipf=1).places, minlength=100)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.25)
    assert len(made().at) == pytest.approx(40_000, rel=0.03)


def test_a_day_begins_at_its_quietest_and_keeps_the_mean() -> None:
    trace = made(day=20, swing=0.8)
    halves = np.histogram(trace.at, bins=[0, 5, 15, 20])[0]
    # The integral of 1 - 0.8 cos over the middle half, against that over the two quarters beside it.
    assert halves[1] / (halves[0] + halves[2]) == pytest.approx((1 + 1.6 / np.pi) / (1 - 1.6 / np.pi), rel=0.06)
    assert len(trace.at) == pytest.approx(40_000, rel=0.03)


def test_bursts_are_as_long_and_as_high_as_they_say() -> None:
    rates = np.histogram(made(bursts=5, burst_seconds=1, burst_factor=6, seed=3).at, bins=200, range=(0, 20))[0] * 10
    assert rates.max() == pytest.approx(12_000, rel=0.2)
    assert np.median(rates) == pytest.approx(2000, rel=0.1)
    assert 5 <= (rates > 7000).sum() <= 80


def test_an_access_log_is_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("at,tenant\n1700000000.25,b\n1700000001.5,a\n1700000002,b\n")
    trace = read_trace(path)
    assert arrivals(trace) == [(0.0, "b"), (1.25, "a"), (1.75, "b")]
    assert trace.seconds == 1.75
    assert arrivals(trace.with_names(["x", "y", "z"])) == [(0.0, "x"), (1.25, "y"), (1.75, "x")]
    with pytest.raises(InvalidInput, match="has 2 tenants, and there are 1 names"):
        trace.with_names(["x"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1 is not the header"),
        ("at,tenant\n0,a\nx,b\n", ":3 is not seconds,tenant"),
        ("at,tenant\n0,a,b\n", ":2 is not seconds,tenant"),
        ("at,tenant\n1,a\n0,b\n", "do not rise"),
        ("at,tenant\nnan,a\n", "do not rise, or are no numbers"),
        ('# {"format": "other"}\nat,tenant\n', ":1 does not begin a trace"),
        ('# {"format": "macrofleet-trace/1", "seconds": 1, "made": {}}\nat,tenant\n2,a\n', "not within its 1 seconds"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=told):
        read_trace(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rate=x", "rate in the trace"),
        ("speed=3", "speed in the trace"),
        ("rate=1,rate=2", "'rate=2' in the trace"),
        ("rate=1,seconds", "'seconds' in the trace"),
        ("seconds=-1", "seconds in the trace"),
        ("trace.csv", "there is no trace trace.csv"),
        ("rate=1e9,seconds=1e9", "up to 1e\\+18 arrivals"),
    ],
)
def test_a_command_is_told_what_its_trace_lacks(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        trace_of(text)


def test_a_command_names_a_file_or_a_spec(tmp_path: Path) -> None:
    drawn = trace_of("rate=50,seconds=2, tenants=3")
    drawn.save(tmp_path / "trace.csv")
    assert trace_of(str(tmp_path / "trace.csv")).digest == drawn.digest
    assert drawn.made == {**TraceSpec().model_dump(), "rate": 50, "seconds": 2, "tenants": 3}
