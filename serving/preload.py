"""Preloading: what must be on local disk before the server says that it is ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from registry.errors import MacrofleetError
from serving.fleet_watch import ModelRef

_LOG = logging.getLogger(__name__)
# Fewer than the event loop has threads, so that a request for a model that is not there yet finds one.
_PARALLEL = 4
_MAX_LISTED = 100


@dataclass(frozen=True, slots=True)
class Progress:
    """How far preloading is.

    Attributes:
        models: how many shall be on disk.
        on_disk: how many are, verified.
        failed: kind of failure by tenant, for those that cannot be.
    """

    models: int
    on_disk: int
    failed: dict[str, str]


class Preload:
    """Prepares every version it is told of, and remembers the outcome. Owned by one event loop.

    Args:
        prepare: has one version on disk and its program loaded; its errors are that version's alone.
    """

    def __init__(self, prepare: Callable[[ModelRef], Awaitable[None]]) -> None:
        self._prepare = prepare
        self._refs: Sequence[ModelRef] = ()
        self._failures: dict[ModelRef, str | None] = {}  # None: it is on disk

    @property
    def usable(self) -> bool:
        """Whether all was tried and something came of it: one broken model holds up nobody, all of them do."""
        tried = len(self._failures) == len(self._refs)
        return tried and (not self._refs or any(failure is None for failure in self._failures.values()))

    def progress(self) -> Progress:
        """How far it is."""
        failed = {ref.tenant: failure for ref, failure in self._failures.items() if failure is not None}
        on_disk = len(self._failures) - len(failed)
        return Progress(len(self._refs), on_disk, dict(sorted(failed.items())[:_MAX_LISTED]))

    async def run(self, refs: Iterable[ModelRef]) -> None:
        """Prepare what of `refs` is not yet, a few at a time; what failed before is tried again."""
        self._refs = list(refs)
        done = {ref for ref, failure in self._failures.items() if failure is None}
        self._failures = {ref: None for ref in self._refs if ref in done}
        waiting = iter([ref for ref in self._refs if ref not in done])
        async with asyncio.TaskGroup() as group:
            for _ in range(_PARALLEL):
                group.create_task(self._work_off(waiting))

    async def _work_off(self, waiting: Iterator[ModelRef]) -> None:
        for ref in waiting:
            try:
                await self._prepare(ref)
            except Exception as error:  # noqa: BLE001  # one that fails must not keep the others from being tried
                self._failures[ref] = type(error).__name__
                level = logging.WARNING if isinstance(error, MacrofleetError) else logging.ERROR
                _LOG.log(level, "a model cannot be preloaded", extra={"tenant": ref.tenant}, exc_info=error)
            else:
                self._failures[ref] = None
