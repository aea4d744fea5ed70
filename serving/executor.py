"""Batching: one executor for each program, which takes whatever is queued whenever it is free."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from registry.errors import BundleCorrupt, DeadlineExceeded, NotReady, Overloaded
from registry.runtime import Features

Scores: TypeAlias = NDArray[Any]


class Featuriser(Protocol):
    """What the executor asks of a program."""

    def featurise(self, texts: Sequence[str]) -> Features:
        """Features of a batch, in the order of the texts."""
        ...


class Scorer(Protocol):
    """What the executor asks of a model."""

    def score(self, features: Features) -> Scores:
        """Probabilities [tickets, macros]."""
        ...


@dataclass(slots=True, eq=False)
class _Job:
    model: Scorer
    text: str
    deadline: float
    outcome: asyncio.Future[Scores | Exception]


class Executor:
    """Featurises tickets of any tenants together, one batch at a time, and scores each with its own model.

    Nothing waits while the executor is free, and what arrives while it works makes up the next batch. The queue belongs
    to the event loop; one thread of its own does the work.

    Args:
        program: turns texts into features.
        max_queue: requests that may wait.
        max_tickets: bound on a batch.
        max_code_points: another one, so that one long ticket does not hold up many short ones; a ticket that is longer
            makes up a batch of its own.
    """

    def __init__(
        self, program: Featuriser, *, max_queue: int, max_tickets: int = 64, max_code_points: int = 20_000
    ) -> None:
        self._program = program
        self._max_queue = max_queue
        self._max_tickets = max_tickets
        self._max_code_points = max_code_points
        self._queue: deque[_Job] = deque()
        self._busy = False
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="executor")

    async def score(self, model: Scorer, text: str, *, deadline: float) -> Scores:
        """The scores of one ticket, float32 [macros].

        Args:
            deadline: by `time.monotonic`; a request that is still queued then, or whose caller was cancelled, is
                dropped before any work is done for it.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: its turn came too late.
            BundleCorrupt: the model's scores are not numbers.
            NotReady: the executor was closed.
        """
        if self._closed:
            raise NotReady("the server is stopping")
        if len(self._queue) >= self._max_queue:
            raise Overloaded(f"{len(self._queue)} requests are waiting", remedy="Try again in a second.")
        loop = asyncio.get_running_loop()
        job = _Job(model, text, deadline, loop.create_future())
        self._queue.append(job)
        if not self._busy:
            self._start(loop)
        outcome = await job.outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self) -> None:
        """Refuse what is queued and whatever comes; waits for the batch that is being worked on."""
        self._closed = True
        while self._queue:
            _settle(self._queue.popleft(), NotReady("the server is stopping"))
        self._thread.shutdown()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._next_batch()
        self._busy = bool(batch)
        if batch:
            self._thread.submit(self._work, loop, batch)

    def _next_batch(self) -> list[_Job]:
        batch: list[_Job] = []
        code_points = 0
        now = time.monotonic()
        while self._queue and len(batch) < self._max_tickets:
            job = self._queue[0]
            if job.outcome.done():  # cancelled
                self._queue.popleft()
                continue
            if job.deadline <= now:
                _settle(self._queue.popleft(), DeadlineExceeded("the request waited past its deadline"))
                continue
            code_points += len(job.text)
            if batch and code_points > self._max_code_points:
                break
            batch.append(self._queue.popleft())
        return batch

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[_Job]) -> None:
        """Runs in the thread: every job of the batch gets an outcome, whatever happens to the others."""
        outcomes: list[Scores | Exception]
        try:
            features = self._program.featurise([job.text for job in batch])
        except Exception as error:  # noqa: BLE001  # it belongs to the callers of this batch
            outcomes = [error] * len(batch)
        else:
            outcomes = [_scored(job.model, features, index) for index, job in enumerate(batch)]
        loop.call_soon_threadsafe(self._finish, loop, batch, outcomes)

    def _finish(
        self, loop: asyncio.AbstractEventLoop, batch: list[_Job], outcomes: Sequence[Scores | Exception]
    ) -> None:
        if self._queue:
            self._start(loop)
        else:
            self._busy = False
        for job, outcome in zip(batch, outcomes, strict=True):
            _settle(job, outcome)


def _scored(model: Scorer, features: Features, index: int) -> Scores | Exception:
    try:
        scores: Scores = model.score(features.select(index))[0]
    except Exception as error:  # noqa: BLE001  # it belongs to this ticket's caller
        return error
    if not np.isfinite(scores).all():
        return BundleCorrupt("the model's scores are not finite numbers")
    return scores


def _settle(job: _Job, outcome: Scores | Exception) -> None:
    if not job.outcome.done():
        job.outcome.set_result(outcome)
