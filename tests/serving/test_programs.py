"""Opening a program: where its batches are worked off."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from registry.disk.tier import DiskTier
from registry.model.runtime import Features, Program
from serving.admission import Pacer
from serving.engine import programs
from serving.engine.models import Models
from serving.metrics import Metrics
from tests.serving.helpers import BuiltProgram


@pytest.mark.parametrize(("quick_seconds", "threads"), [(60.0, 0), (0.0, 1)])
def test_a_slow_program_has_a_thread_and_a_quick_one_has_none(
    bag: BuiltProgram, monkeypatch: pytest.MonkeyPatch, quick_seconds: float, threads: int
) -> None:
    monkeypatch.setattr(programs, "_QUICK_SECONDS", quick_seconds)
    before = _executors()
    opened = programs.open_program(bag.folder, trusted=frozenset({bag.digest}))
    assert _executors() == before, "it would stand as far back as the thread that opens programs"
    running = opened.run(max_queue=1, observer=Metrics())
    try:
        assert len(_executors() - before) == threads
        assert running.program.digest == bag.digest
        assert running.features.tickets == 1
    finally:
        running.executor.close()
    assert _executors() == before


class Programs:
    """A disk tier with programs, and what opens them: it notes how far the thread that does stands back."""

    def __init__(self) -> None:
        self.standing: list[int] = []

    def install_program(self, digest: str) -> Path:
        return Path(digest)

    def open(self, folder: Path, *, trusted: frozenset[str]) -> Any:
        thread = threading.Thread(target=self._note)  # as TensorFlow starts some
        thread.start()
        thread.join()
        spec = SimpleNamespace(name=folder.name)
        return programs.OpenedProgram(cast(Program, SimpleNamespace(spec=spec)), Features({}, 1), quick=False)

    def _note(self) -> None:
        self.standing.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
async def test_programs_that_come_while_others_answer_stand_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one does not, because TensorFlow's threads would as well; and nothing that answers requests does."""
    disk = Programs()
    monkeypatch.setattr("serving.engine.models.open_program", disk.open)
    pacer = Pacer(per_second=1000, longest_wait_seconds=1)
    models = Models(cast(DiskTier, disk), trusted=frozenset(), max_queue=1, pacer=pacer, metrics=Metrics())
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    try:
        for digest in ("a", "b", "c"):
            before = set(threading.enumerate())
            await models.program(digest)
            (executor,) = set(threading.enumerate()) - before
            assert executor.native_id is not None
            assert os.getpriority(os.PRIO_PROCESS, executor.native_id) == own, "it answers requests"
        assert disk.standing == [own, min(19, own + 17), min(19, own + 17)]
    finally:
        models.close()


def _executors() -> set[int | None]:
    return {thread.ident for thread in threading.enumerate() if thread.name == "executor"}
