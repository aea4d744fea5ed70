"""Preloading: what must be on local disk before the server says that it is ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from registry.errors import BundleCorrupt, MacrofleetError, ProgramCorrupt, ProgramUntrusted
from serving.fleet_watch import ModelRef

_LOG = logging.getLogger(__name__)
# Fewer than the event loop has threads, so that a request for a model that is not there yet finds one.
_PARALLEL = 4
_MAX_LISTED = 100
# What waiting does not mend. Anything else, foreseen or not, may be better at the next attempt.
_PERMANENT = (BundleCorrupt, ProgramCorrupt, ProgramUntrusted)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far preloading is.

    Attributes:
        models: how many shall be on disk.
        on_disk: how many are, verified.
        failed: kind of failure by tenant, of the last attempt at each that is not on disk.
    """

    models: int
    on_disk: int
    failed: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Failure:
    kind: str
    permanent: bool


class Preload:
    """Prepares every version it is told of, and remembers the outcome. Owned by one event loop.

    A damaged or foreign bundle or program (BundleCorrupt, ProgramCorrupt, ProgramUntrusted) is a permanent failure: it
    is tried again when the fleet changes and, so long as nothing at all could be had, at every retry. A version or a
    program that the store lacks is permanent too, because it is published before the fleet names it: it was removed,
    and no waiting brings it back. Every other failure is a passing one.

    Args:
        prepare: has one version on disk and its program loaded; its errors are that version's alone.
    """

    def __init__(self, prepare: Callable[[ModelRef], Awaitable[None]]) -> None:
        self._prepare = prepare
        self._refs: Sequence[ModelRef] = ()
        self._on_disk: set[ModelRef] = set()
        self._failures: dict[ModelRef, _Failure] = {}

    @property
    def complete(self) -> bool:
        """Whether all is on disk but for permanent failures, which hold up nobody unless there is nothing else."""
        return not self._worth_trying()

    def progress(self) -> Progress:
        """How far it is."""
        failed = sorted((ref.tenant, failure.kind) for ref, failure in self._failures.items())
        return Progress(len(self._refs), len(self._on_disk), dict(failed[:_MAX_LISTED]))

    async def run(self, refs: Iterable[ModelRef]) -> None:
        """Prepare what of `refs` is not on disk yet, a few at a time; what failed before is tried again."""
        self._refs = list(refs)
        self._on_disk.intersection_update(self._refs)
        self._failures = {ref: self._failures[ref] for ref in self._refs if ref in self._failures}
        await self._prepare_all(self._missing())

    async def retry(self) -> None:
        """Prepare what `complete` waits for, and nothing else."""
        await self._prepare_all(self._worth_trying())

    def _missing(self) -> list[ModelRef]:
        return [ref for ref in self._refs if ref not in self._on_disk]

    def _worth_trying(self) -> list[ModelRef]:
        missing = self._missing()
        if not self._on_disk:
            return missing
        return [ref for ref in missing if ref not in self._failures or not self._failures[ref].permanent]

    async def _prepare_all(self, refs: Iterable[ModelRef]) -> None:
        waiting = iter(refs)
        async with asyncio.TaskGroup() as group:
            for _ in range(_PARALLEL):
                group.create_task(self._work_off(waiting))

    async def _work_off(self, waiting: Iterator[ModelRef]) -> None:
        for ref in waiting:
            try:
                await self._prepare(ref)
            except Exception as error:  # noqa: BLE001  # one that fails must not keep the others from being tried
                self._note(ref, error)
            else:
                self._on_disk.add(ref)
                self._failures.pop(ref, None)

    def _note(self, ref: ModelRef, error: Exception) -> None:
        failure = _Failure(type(error).__name__, isinstance(error, _PERMANENT))
        # A store that is away fails for every model at every retry: what is known already is not worth a warning.
        if self._failures.get(ref) == failure:
            level = logging.DEBUG
        else:
            level = logging.WARNING if isinstance(error, MacrofleetError) else logging.ERROR
        self._failures[ref] = failure
        extra = {"tenant": ref.tenant, "permanent": failure.permanent}
        _LOG.log(level, "a model cannot be preloaded", extra=extra, exc_info=error)
