"""Feedback and impressions on their way to disk and store: many waiting requests share one sync. Owned by one event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from registry.errors import FeedbackUnavailable, MacrofleetError
from serving.feedback.journal import Journal, LeftJournal, Segment, claim_left, line_of
from serving.feedback.pace import Pace
from serving.feedback.shipping import NotUnderstood, Part, Shipper, parts_of
from serving.metrics import Metrics
from serving.threads import Workers

_LOG = logging.getLogger(__name__)
# A sync takes milliseconds: more than this many requests would wait for seconds.
_MOST_WAITING = 10_000
_MOST_AT_ONCE = 1000
_MOST_IMPRESSIONS = 10_000
# Above this share of the journal impressions are left out, so that they never keep feedback out.
_IMPRESSIONS_FILL = 0.5
_TICK_SECONDS = 1.0
_CLAIM_SECONDS = 30.0
_LONGEST_PAUSE_SECONDS = 60.0
_LAST_SHIPPING_SECONDS = 5.0
_SHIPPING_THREADS = 4
# Of a processor, what shipping gets while requests may come, unless the journal fills up: more where its fill is above the
# one figure, all at the other, where views are soon left out.
_SHIPPING_SHARE = 0.05
_CALM_FILL, _URGENT_FILL = 0.3, 0.45


@dataclass(slots=True)
class Tally:
    """What became of records since the process began."""

    accepted: int = 0
    refused: int = 0
    kept: int = 0
    dropped: int = 0
    shipped: int = 0
    objects: int = 0
    failed_shipments: int = 0


class FeedbackLog:
    """Takes feedback, which it answers for, and impressions, which it may lose.

    Args:
        root: the folder of all journals of the store on this machine.
        shipper: has segments in the store.
        max_bytes, segment_bytes, segment_seconds, tenant_seconds: see `Journal`.
        tick_seconds: how often it looks for what is to be written, sealed or shipped.
        clock: seconds, never backwards.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        root: Path,
        shipper: Shipper,
        *,
        max_bytes: int,
        segment_bytes: int,
        segment_seconds: float,
        tenant_seconds: float = 0.0,
        tick_seconds: float = _TICK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._shipper = shipper
        self._max_bytes = max_bytes
        self._journal = Journal(
            root,
            max_bytes=max_bytes,
            segment_bytes=segment_bytes,
            segment_seconds=segment_seconds,
            tenant_seconds=tenant_seconds,
            wall=wall,
        )
        self._tick_seconds = tick_seconds
        self._clock = clock
        self._wall = wall
        self._waiting: deque[tuple[str, bytes, asyncio.Future[None]]] = deque()
        self._impressions: deque[tuple[str, bytes]] = deque()
        self._committing: asyncio.Task[None] | None = None
        self._left: list[LeftJournal] = []
        self._writer: Workers | None = None
        self._shippers: Workers | None = None
        self._next_claim = 0.0
        self._pause = 0.0
        self._next_shipping = 0.0
        self._shipping = asyncio.Lock()
        self._pace = Pace(self._shipping_share, threads=_SHIPPING_THREADS)
        self._ended = threading.Event()
        self.tally = Tally()

    @property
    def nbytes(self) -> int:
        """Bytes on this process's disk that are not in the store yet."""
        return self._journal.nbytes + sum(journal.nbytes for journal in self._left)

    def unshipped_seconds(self) -> float:
        """Age of the oldest record that is not in the store yet, at most; 0 where all are."""
        begun = [segment.begun for journal in self._left for segment in list(journal.segments)]
        own = self._journal.oldest()
        oldest = min([*begun, *([] if own is None else [own])], default=None)
        return 0.0 if oldest is None else max(self._wall() - oldest, 0.0)

    async def keep(self, record: Mapping[str, Any]) -> None:
        """Return once a record is on this machine's disk. Within `running`.

        Raises:
            FeedbackUnavailable: it is not, and will not be.
        """
        if len(self._waiting) >= _MOST_WAITING:
            self.tally.refused += 1
            raise FeedbackUnavailable("too much feedback waits for the disk", retry_after_seconds=1.0)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((record["tenant"], line_of(to_json(record)), done))
        self._commit()
        await done

    def shown(
        self,
        tenant: str,
        *,
        suggestion_id: str,
        model_version: str,
        macro_ids: Sequence[str],
        abstained: bool,
        ticket_id: str | None = None,
        held_back: bool = False,
    ) -> None:
        """See `serving.observing.Observer`."""
        if len(self._impressions) >= _MOST_IMPRESSIONS:
            self.tally.dropped += 1
            return
        record = {
            "tenant": tenant,
            "kind": "shown",
            "at": self._wall(),
            "suggestion_id": suggestion_id,
            "model_version": model_version,
            "ticket_id": ticket_id,
            "macros": macro_ids,
            "abstained": abstained,
            "held_back": held_back,
        }
        # Here, and not in the journal's thread for all views of a second: that thread would hold up the loop.
        self._impressions.append((tenant, line_of(to_json(record))))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write and ship while the context lasts. At its end all is on the disk, and in the store if that is quick."""
        self._writer = Workers("journal", 1)
        self._shippers = Workers("shipping", _SHIPPING_THREADS, nice=5)
        going = [asyncio.create_task(each) for each in (self._keep_writing(), self._keep_shipping())]
        try:
            yield
        finally:
            for each in going:
                each.cancel()
            await asyncio.gather(*going, return_exceptions=True)
            await self._settle()
            await self._writer.run(self._journal.rotate, force=True)
            try:
                with self._pace.hurried():
                    async with asyncio.timeout(_LAST_SHIPPING_SECONDS):
                        await self._ship_round()
            except (TimeoutError, MacrofleetError, OSError) as problem:
                _LOG.warning("feedback stays on the disk for the next server", exc_info=problem)
            self._ended.set()  # or threads would go on with the parts that are left, and the process wait for them
            await self._writer.run(self._journal.close)
            for journal in self._left:
                journal.close()
            self._writer.close()
            self._shippers.close()

    async def flush(self) -> None:
        """Have what waits written, sealed and shipped now. Raises StoreError where that fails."""
        assert self._writer is not None, "it is not running"
        await self._settle()
        await self._writer.run(self._journal.rotate, force=True)
        with self._pace.hurried():
            await self._ship_round()

    # Writing

    async def _keep_writing(self) -> None:
        """Beside shipping: a store that takes minutes to refuse must not cost the views of those minutes."""
        assert self._writer is not None
        while True:
            if self._impressions:
                self._commit()
            try:
                await self._writer.run(self._journal.rotate)
            except Exception as problem:  # noqa: BLE001  # records must be written to the end, whatever it was
                _LOG.warning("a segment of the journal cannot be sealed", exc_info=problem)
            await asyncio.sleep(self._tick_seconds)

    def _commit(self) -> None:
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_all())

    async def _settle(self) -> None:
        """All that waits is written."""
        if self._waiting or self._impressions:
            self._commit()
        if self._committing is not None:
            await asyncio.gather(self._committing, return_exceptions=True)

    async def _commit_all(self) -> None:
        """Write what waits until nothing does; what comes meanwhile waits for the next sync together."""
        assert self._writer is not None, "it is not running"
        while self._waiting or self._impressions:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_AT_ONCE))]
            impressions = list(self._impressions)
            self._impressions.clear()
            problem: Exception | None = None
            try:
                await self._writer.run(self._write, [each[:2] for each in batch], impressions)
            except Exception as error:  # noqa: BLE001  # its requests must be answered, whatever it was
                problem = error
            if problem is None:
                self.tally.accepted += len(batch)
            else:
                self.tally.refused += len(batch)
                _LOG.warning("feedback was refused", extra={"records": len(batch)}, exc_info=problem)
            for _, _, done in batch:
                if not done.done():  # its caller may have gone
                    if problem is None:
                        done.set_result(None)
                    else:
                        done.set_exception(problem)

    def _write(self, records: Sequence[tuple[str, bytes]], impressions: Sequence[tuple[str, bytes]]) -> None:
        """Runs in the journal's thread."""
        self._journal.rotate()
        if impressions:
            self._write_impressions(impressions)
        if records:
            left = sum(journal.nbytes for journal in list(self._left))
            if left and left + self._journal.nbytes > self._max_bytes:
                raise FeedbackUnavailable(
                    "journals of servers that are no more are not shipped yet", retry_after_seconds=30.0
                )
            self._journal.append([line for _, line in records], sync=True, tenants=[tenant for tenant, _ in records])

    def _write_impressions(self, impressions: Sequence[tuple[str, bytes]]) -> None:
        try:
            if self._journal.fill < _IMPRESSIONS_FILL:
                self._journal.append(
                    [line for _, line in impressions], sync=False, tenants=[tenant for tenant, _ in impressions]
                )
                self.tally.kept += len(impressions)
                return
        except FeedbackUnavailable as problem:
            _LOG.debug("impressions are left out", exc_info=problem)
        self.tally.dropped += len(impressions)

    # Shipping

    async def _keep_shipping(self) -> None:
        while True:
            try:
                if self._clock() >= self._next_shipping:
                    await self._ship_round()
                    self._pause = 0.0
            except Exception as problem:  # noqa: BLE001  # feedback must be shipped some day, whatever it was
                self.tally.failed_shipments += 1
                self._pause = min(max(2 * self._pause, self._tick_seconds), _LONGEST_PAUSE_SECONDS)
                self._next_shipping = self._clock() + self._pause
                _LOG.warning("feedback cannot be shipped", extra={"bytes": self.nbytes}, exc_info=problem)
            await asyncio.sleep(self._tick_seconds)

    async def _ship_round(self) -> None:
        """Ship what is sealed, of this process and of those that are no more."""
        assert self._shippers is not None
        async with self._shipping:
            if self._clock() >= self._next_claim:
                self._next_claim = self._clock() + _CLAIM_SECONDS
                self._left += await self._shippers.run(claim_left, self._root)
            for segment in self._journal.sealed():
                await self._ship(segment)
                await self._shippers.run(self._journal.remove, segment)
            for journal in list(self._left):
                for segment in list(journal.segments):
                    try:
                        await self._ship(segment)
                    except NotUnderstood as problem:
                        # A newer server left it: after a rollback, say. The next one of that release finds it here.
                        _LOG.warning("%s: it is left for a server of another release", problem)
                        continue
                    await self._shippers.run(journal.remove, segment)
                self._left.remove(journal)
                journal.close()

    async def _ship(self, segment: Segment) -> None:
        assert self._shippers is not None
        shippers = self._shippers
        parts = await shippers.run(parts_of, segment, self._pace)
        for tenant in await shippers.run(self._shipper.dropped, parts):
            del parts[tenant]
            _LOG.info("feedback on a deleted tenant was dropped")
        # A part is not a task: a thousand of them would be made in one turn of the loop, which would stand still as long.
        left = deque(parts.items())
        # All end, also where one fails: their threads would go on beside the next attempt.
        done = await asyncio.gather(
            *(shippers.run(self._ship_parts, left) for _ in range(_SHIPPING_THREADS)), return_exceptions=True
        )
        counts: dict[str, int] = {}
        for result in done:
            if isinstance(result, BaseException):
                raise result
            counts |= result
        for tenant in await shippers.run(self._shipper.take_back, segment, list(counts)):
            del counts[tenant]
        self.tally.objects += len(counts)
        self.tally.shipped += sum(counts.values())

    def _ship_parts(self, left: deque[tuple[str, Part]]) -> dict[str, int]:
        """Runs in a thread, beside others that take from the same parts; how many records it shipped of each tenant."""
        counts: dict[str, int] = {}
        while not self._ended.is_set():
            try:
                tenant, part = left.popleft()
            except IndexError:
                break
            try:
                lines = part.lines(self._pace)
                self._shipper.ship(part.segment, tenant, lines, self._pace)
            except BaseException:
                left.clear()  # the others need not try what is tried again anyhow
                raise
            counts[tenant] = len(lines)
            self._pace.rest()
        return counts

    def _shipping_share(self) -> float:
        """Of a processor, for all of shipping. Asked in its threads."""
        urgency = (self.nbytes / self._max_bytes - _CALM_FILL) / (_URGENT_FILL - _CALM_FILL)
        return _SHIPPING_SHARE + (1 - _SHIPPING_SHARE) * min(max(urgency, 0.0), 1.0)


