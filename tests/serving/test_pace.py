"""How long work in threads rests, by a clock that the test has."""

from __future__ import annotations

import threading

import pytest

from serving.feedback.pace import Pace


class Waits:
    """Stands in for the event that ends rests early: notes how long each would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def wait(self, seconds: float) -> None:
        self.seconds.append(round(seconds, 6))


def test_work_takes_its_share_and_short_pieces_go_on() -> None:
    now = [5.0]
    pace = Pace(lambda: 0.1, used=lambda: now[0])
    waits = pace._hurry = Waits()  # type: ignore[assignment]
    pace.rest()
    for used in (0.0004, 0.0004, 0.0004, 0.01):
        now[0] += used
        pace.rest()
    assert waits.seconds == [0.0108, 0.09]


def test_threads_share_what_there_is_and_each_counts_its_own_time() -> None:
    shares = [0.1, 1.0]
    used = threading.local()
    pace = Pace(lambda: shares.pop(0), threads=2, used=lambda: used.seconds)
    waits = pace._hurry = Waits()  # type: ignore[assignment]

    def work(seconds: float) -> None:
        used.seconds = 0.0
        pace.rest()
        used.seconds = seconds
        pace.rest()

    for seconds in (0.002, 0.003):
        thread = threading.Thread(target=work, args=(seconds,))
        thread.start()
        thread.join()
    assert waits.seconds == [pytest.approx(0.038), pytest.approx(0.003)]


def test_who_rests_goes_on_when_it_must_be_quick() -> None:
    pace = Pace(lambda: 1e-9)
    ended = threading.Event()
    began = threading.Event()

    def work() -> None:
        pace.rest()
        began.set()
        while not ended.is_set():
            pace.rest()

    thread = threading.Thread(target=work)
    thread.start()
    assert began.wait(60)
    with pace.hurried(), pace.hurried():
        ended.set()
        thread.join(60)
        assert not thread.is_alive()
    assert not pace._hurry.is_set()
