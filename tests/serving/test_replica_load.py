"""How much replicas have to do, by what the kernel and the proxy say of them."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from serving.replicas import load
from serving.replicas.load import BUSY_REQUESTS, ReplicaLoad, processor_seconds


class Machine:
    """A clock, and what each process has used; one that is not there has ended."""

    def __init__(self) -> None:
        self.now = 100.0
        self.used: dict[int, float] = {1: 50.0, 2: 7.0}

    def passes(self, seconds: float, **used: float) -> None:
        self.now += seconds
        for name, more in used.items():
            self.used[int(name[1:])] += more


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(load, "processor_seconds", made.used.get)
    monkeypatch.setattr(load, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


@pytest.mark.parametrize(
    ("used", "requests", "expected"),
    [
        ({"p1": 0.0, "p2": 0.0}, 0, 0.0),
        ({"p1": 1.0, "p2": 0.5}, 0, 0.75),
        ({"p1": 6.0, "p2": 0.0}, 0, 1.0),  # threads beside its event loop make it no two replicas
        ({"p1": 0.2, "p2": 0.0}, BUSY_REQUESTS, 1.0),  # others take the processor, and callers wait
        ({"p1": 0.2, "p2": 0.0}, 100 * BUSY_REQUESTS, 2.0),  # what more there is cannot be known
    ],
)
def test_a_load(machine: Machine, used: dict[str, float], requests: int, expected: float) -> None:
    measure = ReplicaLoad()
    assert measure.sample([1, 2], requests=0) is None
    machine.passes(2.0, **used)
    assert measure.sample([1, 2], requests=requests) == pytest.approx(expected)


def test_it_is_of_the_time_since_the_last(machine: Machine) -> None:
    measure = ReplicaLoad()
    measure.sample([1], requests=0)
    machine.passes(1.0, p1=1.0)
    assert measure.sample([1], requests=0) == pytest.approx(1.0)
    machine.passes(1.0, p1=0.25)
    assert measure.sample([1], requests=0) == pytest.approx(0.25)


def test_nothing_is_known_of_a_process_that_is_new(machine: Machine) -> None:
    measure = ReplicaLoad()
    measure.sample([1], requests=0)
    machine.passes(1.0, p1=0.5)
    assert measure.sample([1, 2], requests=0) is None
    machine.passes(1.0, p1=0.5, p2=0.1)
    assert measure.sample([1, 2], requests=0) == pytest.approx(0.6)
    del machine.used[2]
    machine.passes(1.0)
    assert measure.sample([1, 2], requests=0) is None


def test_what_a_process_has_used() -> None:
    before = os.times()
    found = processor_seconds(os.getpid())
    after = os.times()
    assert found is not None
    tick = 2 / os.sysconf("SC_CLK_TCK")
    assert before.user + before.system - tick <= found <= after.user + after.system + tick
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as ended:
        ended.wait()
    assert processor_seconds(ended.pid) is None
