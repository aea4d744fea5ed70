"""Two programs in one process: what a slow one works on must not hold up a quick one's tickets."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from registry.model.program import program_digest
from registry.model.runtime import Features
from serving.engine import programs
from serving.engine.executor import Executor
from serving.metrics import Metrics

PATIENCE_SECONDS = 60.0


class Slow:
    """A program whose batch takes until it is told to end."""

    def __init__(self) -> None:
        self.began, self.ends = threading.Event(), threading.Event()
        self.thread = ""

    def featurise(self, texts: Sequence[str]) -> Features:
        self.thread = threading.current_thread().name
        self.began.set()
        assert self.ends.wait(PATIENCE_SECONDS)
        return Features({}, len(texts))


class Quick:
    def featurise(self, texts: Sequence[str]) -> Features:
        return Features({}, len(texts))


class Even:
    def score_ticket(self, features: Features, index: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return np.full(2, 0.5, np.float32)


@pytest.mark.anyio
async def test_a_slow_programs_batch_holds_up_no_ticket_of_a_quick_one() -> None:
    slow_program = Slow()
    slow = Executor(slow_program, max_queue=10, observer=Metrics(), in_thread=True)
    quick = Executor(Quick(), max_queue=10, observer=Metrics(), in_thread=False)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        waiting = asyncio.create_task(slow.score(Even(), "long", tenant="a", deadline=deadline))
        await asyncio.to_thread(slow_program.began.wait, PATIENCE_SECONDS)
        # The slow batch ends only after these are answered: were they to wait for it, nothing would go on.
        for _ in range(100):
            await quick.score(Even(), "short", tenant="b", deadline=deadline)
        assert not waiting.done()
        slow_program.ends.set()
        await waiting
        assert slow_program.thread == "executor"
    finally:
        slow_program.ends.set()
        slow.close()
        quick.close()


def test_the_encoder_works_in_a_thread(tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its time: the real one takes ten times the bound, and this one stands in for it at a bound as much smaller."""
    monkeypatch.setattr(programs, "_QUICK_SECONDS", 1e-5)
    before = set(threading.enumerate())
    trusted = frozenset([program_digest(tiny_encoder_folder)])
    running = programs.open_program(tiny_encoder_folder, trusted=trusted).run(max_queue=1, observer=Metrics())
    try:
        assert [thread.name for thread in set(threading.enumerate()) - before] == ["executor"]
        assert running.program.spec.name == "encoder"
    finally:
        running.executor.close()
