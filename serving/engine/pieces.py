"""Long work of the event loop in pieces, between which everybody else has a turn."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from registry.errors import DeadlineExceeded, Overloaded, TenantThrottled
from registry.text.steps import Steps

T = TypeVar("T")
_MORE = object()
# How long it rests for each second of work: three quarters of the loop's time are everybody else's, or 31 parts of 32 where they
# need it.
_LEAST_REST, _MOST_REST = 3.0, 31.0
# A timer comes a millisecond late on a loop that has nothing else to do.
_LATE_SECONDS = 0.002


@dataclass(slots=True, eq=False)
class _Job:
    steps: Steps[Any]
    deadline: float
    outcome: asyncio.Future[Any]


class Pieces:
    """Does work one piece at a time, and rests after each: the longer, the busier the loop is. Owned by one event loop.

    Whether it is busy shows by when a piece begins that was to begin at some time. Where that is late, others wait, and the rests
    become twice as long; else half as long. It takes a quarter of the loop, and a 32nd where others need all of it.

    A piece is as many steps as fit into `piece_seconds`, and one at least. What is there first begins at once, so that work of
    less than a piece is done without a turn of the loop, as if it had been called. While some waits, tenants take turns by the
    piece; of one tenant it is done in the order in which it came.

    The picture of one piece of work:

        run ─┬─ nobody waits, no rest is due: a first piece ──┬─ done ── the result
             │                                                └─ not done ─┐
             └──────────────────────── waiting ◂──────────────────────────┘
                waiting ─┬─ its tenant's turn: a piece ─┬─ done ── the result, or what it raised
                         │                              └─ not done ── waiting, its tenant last
                         ├─ deadline ── DeadlineExceeded
                         └─ the caller is cancelled ── closed, where it stands

    Args:
        piece_seconds: length of a piece; a single step that takes longer is a piece of its own.
        ahead_seconds: how much of resting may be owed before work waits for it: work that comes seldom need not.
        max_waiting: how much of it may wait; a quarter of it of one tenant.
        refused: told why work was not done, as `serving.metrics.REFUSALS` has it.
        clock: seconds, never backwards.
    """

    def __init__(
        self,
        *,
        piece_seconds: float = 0.0005,
        ahead_seconds: float = 0.001,
        max_waiting: int = 64,
        refused: Callable[[Literal["tenant_queue", "queue_full", "deadline"]], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._piece_seconds = piece_seconds
        self._ahead_seconds = ahead_seconds
        self._max_waiting = max_waiting
        self._max_of_tenant = max(1, max_waiting // 4)
        self._refused = refused
        self._clock = clock
        self._queues: OrderedDict[str, deque[_Job]] = OrderedDict()  # whose turn is next comes first
        self._waiting = 0
        self._rest = _LEAST_REST
        self._due = 0.0  # when the next piece is to begin
        self._rested = 0.0  # when all work so far will have been rested for
        self._scheduled = False

    @property
    def waiting(self) -> int:
        """How much work is begun or waits to be."""
        return self._waiting

    async def run(self, steps: Steps[T], *, tenant: str, deadline: float) -> T:
        """What `steps` returns or raises.

        Args:
            steps: closed when nobody waits for it any more.
            tenant: whose turn it takes.
            deadline: by the clock; nobody waits longer.

        Raises:
            Overloaded: too much work waits.
            TenantThrottled: too much of the tenant's does.
            DeadlineExceeded: it was not done in time.
        """
        if not self._queues and self._resting_seconds() <= 0:
            at_once = self._worked(steps)
            if at_once is not _MORE:
                return cast(T, at_once)
        job = self._queued(steps, tenant, deadline)
        loop = asyncio.get_running_loop()
        self._go_on_soon(loop)
        expiry = loop.call_later(max(deadline - self._clock(), 0), _expire, job)
        try:
            made: Any = await job.outcome
        finally:
            expiry.cancel()
            self._withdraw(tenant, job)
            steps.close()
        if isinstance(made, DeadlineExceeded):
            self._refused("deadline")
        if isinstance(made, Exception):
            try:
                raise made
            finally:
                del made, job, steps  # the error keeps this frame, which must not keep the error: both keep the ticket
        return cast(T, made)

    def check(self, tenant: str) -> None:
        """Raises Overloaded or TenantThrottled where `run` would, because too much waits."""
        count = len(self._queues.get(tenant, ()))
        if count >= self._max_of_tenant:
            self._refused("tenant_queue")
            raise TenantThrottled(
                f"{count} long tickets of this tenant are being read",
                bound="tenant_queue",
                remedy="Try again in a second.",
            )
        if self._waiting >= self._max_waiting:
            self._refused("queue_full")
            raise Overloaded(f"{self._waiting} long tickets are being read", remedy="Try again in a second.")

    def _queued(self, steps: Steps[T], tenant: str, deadline: float) -> _Job:
        try:
            self.check(tenant)
        except (Overloaded, TenantThrottled):
            steps.close()
            raise
        job = _Job(steps, deadline, asyncio.get_running_loop().create_future())
        self._queues.setdefault(tenant, deque()).append(job)
        self._waiting += 1
        return job

    def _withdraw(self, tenant: str, job: _Job) -> None:
        queue = self._queues[tenant]
        queue.remove(job)
        self._waiting -= 1
        if not queue:
            del self._queues[tenant]

    def _resting_seconds(self) -> float:
        """How long it is until the next piece may begin; not above 0 when it may now."""
        return self._rested - self._ahead_seconds - self._clock()

    def _go_on_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._scheduled or not self._queues:
            return
        self._scheduled = True
        rest = max(self._resting_seconds(), 0.0)
        self._due = self._clock() + rest
        if rest > 0:
            loop.call_later(rest, self._go_on, loop)
        else:
            loop.call_soon(self._go_on, loop)

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        if self._clock() - self._due > _LATE_SECONDS:
            self._rest = min(2 * self._rest, _MOST_REST)
        else:
            self._rest = max(self._rest / 2, _LEAST_REST)
        job = self._next_job()
        if job is not None:
            made = self._tried(job.steps)
            if made is not _MORE:
                job.outcome.set_result(made)
            del made
        del job  # an error keeps this frame, too
        self._go_on_soon(loop)

    def _next_job(self) -> _Job | None:
        """The first that is not done, of the tenant whose turn it is; that tenant is the last then."""
        now = self._clock()
        for tenant, queue in self._queues.items():
            for job in queue:
                if job.deadline <= now:
                    _expire(job)
                if not job.outcome.done():  # or its caller has not come to withdraw it
                    self._queues.move_to_end(tenant)
                    return job
        return None

    def _tried(self, steps: Steps[Any]) -> Any:
        """One piece, or the error that it ended with."""
        try:
            return self._worked(steps)
        except Exception as error:  # noqa: BLE001  # it belongs to whoever waits for it
            return error

    def _worked(self, steps: Steps[Any]) -> Any:
        """One piece: what the work returns, or _MORE where there is more to do."""
        began = self._clock()
        try:
            while True:
                next(steps)
                if self._clock() - began >= self._piece_seconds:
                    return _MORE
        except StopIteration as end:
            return end.value
        finally:
            ended = self._clock()
            self._rested = max(self._rested, began) + (1 + self._rest) * (ended - began)


def _expire(job: _Job) -> None:
    if not job.outcome.done():
        job.outcome.set_result(DeadlineExceeded("there was no answer within the request's deadline"))