def add_feedback_metrics(metrics: Metrics, log: FeedbackLog) -> None:
    """Show in the metrics what became of records, and what waits."""
    tally = log.tally
    metrics.counters(
        "macrofleet_feedback_total",
        "Feedback by what became of it",
        ("outcome",),
        lambda: {("accepted",): tally.accepted, ("refused",): tally.refused},
    )
    metrics.counters(
        "macrofleet_impressions_total",
        "Views of suggestions by whether they were written down",
        ("outcome",),
        lambda: {("kept",): tally.kept, ("dropped",): tally.dropped},
    )
    metrics.counters(
        "macrofleet_feedback_shipping_total",
        "Records that came into the store, and attempts that failed",
        ("outcome",),
        lambda: {("shipped",): tally.shipped, ("failed",): tally.failed_shipments},
    )
    metrics.counters(
        "macrofleet_feedback_objects_total", "Objects of feedback that were written", (), lambda: {(): tally.objects}
    )
    metrics.gauge(
        "macrofleet_feedback_journal_bytes", "Bytes of feedback that are not in the store yet", lambda: log.nbytes
    )
    metrics.gauge(
        "macrofleet_feedback_unshipped_age_seconds",
        "Since the oldest records that are not in the store yet were begun",
        log.unshipped_seconds,
    )
