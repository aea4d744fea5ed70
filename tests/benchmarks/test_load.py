"""The generator's process as the benches start it, against a server that answers as it is told."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.load import BROKEN, UNANSWERED, Plan, Run, http_request, run_load, running
from tests.scripted_server import PATIENCE, SLOW_SECONDS, Scripted, scripted

# Of a pipe's 64 KiB; the last page may stay part empty.
NEARLY_FULL = 60_000


@pytest.fixture
def server() -> Iterator[tuple[str, type[Scripted]]]:
    with scripted() as found:
        yield found


def plan(url: str, paths: Sequence[str], at: Sequence[float] | None = None, **more: Any) -> Plan:
    """A request for each of the paths, numbered in its body; with `at` an open loop."""
    requests = [http_request(url, f"/{path}", str(number).encode()) for number, path in enumerate(paths)]
    picks = np.arange(len(paths))
    times = None if at is None else np.array(at, np.float64)
    return Plan(url=url, requests=requests, picks=picks, at=times, **{"connections": 1, **more})


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread or process."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def waiting_bytes(run: Run) -> int:
    """How much the generator has written that was not read yet."""
    (count,) = struct.unpack("i", fcntl.ioctl(run._output.fileno(), termios.FIONREAD, bytes(4)))
    assert isinstance(count, int)
    return count


def test_nothing_is_lost_when_the_generator_is_stopped_while_it_writes(
    server: tuple[str, type[Scripted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write to a pipe that was interrupted has written a part; PYTHONUNBUFFERED takes away who writes the rest."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    url, _ = server
    large = Plan(
        url=url, requests=[http_request(url, "/200", b"x" * 100_000)], picks=np.zeros(30, np.int64), keep_answers=True
    )
    with running(large) as run:
        until(lambda: waiting_bytes(run) > NEARLY_FULL)
        pid = run._process.pid
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        os.kill(pid, signal.SIGCONT)
        samples = run.result()
    assert [len(answer) for answer in samples.answers] == [100_000] * 30


def test_what_else_the_generator_prints_is_not_taken_for_its_samples(
    server: tuple[str, type[Scripted]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit\nprint('5 at the start', flush=True)\natexit.register(print, '5 at the end')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_load(plan(server[0], ["200"])).status.tolist() == [200]
    printed = capfd.readouterr()
    assert not printed.out
    assert "5 at the start\n" in printed.err
    assert "5 at the end\n" in printed.err


def test_a_generator_that_ends_before_it_has_read_its_plan_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended with 1 before it began"):
        run_load(plan("http://127.0.0.1:1", ["200"] * 10_000))


def test_an_open_loop_sends_when_a_request_is_due_whatever_is_unanswered(server: tuple[str, type[Scripted]]) -> None:
    url, seen = server
    at = np.linspace(0, 0.2, 50)
    samples = run_load(plan(url, ["never"] * 50, at.tolist(), connections=5, patience_seconds=0.5))
    assert (samples.status == UNANSWERED).all()
    assert np.isnan(samples.latency).all()
    assert (samples.fired >= samples.intended).all()
    assert (samples.sent >= samples.fired).all()
    np.testing.assert_allclose(samples.intended - samples.began, at)
    until(lambda: len(seen.seen) == 50)
    assert seen.connections == 50


def test_what_finds_no_connection_waits_and_its_latency_runs(server: tuple[str, type[Scripted]]) -> None:
    url, seen = server
    samples = run_load(plan(url, ["slow"] * 9, [0.0] * 9, max_connections=3))
    assert samples.status.tolist() == [200] * 9
    assert seen.most_open == seen.connections == 3
    assert (np.sort(samples.latency) >= np.repeat([1, 2, 3], 3) * SLOW_SECONDS).all()
    np.testing.assert_array_equal(samples.latency, samples.done - samples.intended)
    assert (samples.intended == samples.began).all()


def test_samples_are_in_the_order_of_the_plan(server: tuple[str, type[Scripted]]) -> None:
    url, seen = server
    requests = [http_request(url, path, body) for path, body in (("/slow", b"slow"), ("/503", b"no"), ("/200", b"yes"))]
    picks = np.array([0, 1, 2, 1])
    samples = run_load(
        Plan(url=url, requests=requests, picks=picks, at=np.array([0, 0.001, 0.002, 0.003]), keep_answers=True)
    )
    assert samples.status.tolist() == [200, 503, 200, 503]
    assert list(samples.answers) == [b"slow", b"no", b"yes", b"no"]
    assert samples.picks.tolist() == picks.tolist()
    assert sorted(seen.seen) == [b"no", b"no", b"slow", b"yes"]


@pytest.mark.parametrize("at", [None, [0.0] * 8])
def test_an_answer_is_whole_or_broken(server: tuple[str, type[Scripted]], at: list[float] | None) -> None:
    paths = ["pieces", "shouted", "chunked", "hangup", "half", "both", "endless", "garbage"]
    samples = run_load(plan(server[0], paths, at, connections=len(paths), keep_answers=True))
    assert samples.status.tolist() == [200] * 3 + [BROKEN] * 5
    assert list(samples.answers) == [b"0", b"1", b"2"] + [b""] * 5
    assert np.isnan(samples.done).tolist() == [False] * 3 + [True] * 5


def test_a_connection_is_used_again_after_an_answer_in_pieces(server: tuple[str, type[Scripted]]) -> None:
    samples = run_load(plan(server[0], ["pieces", "pieces", "200"], keep_answers=True))
    assert samples.status.tolist() == [200] * 3
    assert list(samples.answers) == [b"0", b"1", b"2"]


def test_what_waits_gets_a_new_connection_when_one_breaks(server: tuple[str, type[Scripted]]) -> None:
    samples = run_load(plan(server[0], ["hangup", "hangup", "200", "200"], [0.0] * 4, max_connections=1))
    assert samples.status.tolist() == [BROKEN, BROKEN, 200, 200]
    assert server[1].connections == 3


@pytest.mark.parametrize(("idle_seconds", "connections"), [(PATIENCE, 1), (0.0, 2)])
def test_a_connection_that_was_idle_for_long_is_not_used_again(
    server: tuple[str, type[Scripted]], idle_seconds: float, connections: int
) -> None:
    """Nor does it count among those that are open, once it is gone: the second request has one to itself."""
    url, seen = server
    samples = run_load(plan(url, ["200"], [0.1], max_connections=1, idle_seconds=idle_seconds))
    assert samples.status.tolist() == [200]
    assert seen.connections == connections


def test_where_nobody_listens_what_is_sent_later_is_broken() -> None:
    samples = run_load(plan("http://127.0.0.1:1", ["200"] * 3, [0.0, 0.01, 0.02], connections=0))
    assert samples.status.tolist() == [BROKEN] * 3
    assert np.isnan(samples.sent).all()


def test_a_closed_loop_goes_through_its_picks_until_its_time_is_over(server: tuple[str, type[Scripted]]) -> None:
    url, seen = server
    samples = run_load(plan(url, ["200", "503", "slow"], connections=4, seconds=0.3))
    assert samples.seconds == 0.3
    assert len(samples.status) > 3
    assert samples.picks.tolist() == [place % 3 for place in range(len(samples.picks))]
    assert (samples.status == np.array([200, 503, 200])[samples.picks]).all()
    assert (samples.sent < samples.began + 0.3).all()
    assert (samples.intended == samples.sent).all()
    assert (samples.latency > 0).all()
    assert seen.connections == 4


def test_a_closed_loop_ends_after_one_pass(server: tuple[str, type[Scripted]]) -> None:
    url, seen = server
    samples = run_load(plan(url, ["200"] * 20, connections=3, keep_answers=True))
    assert list(samples.answers) == [str(number).encode() for number in range(20)]
    assert sorted(seen.seen) == sorted(samples.answers)
    assert seen.connections == 3


def test_a_closed_loop_has_one_request_out_on_each_connection(server: tuple[str, type[Scripted]]) -> None:
    samples = run_load(plan(server[0], ["slow"] * 6, connections=2))
    assert (samples.sent[2:] >= np.sort(samples.done)[:-2]).all()


@pytest.mark.parametrize("seconds", [None, 0.05])
def test_a_closed_loop_does_not_wait_for_ever(server: tuple[str, type[Scripted]], seconds: float | None) -> None:
    samples = run_load(plan(server[0], ["200", "never"], connections=2, seconds=seconds, patience_seconds=0.05))
    assert samples.status[1] == UNANSWERED


def test_a_connection_that_closes_when_it_is_done_breaks_nothing(server: tuple[str, type[Scripted]]) -> None:
    samples = run_load(plan(server[0], ["bye", "slow"], connections=2))
    assert samples.status.tolist() == [200, 200]


def test_a_generator_that_cannot_connect_fails() -> None:
    with pytest.raises(RuntimeError, match="ended with 1 before it began"):
        run_load(plan("http://127.0.0.1:1", ["200"]))


@pytest.mark.parametrize("at", [None, [0.0, 0.01]])
def test_a_generator_that_fails_on_its_way_fails_as_a_whole(
    server: tuple[str, type[Scripted]], at: list[float] | None
) -> None:
    wrong = replace(plan(server[0], ["200", "200"], at), picks=np.array([0, 2]))
    with pytest.raises(RuntimeError, match=r"ended with 1$"):
        run_load(wrong)


def test_a_generator_that_was_killed_fails(server: tuple[str, type[Scripted]]) -> None:
    with running(plan(server[0], ["never"], [0.0], patience_seconds=PATIENCE)) as run:
        run._process.kill()
        with pytest.raises(RuntimeError, match="ended with -9"):
            run.result()


def test_the_context_ends_the_generator_and_knows_when_it_began(server: tuple[str, type[Scripted]]) -> None:
    before = time.monotonic()
    with running(plan(server[0], ["never"], [PATIENCE])) as run:
        assert before < run.began < time.monotonic()
        assert run._process.poll() is None
    assert run._process.poll() == -signal.SIGKILL
    assert run._output.closed


def test_the_generator_says_what_it_used_of_its_core(server: tuple[str, type[Scripted]]) -> None:
    core = min(os.sched_getaffinity(0))
    assert run_load(plan(server[0], ["200"], seconds=0.1, core=core)).processor_share > 0
