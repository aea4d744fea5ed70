"""Opening a program: where its batches are worked off."""

from __future__ import annotations

import threading

import pytest

from serving.engine import programs
from serving.metrics import Metrics
from tests.serving.helpers import BuiltProgram


@pytest.mark.parametrize(("quick_seconds", "threads"), [(60.0, 0), (0.0, 1)])
def test_a_slow_program_has_a_thread_and_a_quick_one_has_none(
    bag: BuiltProgram, monkeypatch: pytest.MonkeyPatch, quick_seconds: float, threads: int
) -> None:
    monkeypatch.setattr(programs, "_QUICK_SECONDS", quick_seconds)
    before = _executors()
    running = programs.open_program(bag.folder, trusted=frozenset({bag.digest}), max_queue=1, observer=Metrics())
    try:
        assert len(_executors() - before) == threads
        assert running.program.digest == bag.digest
        assert running.features.tickets == 1
    finally:
        running.executor.close()
    assert _executors() == before


def _executors() -> set[int | None]:
    return {thread.ident for thread in threading.enumerate() if thread.name == "executor"}
