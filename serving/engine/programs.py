"""Programs at work: loaded, warmed, each with its executor."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from registry.model.runtime import Features, Program
from serving.engine.executor import Executor, Observer

_WARM_TEXT = "Where is my order? It should have arrived on Monday. "
# Batches to trace and allocate for before the first request; a program's cost changes little in between.
_WARM_BATCHES = (1, 2, 8, 32)
# How long one ticket may take in the event loop. `bag` takes a tenth of it; what is slower gets a thread.
_QUICK_SECONDS = 0.002
# Enough for one to find the processor free on a server that is busy.
_TRIES = 20


@dataclass(frozen=True, slots=True)
class RunningProgram:
    """A program, loaded and warmed, with its executor.

    Attributes:
        features: of a text that every new model must be able to score.
    """

    program: Program
    executor: Executor
    features: Features


@dataclass(frozen=True, slots=True)
class OpenedProgram:
    """A program, loaded and warmed.

    Attributes:
        features: of a text that every new model must be able to score.
        quick: whether its batches may be worked on in the event loop.
    """

    program: Program
    features: Features
    quick: bool

    def run(self, *, max_queue: int, observer: Observer) -> RunningProgram:
        """Give it an executor; one with a thread stands as far back as the thread that calls this.

        Args:
            max_queue: bound on the executor's queue.
            observer: hears of the executor's batches.
        """
        executor = Executor(self.program, max_queue=max_queue, observer=observer, in_thread=not self.quick)
        return RunningProgram(self.program, executor, self.features)


def open_program(folder: Path, *, trusted: frozenset[str]) -> OpenedProgram:
    """Load a program, and trace and allocate what the first request would otherwise wait for; takes seconds.

    Args:
        folder: holds the program.
        trusted: digests of the programs that may be executed.

    Raises:
        ProgramUntrusted, ProgramCorrupt: see `Program`.
    """
    program = Program(folder, trusted=trusted)
    for tickets in _WARM_BATCHES:
        program.featurise([_WARM_TEXT] * tickets)
    quick = False
    for _ in range(_TRIES):
        began = time.monotonic()
        features = program.featurise([_WARM_TEXT])
        # The least counts: whatever else the machine does meanwhile only makes it look slower.
        if time.monotonic() - began <= _QUICK_SECONDS:
            quick = True
            break
    return OpenedProgram(program, features, quick)
