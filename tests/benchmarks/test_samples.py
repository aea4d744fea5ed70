"""Arithmetic over plans and samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load import (
    BROKEN,
    LAG_SECONDS,
    UNANSWERED,
    Floats,
    Samples,
    describe,
    http_request,
    interleaved,
    joined,
    percentiles,
    poisson_arrivals,
    zipf_shares,
)

NAN = float("nan")
NAMES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}


def samples(
    status: list[int],
    latency: list[float],
    *,
    lag: float = 0.0,
    seconds: float = 2.0,
    began: float = 100.0,
    **more: Any,
) -> Samples:
    """A request every tenth of a second, sent as late as `lag` says."""
    intended = began + np.arange(len(status)) / 10
    return Samples(
        began=began,
        seconds=seconds,
        picks=np.arange(len(status)) % 3,
        intended=intended,
        fired=intended + lag,
        sent=intended + lag,
        done=intended + latency,
        status=np.array(status),
        **more,
    )


def rank(values: list[float], share: float) -> float:
    """A percentile by hand: between the two values that it falls between, in proportion."""
    values = sorted(values)
    place = share * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (place - below) * (values[above] - values[below])


@given(st.lists(st.floats(0, 100), min_size=1, max_size=300), st.integers(0, 5))
def test_percentiles_are_exact_and_leave_out_what_was_never_answered(values: list[float], unanswered: int) -> None:
    found = percentiles(np.array([*[NAN] * unanswered, *values]))
    assert found == {name: pytest.approx(1000 * rank(values, share), abs=0.001) for name, share in NAMES.items()}


def test_there_are_no_percentiles_of_nothing() -> None:
    assert percentiles(np.array([NAN, NAN])) == percentiles(np.array([])) == dict.fromkeys(NAMES)


def test_a_description_has_the_latency_of_what_was_answered_and_counts_everything() -> None:
    found = describe(
        samples([200, 200, 503, UNANSWERED, BROKEN, 200], [0.010, 0.030, 9.0, NAN, NAN, 0.020], processor_share=0.256)
    )
    assert found == {
        "p50_ms": 20.0,
        "p90_ms": 28.0,
        "p99_ms": 29.8,
        "p999_ms": 29.98,
        "max_ms": 30.0,
        "requests": 6,
        "offered_rps": 3.0,
        "rps": 1.5,
        "statuses": {"200": 3, "503": 1, "unanswered": 1, "broken": 1},
        "late": 0,
        "lag_p99_ms": 0.0,
        "generator_processor_share": 0.26,
        "void": False,
    }


@pytest.mark.parametrize(("lag", "void"), [(0.5, False), (1.5, True)])
def test_a_run_whose_generator_was_late_is_void(lag: float, void: bool) -> None:
    run = samples([200] * 4, [0.5] * 4, lag=lag * LAG_SECONDS)
    found = describe(run)
    assert (found["void"], found["late"]) == (void, 4 * void)
    assert found["lag_p99_ms"] == pytest.approx(1000 * lag * LAG_SECONDS)
    assert run.kept_schedule is not void


def test_one_request_in_a_hundred_may_be_late() -> None:
    on_time = samples([200] * 1000, [0.5] * 1000)
    for late, kept in ((9, True), (11, False)):
        fired = on_time.fired.copy()
        fired[:late] += 1
        run = samples([200] * 1000, [0.5] * 1000)
        run.fired[:] = fired
        assert run.kept_schedule is kept
        assert describe(run)["late"] == late


def test_some_samples_alone() -> None:
    run = samples([200, 503, 200], [0.1, 0.2, 0.3], answers=[b"a", b"b", b"c"], processor_share=0.5)
    part = run.where(run.status == 200)
    assert part.status.tolist() == [200, 200]
    assert part.picks.tolist() == [0, 2]
    assert part.answers == [b"a", b"c"]
    assert part.latency.tolist() == pytest.approx([0.1, 0.3])
    assert (part.began, part.seconds, part.processor_share) == (100.0, 2.0, 0.5)
    for column in ("intended", "fired", "sent", "done"):
        assert getattr(part, column).tolist() == getattr(run, column)[[0, 2]].tolist()
    assert not samples([200], [0.1]).where(np.array([True])).answers


def test_runs_one_after_the_other() -> None:
    first = samples([200, 503], [0.1, 0.2], answers=[b"a", b"b"], processor_share=0.5, seconds=2.0)
    second = samples([BROKEN], [NAN], answers=[b""], processor_share=0.25, seconds=3.0, began=200.0)
    both = joined([first, second])
    assert both.status.tolist() == [200, 503, BROKEN]
    assert both.picks.tolist() == [0, 1, 0]
    assert both.answers == [b"a", b"b", b""]
    assert (both.began, both.seconds, both.processor_share) == (100.0, 5.0, 0.5)
    np.testing.assert_array_equal(both.latency, [*first.latency, *second.latency])
    for column in ("intended", "fired", "sent", "done"):
        np.testing.assert_array_equal(getattr(both, column), [*getattr(first, column), *getattr(second, column)])


def test_streams_are_interleaved_in_the_order_of_time_with_all_that_belongs_to_them() -> None:
    at, (places, numbers) = interleaved(
        [np.array([0.1, 0.3, 0.5]), np.array([0.2, 0.3])],
        [[np.array([1, 1, 1]), np.array([2, 2])], [np.array([10, 11, 12]), np.array([20, 21])]],
    )
    assert at.tolist() == [0.1, 0.2, 0.3, 0.3, 0.5]
    assert places.tolist() == [1, 2, 1, 2, 1]  # of two at one time, the first stream's
    assert numbers.tolist() == [10, 20, 11, 21, 12]


def arrivals(rate: float, seconds: float, seed: int = 7) -> Floats:
    return poisson_arrivals(rate, seconds, rng=np.random.default_rng(seed))


@pytest.mark.parametrize(("rate", "seconds"), [(2000.0, 50.0), (0.5, 200_000.0)])
def test_arrivals_have_their_rate_from_the_start_to_the_end(rate: float, seconds: float) -> None:
    at = arrivals(rate, seconds)
    assert at[0] > 0
    assert at[-1] < seconds
    assert (np.diff(at) > 0).all()
    # Five standard deviations of a Poisson count, in every tenth of the time.
    counts, _ = np.histogram(at, 10, (0, seconds))
    expected = rate * seconds / 10
    assert (abs(counts - expected) < 5 * expected**0.5).all()


def test_arrivals_are_independent_of_each_other() -> None:
    """The gaps of a Poisson process: their deviation is their mean, and one says nothing of the next."""
    gaps = np.diff(arrivals(1000.0, 100.0))
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.02)
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.02


def test_arrivals_are_the_same_for_the_same_seed() -> None:
    assert arrivals(50, 2).tolist() == arrivals(50, 2).tolist() != arrivals(50, 2, seed=8).tolist()


def test_shares_fall_with_the_rank() -> None:
    assert zipf_shares(4).tolist() == pytest.approx([12 / 25, 6 / 25, 4 / 25, 3 / 25])
    assert zipf_shares(3, exponent=2).tolist() == pytest.approx([36 / 49, 9 / 49, 4 / 49])
    assert zipf_shares(3, exponent=0).tolist() == pytest.approx([1 / 3] * 3)


def test_a_request_is_whole() -> None:
    assert http_request("http://localhost:8080/else", "/v1/x", "é".encode()) == (
        b"POST /v1/x HTTP/1.1\r\nHost: localhost:8080\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\n\r\n\xc3\xa9"
    )
