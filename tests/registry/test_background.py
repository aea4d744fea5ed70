"""Work that nobody waits for: in order, one failure apart from the next, and no thread left."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import background as background_module
from registry.background import Background


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "work"]


def test_jobs_run_in_order_and_leave_no_thread() -> None:
    background = Background("work")
    done: list[int] = []
    for number in range(100):
        background.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    background.settle()
    assert done == list(range(100))
    background.close(0)
    assert threads() == []


def test_a_job_may_submit_another() -> None:
    background = Background("work")
    done = threading.Event()
    background.submit(lambda: background.submit(done.set))
    background.settle()
    assert done.is_set()


def test_a_job_that_fails_is_logged_and_keeps_no_other_from_running(caplog: pytest.LogCaptureFixture) -> None:
    background = Background("work")
    done = threading.Event()
    with caplog.at_level(logging.ERROR):
        background.submit(lambda: 1 / 0)
        background.submit(done.set)
        background.settle()
    assert done.is_set()
    assert "ZeroDivisionError" in caplog.text


def patiently(monkeypatch: pytest.MonkeyPatch, *, quiet: float, patience: float) -> None:
    monkeypatch.setattr(background_module, "_QUIET_SECONDS", quiet)
    monkeypatch.setattr(background_module, "_PATIENCE_SECONDS", patience)


def test_jobs_wait_while_something_urgent_is_under_way_and_run_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    patiently(monkeypatch, quiet=0.001, patience=1_000)
    background = Background("work")
    order: list[str] = []
    done = threading.Event()
    with background.urgent():
        with background.urgent():
            background.submit(lambda: order.append("job"))
            background.submit(done.set)
        order.append("urgent")
    assert done.wait(60)
    assert order == ["urgent", "job"]
    background.close(60)


def test_jobs_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    patiently(monkeypatch, quiet=1_000, patience=0.001)
    background = Background("work")
    done = threading.Event()
    with background.urgent():
        background.submit(done.set)
        assert done.wait(60)
    background.close(60)


@pytest.mark.parametrize("end", [Background.settle, lambda background: background.close(60)])
def test_who_waits_for_the_jobs_has_them_run_at_once(
    monkeypatch: pytest.MonkeyPatch, end: Callable[[Background], None]
) -> None:
    patiently(monkeypatch, quiet=1_000, patience=1_000)
    background = Background("work")
    done = threading.Event()
    with background.urgent():
        background.submit(done.set)
        end(background)
    assert done.is_set()


def test_close_runs_what_waits_and_takes_no_more() -> None:
    background = Background("work")
    done: list[str] = []
    go = threading.Event()
    background.submit(go.wait)
    background.submit(lambda: done.append("waiting"))
    go.set()
    background.close(60)
    background.submit(lambda: done.append("late"))
    background.settle()
    assert done == ["waiting"]
    assert threads() == []


def test_close_gives_up_what_takes_too_long_but_never_a_job_in_the_middle() -> None:
    background = Background("work")
    done: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go.wait()
        done.append("begun")

    background.submit(slow)
    background.submit(lambda: done.append("waiting"))
    begun.wait()
    closing = threading.Thread(target=background.close, args=(0,))
    closing.start()
    while not background._closed or background._jobs:
        pass
    go.set()
    closing.join()
    assert done == ["begun"]
    assert threads() == []


def test_a_process_that_ends_without_closing_finishes_the_work(tmp_path: Path) -> None:
    code = (
        "import sys, threading, pathlib; from registry.background import Background;"
        "background = Background('work');"
        "background.submit(threading.main_thread().join);"  # no sooner than the process ends
        "background.submit(pathlib.Path(sys.argv[1]).touch)"
    )
    root = Path(sys.modules["registry"].__file__ or "").parent.parent
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "done")], cwd=root, check=True, timeout=60)
    assert (tmp_path / "done").exists()
