"""How many replicas there shall be: what holds whatever the load."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidInput
from serving.replicas.scaling import ScalePlan, ScaleState, next_count, parse_range

PLAN = ScalePlan(least=2, most=6)
bounds = st.tuples(st.integers(1, 12), st.integers(0, 12)).map(lambda two: (two[0], two[0] + two[1]))
marks = st.tuples(st.floats(0.05, 0.9), st.floats(0, 0.9), st.floats(0.01, 0.9)).map(
    lambda three: (three[0], min(three[0] + three[1], 0.95), min(three[0] + three[1] + three[2], 1.0))
)


@st.composite
def plans(draw: st.DrawFn) -> ScalePlan:
    (least, most), (low, target, high) = draw(bounds), draw(marks)
    return ScalePlan(least=least, most=most, low=low, target=target, high=high)


class Replicas:
    """Replicas that follow each decision at once, asked once a second."""

    def __init__(self, plan: ScalePlan, count: int | None = None) -> None:
        self.plan = plan
        self.count = plan.least if count is None else count
        self.now = 0.0
        self.state = ScaleState()
        self.changes: list[tuple[float, int]] = []

    def second(self, load: float) -> None:
        self.now += 1
        before = self.count
        self.state, self.count = next_count(self.plan, self.state, count=before, load=load, now=self.now)
        if self.count != before:
            self.changes.append((self.now, self.count - before))


@given(plans(), st.lists(st.floats(0, 20), max_size=300), st.integers(1, 30))
def test_never_outside_its_bounds(plan: ScalePlan, loads: list[float], count: int) -> None:
    replicas = Replicas(plan, min(max(count, plan.least), plan.most))
    for load in loads:
        replicas.second(load)
        assert plan.least <= replicas.count <= plan.most


@given(plans(), st.floats(0, 20), st.integers(1, 30))
def test_one_load_has_one_answer(plan: ScalePlan, load: float, count: int) -> None:
    """It grows or it shrinks, and then stays: the marks leave no load that asks for both."""
    replicas = Replicas(plan, min(max(count, plan.least), plan.most))
    for _ in range(int(plan.shrink_seconds + 2) * (plan.most + 1)):
        replicas.second(load)
    assert len({step > 0 for _, step in replicas.changes}) <= 1
    last = replicas.changes[-1][0] if replicas.changes else 0
    assert replicas.now - last > plan.shrink_seconds


@given(plans())
def test_what_lasts_is_followed(plan: ScalePlan) -> None:
    replicas = Replicas(plan)
    for _ in range(int(plan.grow_seconds + 2) * (plan.most + 1)):
        replicas.second(load=replicas.count)
    assert replicas.count == plan.most
    for _ in range(int(plan.shrink_seconds + 2) * (plan.most + 1)):
        replicas.second(load=0.0)
    assert replicas.count == plan.least
    assert all(step == -1 for _, step in replicas.changes if step < 0)


@given(plans(), st.data())
def test_what_does_not_last_changes_nothing(plan: ScalePlan, data: st.DataObject) -> None:
    """Bursts shorter than it takes to grow, and pauses shorter than it takes to shrink."""
    middle = data.draw(st.integers(plan.least, plan.most))
    replicas = Replicas(plan, middle)
    for _ in range(5):
        for _ in range(data.draw(st.integers(0, int(plan.grow_seconds) - 1))):
            replicas.second(load=20.0)
        replicas.second(load=(plan.low * (middle - 1) + plan.high * middle) / 2)
        for _ in range(data.draw(st.integers(0, int(plan.shrink_seconds) - 1))):
            replicas.second(load=0.0)
        replicas.second(load=(plan.low * (middle - 1) + plan.high * middle) / 2)
    assert replicas.changes == []


def test_a_load_that_comes_and_goes() -> None:
    replicas = Replicas(PLAN)
    for _ in range(6):
        replicas.second(load=2.0)
    assert replicas.count == 4  # each of them busy for half of its time
    for _ in range(120):
        replicas.second(load=1.5)
    assert replicas.count == 4  # three would be at the middle
    for _ in range(61):
        replicas.second(load=1.0)
    assert replicas.count == 3
    assert replicas.changes == [(6.0, 2), (187.0, -1)]


@pytest.mark.parametrize(("text", "found"), [("3", (3, 3)), ("2..6", (2, 6)), ("1..1", (1, 1)), (" 4 ", (4, 4))])
def test_a_range(text: str, found: tuple[int, int]) -> None:
    assert parse_range(text) == found


@pytest.mark.parametrize("text", ["", "0", "-1", "2..", "..3", "6..2", "2...6", "x", "0..3", "12345", "²"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_range(text)


@pytest.mark.parametrize("changes", [{"least": 0}, {"most": 1}, {"low": 0.6}, {"target": 0.8}, {"high": 1.1}])
def test_marks_out_of_order(changes: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        ScalePlan(**{"least": 2, "most": 6, **changes})  # type: ignore[arg-type]
