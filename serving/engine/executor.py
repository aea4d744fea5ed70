"""Batching: one executor for each program, which takes whatever is queued whenever it is free."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from registry.errors import (
    BundleCorrupt,
    DeadlineExceeded,
    NotReady,
    Overloaded,
    TenantThrottled,
)
from registry.model.runtime import Features
from serving.stacks import without_frames

Scores: TypeAlias = NDArray[Any]


class Featuriser(Protocol):
    """What the executor asks of a program."""

    def featurise(self, texts: Sequence[str]) -> Features:
        """Features of a batch, in the order of the texts."""
        ...


class Scorer(Protocol):
    """What the executor asks of a model."""

    def score_ticket(self, features: Features, index: int) -> Scores:
        """Probabilities [macros] of one ticket of a batch."""
        ...


class Observer(Protocol):
    """What the executor tells of a batch; `batch` is called on the event loop, `phase` in the executor's thread."""

    def batch(self, size: int) -> None:
        """So many tickets are worked on together."""

    def phase(self, name: Literal["queue", "featurise", "score"], seconds: float) -> None:
        """A ticket waited in the queue, a batch was featurised, a ticket was scored."""


@dataclass(slots=True, eq=False)
class Job:
    """One ticket on its way through the executor; the times are `time.monotonic`, for traces.

    Attributes:
        taken: whether it has left the queue.
        began: when its batch was taken up.
        featurised: when the batch's features were there.
        scored: when its scores were.
        features: of its batch, and `index` its place in there.
    """

    model: Scorer
    text: str
    deadline: float
    outcome: asyncio.Future[Scores | Exception]
    queued: float
    taken: bool = False
    began: float = 0.0
    featurised: float = 0.0
    scored: float = 0.0
    features: Features | None = None
    index: int = 0


@dataclass(slots=True, eq=False)
class Spare:
    """One ticket that nobody waits for.

    Attributes:
        features: of a batch that the ticket is in at place `index`, where this very program made them; else None.
        then: told the outcome, on the event loop. Must not raise.
    """

    model: Scorer
    text: str
    features: Features | None
    index: int
    then: Callable[[Scores | Exception], None]


