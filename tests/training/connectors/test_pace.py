import threading

import pytest

from training.connectors.pace import Pace, Stopped


class Clock:
    """A time that passes by waiting alone."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


def pace_of(per_minute: float | None) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(per_minute, clock=lambda: clock.now, sleep=clock.sleep), clock


def test_requests_are_apart() -> None:
    pace, clock = pace_of(10)
    for _ in range(4):
        pace.wait()
    assert clock.waits == [6.0, 6.0, 6.0]


def test_time_that_passed_anyway_counts() -> None:
    pace, clock = pace_of(60)
    pace.wait()
    clock.now += 0.75
    pace.wait()
    clock.now += 99
    pace.wait()
    pace.wait()
    assert clock.waits == [0.25, 1.0]


def test_without_a_limit_nobody_waits_but_on_the_servers_word() -> None:
    pace, clock = pace_of(None)
    pace.wait()
    pace.hold(30)
    pace.hold(10)
    pace.wait()
    pace.wait()
    assert clock.waits == [30.0]


def test_the_pace_may_change() -> None:
    pace, clock = pace_of(1)
    pace.change(600)
    pace.wait()
    pace.wait()
    assert clock.waits == [pytest.approx(0.1)]
    assert pace.per_minute == 600


def test_whoever_waits_is_woken_to_stop() -> None:
    pace = Pace(1)
    pace.wait()
    ended = []

    def wait() -> None:
        try:
            pace.wait()
        except Stopped:
            ended.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    pace.stop()
    thread.join(10)
    assert ended == [True]
    with pytest.raises(Stopped):
        pace.wait()
