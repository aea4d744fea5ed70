from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import TenantThrottled, TooManyLoads
from registry.fleet.state import TenantLimits
from serving.admission import Admission, Admitted, Pacer, burst_of


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def admitted(admission: Admission, tenant: str, limits: TenantLimits | None) -> Admitted:
    admission.ask(tenant, limits)
    return admission.enter(tenant, limits)


def test_asking_takes_no_place_and_whoever_comes_to_it_late_is_refused() -> None:
    admission = Admission(concurrency=1, requests_per_second=None)
    admission.ask("a", None)
    admission.ask("a", None)
    with admission.enter("a", None):
        with pytest.raises(TenantThrottled) as refused:
            admission.enter("a", None)
        assert refused.value.bound == "tenant_concurrency"
        with pytest.raises(TenantThrottled):
            admission.ask("a", None)
    with admission.enter("a", None):
        pass


def test_concurrency_is_counted_by_tenant_and_given_back() -> None:
    admission = Admission(concurrency=2, requests_per_second=None)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(admitted(admission, "a", None))
        with pytest.raises(TenantThrottled) as refused, admitted(admission, "a", None):
            pass
        assert refused.value.bound == "tenant_concurrency"
        with admitted(admission, "b", None):
            pass
    with pytest.raises(ZeroDivisionError), admitted(admission, "a", None):
        raise ZeroDivisionError
    assert admission._under_way == {}


def test_the_fleets_limits_come_before_the_settings() -> None:
    admission = Admission(concurrency=1, requests_per_second=1)
    limits = TenantLimits(concurrency=2, requests_per_second=1000)
    with admitted(admission, "a", limits), admitted(admission, "a", limits):
        pass
    with admitted(admission, "b", None), pytest.raises(TenantThrottled), admitted(admission, "b", None):
        pass


def test_a_rate_lets_a_seconds_worth_through_at_once_and_says_when_to_come_back() -> None:
    clock = Clock()
    admission = Admission(concurrency=10, requests_per_second=4, clock=clock)
    for _ in range(4):
        with admitted(admission, "a", None):
            pass
    with pytest.raises(TenantThrottled) as refused, admitted(admission, "a", None):
        pass
    assert refused.value.bound == "tenant_rate"
    assert refused.value.retry_after_seconds == pytest.approx(0.25)
    clock.now += 0.25
    with admitted(admission, "a", None):
        pass
    clock.now += 1000
    admission.forget_idle()
    assert admission._due == {}


def test_a_rate_that_is_raised_holds_from_then_on() -> None:
    clock = Clock()
    admission = Admission(concurrency=10, requests_per_second=None, clock=clock)
    low, high = TenantLimits(requests_per_second=0.01), TenantLimits(requests_per_second=100)
    admission.ask("a", low)
    with pytest.raises(TenantThrottled) as refused:
        admission.ask("a", low)
    assert refused.value.retry_after_seconds == pytest.approx(100)
    with pytest.raises(TenantThrottled) as refused:
        admission.ask("a", high)  # as far ahead as the rate lets a tenant be, and no further
    assert refused.value.retry_after_seconds == pytest.approx(0.01)
    clock.now += 0.01
    admission.ask("a", high)


@given(
    rate=st.sampled_from([0.1, 0.5, 1.0, 3.0, 50.0]),
    pauses=st.lists(st.floats(0, 2), min_size=1, max_size=100),
)
def test_no_window_of_time_sees_more_than_its_share_and_a_burst(rate: float, pauses: list[float]) -> None:
    clock = Clock()
    admission = Admission(concurrency=10, requests_per_second=rate, clock=clock)
    times: list[float] = []
    for pause in pauses:
        clock.now += pause
        try:
            with admitted(admission, "a", None):
                times.append(clock.now)
        except TenantThrottled as refused:
            clock.now += refused.retry_after_seconds + 1e-9
            with admitted(admission, "a", None):
                times.append(clock.now)
    for first in range(len(times)):
        for last in range(first, len(times)):
            elapsed = times[last] - times[first]
            assert last - first + 1 <= rate * elapsed + burst_of(rate) + 1e-3


@pytest.mark.parametrize(
    ("rate", "burst"), [(0.1, 1), (1, 1), (4, 4), (10, 10), (20, 10), (40, 10), (100, 25), (400, 100)]
)
def test_a_burst_is_short_where_the_rate_is_high(rate: float, burst: int) -> None:
    clock = Clock()
    admission = Admission(concurrency=1, requests_per_second=rate, clock=clock)
    for _ in range(burst):
        with admitted(admission, "a", None):
            pass
    with pytest.raises(TenantThrottled), admitted(admission, "a", None):
        pass


def test_a_pacer_spaces_out_and_refuses_what_would_wait_too_long() -> None:
    clock = Clock()
    pacer = Pacer(per_second=2, longest_wait_seconds=1.0, clock=clock)
    assert [pacer.reserve() for _ in range(4)] == [0, 0, pytest.approx(0.5), pytest.approx(1.0)]
    with pytest.raises(TooManyLoads):
        pacer.reserve()
    clock.now += 0.5
    assert pacer.reserve() == pytest.approx(1.0)
    clock.now += 100
    assert pacer.reserve() == 0
