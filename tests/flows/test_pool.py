from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.pool import Limits, Pool, Work
from registry.errors import TrainingStopped
from tests.flows import pool_work
from tests.flows.pool_work import ROOMY

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool[str, int]]:
    """Two processes, whatever became of those before them."""
    with Pool(pool_work.make, processes=2, limits=ROOMY) as pool:
        yield pool


def run(pool: Pool[str, int], job: str) -> int:
    return pool.run(job, lambda _: None)


def test_a_process_is_used_again_and_tells_how_far_it_is(pool: Pool[str, int]) -> None:
    told: list[float] = []
    assert pool.run("tell", told.append) == run(pool, "")
    assert told == [0.5, 1.0]


def test_jobs_run_side_by_side_in_as_many_processes_as_there_are(pool: Pool[str, int]) -> None:
    inside, other = threading.Event(), threading.Event()
    pids: list[int] = []

    def first(share: float) -> None:
        inside.set()
        if share == 1.0:
            assert other.wait(PATIENCE_SECONDS)

    thread = threading.Thread(target=lambda: pids.append(pool.run("tell", first)))
    thread.start()
    assert inside.wait(PATIENCE_SECONDS)
    second = run(pool, "")
    other.set()
    thread.join()
    assert os.getpid() != pids[0] != second != os.getpid()


@pytest.mark.parametrize(
    ("job", "how"),
    [("die", "its process was ended by SIGKILL"), ("exit", "its process ended with code 3")],
)
def test_a_process_that_dies_is_named_and_replaced(pool: Pool[str, int], job: str, how: str) -> None:
    with pytest.raises(TrainingStopped, match=how):
        run(pool, job)
    assert run(pool, "")


def test_what_hangs_meets_the_time_limit_even_where_python_has_no_say() -> None:
    with Pool(pool_work.make, processes=1, limits=Limits(seconds=0.2, memory_bytes=ROOMY.memory_bytes)) as pool:
        for job in ("hang", "spin"):
            with pytest.raises(TrainingStopped, match=r"took longer than 0.2 s\. MACROFLEET_TRAINING_SECONDS"):
                run(pool, job)
        assert run(pool, ""), "starting a process is no part of a job"


def test_what_eats_memory_meets_the_memory_limit(pool: Pool[str, int]) -> None:
    with pytest.raises(TrainingStopped, match=r"needed more than 400 MiB of memory\. MACROFLEET_TRAINING_MEMORY"):
        run(pool, "eat")
    assert run(pool, "")


def test_a_process_whose_memory_grew_is_replaced_after_its_job() -> None:
    with Pool(pool_work.make, processes=1, limits=ROOMY) as pool:
        grown = run(pool, "grow")
        assert run(pool, "") != grown
        with contextlib.suppress(ProcessLookupError):
            os.kill(grown, 0)
            raise AssertionError("it is still there")


@pytest.mark.parametrize(("now", "outgrown"), [(100, False), (549, False), (550, False), (551, True)])
def test_half_of_the_room_may_be_gone(now: int, outgrown: bool) -> None:
    assert Limits(seconds=1, memory_bytes=1000).outgrown(fresh=100, now=now) == outgrown


def test_what_work_raises_is_named_without_what_it_said(pool: Pool[str, int]) -> None:
    with pytest.raises(TrainingStopped, match="ValueError") as raised:
        run(pool, "raise")
    assert "4111" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (pool_work.refuse, "the store does not answer"),
        (pool_work.trip, "ValueError"),
        (pool_work.die_at_once, "its process ended with code 4"),
    ],
)
def test_processes_that_do_not_start_are_given_up_after_some(make: Callable[[], Work[str, int]], why: str) -> None:
    with Pool(make, processes=1, limits=ROOMY) as pool:
        for _ in range(3):
            with pytest.raises(TrainingStopped, match=f"a process did not start: {why}") as raised:
                run(pool, "")
            assert "4111" not in str(raised.value)
        with pytest.raises(TrainingStopped, match="3 processes in a row did not start"):
            run(pool, "")


def test_a_process_that_died_while_it_had_nothing_to_do_is_nobodys_failure() -> None:
    with Pool(pool_work.make, processes=1, limits=ROOMY) as pool:
        idle = run(pool, "")
        descriptor = os.pidfd_open(idle)
        os.kill(idle, signal.SIGKILL)
        assert gone(descriptor)
        assert run(pool, "") != idle


def test_leaving_the_pool_ends_what_is_under_way() -> None:
    started = threading.Event()
    problems: list[str] = []

    def hang() -> None:
        try:
            ending.run("hang", lambda _: started.set())
        except TrainingStopped as problem:
            problems.append(str(problem))

    with Pool(pool_work.make, processes=1, limits=ROOMY) as ending:
        thread = threading.Thread(target=hang)
        thread.start()
        assert started.wait(PATIENCE_SECONDS)
    thread.join()
    assert problems == ["the run was ended. Run it again."]
    with pytest.raises(TrainingStopped, match="the run was ended"):
        run(ending, "")


@pytest.mark.usefixtures("heeding_ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_behind_by_a_run_that_is_ended(number: signal.Signals) -> None:
    """By SIGKILL to it alone; by Ctrl-C, which goes to all processes of the terminal."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.flows.pool_work"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        descriptors = [os.pidfd_open(int(pid)) for pid in process.stdout.readline().split()]
        assert len(descriptors) == 2
        if number == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, number)
        assert [gone(descriptor) for descriptor in descriptors] == [True, True]
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        assert "_serve" not in said, "the processes have nothing to say of it"


def gone(descriptor: int) -> bool:
    """Whether a process ends."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        return bool(poll.poll(PATIENCE_SECONDS * 1000))
    finally:
        os.close(descriptor)