class Executor:
    """Featurises tickets of any tenants together, one batch at a time, and scores each with its own model.

    Nothing waits while the executor is free, and what arrives while it works makes up the next batch. Tenants take turns
    in a batch, so that one with many requests waiting holds up its own only, and none may fill more than a quarter of
    the queue. The queue belongs to the event loop.

    What nobody waits for (`when_free`) is worked on one ticket at a time, when no request waits.

    Args:
        program: turns texts into features.
        max_queue: requests that may wait.
        observer: hears of batches.
        in_thread: work in a thread of its own. What takes many milliseconds must, or the event loop does nothing else
            in the meantime; what takes a few is quicker in the loop itself, because handing a batch to a thread, the
            interpreter and the processor with it, takes as long as the batch.
        max_tickets: bound on a batch.
        max_code_points: another one, so that one long ticket does not hold up many short ones; a ticket that is longer
            makes up a batch of its own.
    """

    def __init__(
        self,
        program: Featuriser,
        *,
        max_queue: int,
        observer: Observer,
        in_thread: bool,
        max_tickets: int = 32,
        max_code_points: int = 20_000,
    ) -> None:
        self._program = program
        self._max_queue = max_queue
        self._max_of_tenant = max(1, max_queue // 4)
        self._observer = observer
        self._max_tickets = max_tickets
        self._max_code_points = max_code_points
        self._queues: OrderedDict[str, deque[Job]] = OrderedDict()  # whose turn is next comes first
        self._waiting = 0
        self._spare: deque[Spare] = deque()
        self._busy = False
        self._closed = False
        self._work: SimpleQueue[tuple[asyncio.AbstractEventLoop, list[Job] | Spare] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="executor", daemon=True) if in_thread else None
        if self._thread is not None:
            self._thread.start()

    @property
    def waiting(self) -> int:
        """Tickets in the queue."""
        return self._waiting

    async def score(self, model: Scorer, text: str, *, tenant: str, deadline: float) -> tuple[Scores, Job]:
        """The scores of one ticket, float32 [macros], and when what was done.

        Args:
            tenant: whose turn it takes.
            deadline: by `time.monotonic`; nobody waits longer. A request that is still queued then, or whose caller
                was cancelled, leaves the queue at once, before any work is done for it.

        Raises:
            Overloaded: the queue is full.
            TenantThrottled: the tenant's part of the queue is full.
            DeadlineExceeded: there was no answer in time.
            BundleCorrupt: the model's scores are not numbers.
            NotReady: the executor was closed.
        """
        if self._closed:
            raise NotReady("the server is stopping")
        if self._waiting >= self._max_queue:
            raise Overloaded(f"{self._waiting} requests are waiting", remedy="Try again in a second.")
        loop = asyncio.get_running_loop()
        job = Job(model, text, deadline, loop.create_future(), time.monotonic())
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = deque()
        elif len(queue) >= self._max_of_tenant:
            raise TenantThrottled(
                f"{len(queue)} requests of this tenant are waiting",
                bound="tenant_queue",
                remedy="Try again in a second.",
            )
        queue.append(job)
        self._waiting += 1
        self._start_soon(loop)
        expiry = loop.call_later(max(deadline - job.queued, 0), _expire, job)
        try:
            outcome = await job.outcome
        finally:
            expiry.cancel()
            if not job.taken:
                self._withdraw(tenant, job)
        if isinstance(outcome, Exception):
            try:
                raise outcome
            finally:
                del job, outcome  # the error keeps this frame, which must not keep the error: both keep the model
        return outcome, job

    def when_free(self, spare: Spare) -> None:
        """Have a ticket scored when no request waits; how many of these may wait is the caller's to bound."""
        if self._closed:
            spare.then(NotReady("the server is stopping"))
            return
        self._spare.append(spare)
        self._start_soon(asyncio.get_running_loop())

    def close(self) -> None:
        """Refuse what is queued and whatever comes; waits for the batch that is being worked on."""
        if self._closed:
            return
        self._closed = True
        for queue in self._queues.values():
            for job in queue:
                _settle(job, NotReady("the server is stopping"))
        self._queues.clear()
        self._waiting = 0
        while self._spare:
            self._spare.popleft().then(NotReady("the server is stopping"))
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()

    def _withdraw(self, tenant: str, job: Job) -> None:
        """Nobody waits for a job that is queued: its place is free, and its model need not stay mapped for it."""
        queue = self._queues.get(tenant)
        if queue is None or job not in queue:
            return  # closed
        queue.remove(job)
        self._waiting -= 1
        if not queue:
            del self._queues[tenant]

    def _start_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._busy:
            self._busy = True
            loop.call_soon(self._start_when_all_are_in, loop, 0)

    def _start_when_all_are_in(self, loop: asyncio.AbstractEventLoop, before: int) -> None:
        """Start in a later turn of the loop for as long as each turn brings requests: those are a batch together.

        A turn with nothing to do takes microseconds. What begins a batch right away leaves out those whose sockets were
        read in the same turn, and most of a batch's cost does not depend on its size.
        """
        if before < self._waiting < self._max_tickets:
            loop.call_soon(self._start_when_all_are_in, loop, self._waiting)
        else:
            self._start(loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._next_batch()
        self._busy = bool(batch or self._spare)
        if batch:
            self._observer.batch(len(batch))
            if self._thread is None:
                self._finish(loop, batch, self._worked(batch))
            else:
                self._work.put((loop, batch))
        elif self._spare:
            spare = self._spare.popleft()
            if self._thread is None:
                self._finish_spare(loop, spare, self._spared(spare))
            else:
                self._work.put((loop, spare))

    def _next_batch(self) -> list[Job]:
        """One ticket of each tenant in turn; what nobody waits for any more is left out."""
        batch: list[Job] = []
        code_points = 0
        now = time.monotonic()
        while self._queues and len(batch) < self._max_tickets:
            tenant, queue = next(iter(self._queues.items()))
            job = queue[0]
            gone = job.outcome.done()  # and its caller has not come to withdraw it
            late = job.deadline <= now
            if not gone and not late:
                code_points += len(job.text)
                if batch and code_points > self._max_code_points:
                    break
                batch.append(job)
            elif not gone:
                _settle(job, DeadlineExceeded("the request waited past its deadline"))
            queue.popleft()
            job.taken = True
            self._waiting -= 1
            if not queue:
                del self._queues[tenant]
            elif not gone and not late:
                self._queues.move_to_end(tenant)
        return batch

    def _run(self) -> None:
        """The thread: one batch after the other until told to end."""
        while (work := self._work.get()) is not None:
            loop, batch = work
            if isinstance(batch, Spare):
                loop.call_soon_threadsafe(self._finish_spare, loop, batch, self._spared(batch))
            else:
                loop.call_soon_threadsafe(self._finish, loop, batch, self._worked(batch))
            del work, batch  # what waits for the next batch must keep no model mapped

    def _worked(self, batch: list[Job]) -> list[Scores | Exception]:
        """An outcome for every job of a batch, whatever happens to the others."""
        began = time.monotonic()
        try:
            features = self._program.featurise([job.text for job in batch])
        except Exception as error:  # noqa: BLE001  # it belongs to the callers of this batch
            return [without_frames(error)] * len(batch)
        featurised = last = time.monotonic()
        phase = self._observer.phase
        phase("featurise", featurised - began)
        outcomes = []
        for index, job in enumerate(batch):
            outcomes.append(_scored(job.model, features, index))
            job.features, job.index = features, index
            job.began, job.featurised, job.scored = began, featurised, time.monotonic()
            phase("queue", began - job.queued)
            phase("score", job.scored - last)
            last = job.scored
        return outcomes

    def _finish(
        self, loop: asyncio.AbstractEventLoop, batch: list[Job], outcomes: Sequence[Scores | Exception]
    ) -> None:
        self._busy = bool(self._waiting or self._spare)
        if self._busy and self._thread is not None:
            self._start(loop)
        for job, outcome in zip(batch, outcomes, strict=True):
            _settle(job, outcome)
        if self._busy and self._thread is None:
            loop.call_soon(self._start_when_all_are_in, loop, 0)  # after these answers are on their way

    def _spared(self, spare: Spare) -> Scores | Exception:
        """The outcome of what nobody waits for. None of it is observed: it would mix with what requests took."""
        features, index = spare.features, spare.index
        if features is None:
            try:
                features, index = self._program.featurise([spare.text]), 0
            except Exception as error:  # noqa: BLE001  # it belongs to who is told
                return without_frames(error)
        return _scored(spare.model, features, index)

    def _finish_spare(self, loop: asyncio.AbstractEventLoop, spare: Spare, outcome: Scores | Exception) -> None:
        self._busy = bool(self._waiting or self._spare)
        if self._busy:
            loop.call_soon(self._start, loop)
        spare.then(outcome)


def _scored(model: Scorer, features: Features, index: int) -> Scores | Exception:
    try:
        scores: Scores = model.score_ticket(features, index)
    except Exception as error:  # noqa: BLE001  # it belongs to this ticket's caller
        return without_frames(error)
    if not np.isfinite(scores).all():
        return BundleCorrupt("the model's scores are not finite numbers")
    return scores


def _expire(job: Job) -> None:
    _settle(job, DeadlineExceeded("there was no answer within the request's deadline"))


def _settle(job: Job, outcome: Scores | Exception) -> None:
    if not job.outcome.done():
        job.outcome.set_result(outcome)
