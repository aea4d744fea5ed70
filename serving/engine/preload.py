"""Preloading: what must be on local disk, and of that in memory, before the server says that it is ready."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from registry.errors import BundleCorrupt, MacrofleetError, OutOfResources, ProgramCorrupt, ProgramUntrusted
from registry.fleet.state import Fleet, PreloadPlan
from serving.fleet_watch import ModelRef, model_refs

_LOG = logging.getLogger(__name__)
# Fewer than there are threads for it, so that a request for a model that is not there yet finds one.
_PARALLEL = 4
# Beside answers it rests between two of them so many times as long as one takes: meanwhile whoever had what moves here
# still answers, and a model that is asked for before its turn is fetched at once. All rests together take half a minute
# at most, since what moves waits for the last one.
_REST = 3.0
_RESTS_SECONDS = 30.0
_LOG_PARTS = 10
# What waiting does not mend. Anything else, foreseen or not, may be better at the next attempt.
_PERMANENT = (BundleCorrupt, ProgramCorrupt, ProgramUntrusted)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far preloading is.

    Attributes:
        models: how many the plan asks for.
        on_disk: how many are, verified.
        skipped: how many do not fit: the plan's bytes, or the disk tier's budget, are used up.
        failed: kind of failure by tenant, of the last attempt at each that is not on disk.
    """

    models: int
    on_disk: int
    skipped: int
    failed: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Failure:
    kind: str
    permanent: bool


def plan_models(
    plan: PreloadPlan,
    fleet: Fleet,
    *,
    requests: Mapping[str, float],
    own: Callable[[Collection[str]], Collection[str]] = lambda tenants: tenants,
) -> list[ModelRef]:
    """What a plan asks for, the most wanted first: pinned ones, then by recent traffic, then by name.

    Args:
        plan: the fleet's, or the setting where it has none.
        fleet: what serves and what is pinned.
        requests: recent traffic by tenant.
        own: those of some tenants that are this replica's, for the plan "share".
    """
    if plan.models == "none":
        return []
    pinned = {tenant for tenant, entry in fleet.entries.items() if entry.keep_loaded and entry.serves}
    ranked = sorted(
        model_refs(fleet), key=lambda ref: (ref.tenant not in pinned, -requests.get(ref.tenant, 0.0), ref.tenant)
    )
    if plan.models == "pinned":
        return ranked[: len(pinned)]
    if plan.models == "share":
        wanted = pinned | set(own([ref.tenant for ref in ranked]))
        return [ref for ref in ranked if ref.tenant in wanted]
    return ranked if plan.top is None else ranked[: max(len(pinned), plan.top)]


class Preload:
    """Prepares every version it is told of, and remembers the outcome. Owned by one event loop.

    A damaged or foreign bundle or program (BundleCorrupt, ProgramCorrupt, ProgramUntrusted) is a permanent failure: it
    is tried again when the fleet changes and, so long as nothing at all could be had, at every retry. A version or a
    program that the store lacks is permanent too, because it is published before the fleet names it: it was removed,
    and no waiting brings it back. Every other failure is a passing one. A model for which there is no room is no
    failure: it is skipped. A run that is cancelled or ends half-way goes on where it was: what is on disk stays there.

    Args:
        prepare: has one version on disk and its program loaded, and says how many bytes it takes; its errors are that
            version's alone, and OutOfResources means that there is no room for it.
        block_broken: whether permanent failures keep `complete` false, too.
        clock: seconds that only grow; `sleep` waits for some.
    """

    def __init__(
        self,
        prepare: Callable[[ModelRef], Awaitable[int]],
        *,
        block_broken: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._prepare = prepare
        self._block_broken = block_broken
        self._clock = clock
        self._sleep = sleep
        self._refs: Sequence[ModelRef] = ()
        self._room: int | None = None
        self._on_disk: dict[ModelRef, int] = {}
        self._taken = 0
        self._skipped: set[ModelRef] = set()
        self._failures: dict[ModelRef, _Failure] = {}
        self._told = 0

    @property
    def refs(self) -> Sequence[ModelRef]:
        """What `run` was told of last."""
        return self._refs

    @property
    def complete(self) -> bool:
        """Whether all is on disk but for permanent failures, which hold up nobody unless there is nothing else."""
        return not self._worth_trying() and not (self._block_broken and self._failures)

    def progress(self) -> Progress:
        """How far it is."""
        failed = {ref.tenant: failure.kind for ref, failure in self._failures.items()}
        return Progress(len(self._refs), len(self._on_disk), len(self._skipped), failed)

    async def run(self, refs: Iterable[ModelRef], *, room: int | None = None, beside_answers: bool = False) -> None:
        """Prepare what of `refs` is not on disk yet, a few at a time; what failed before is tried again.

        Args:
            refs: the most wanted first.
            room: bytes that they may take together; None is no bound.
            beside_answers: one at a time with rests in between, since the server answers meanwhile.
        """
        self._refs = list(refs)
        self._room = room
        wanted = set(self._refs)
        self._on_disk = {ref: size for ref, size in self._on_disk.items() if ref in wanted}
        self._taken = sum(self._on_disk.values())
        self._failures = {ref: failure for ref, failure in self._failures.items() if ref in wanted}
        self._skipped.clear()
        self._told = 0
        if beside_answers:
            await self._prepare_gently(self._missing())
        else:
            await self._prepare_all(self._missing())

    async def retry(self) -> None:
        """Prepare what `complete` waits for, and nothing else."""
        await self._prepare_all(self._worth_trying())

    def _missing(self) -> list[ModelRef]:
        return [ref for ref in self._refs if ref not in self._on_disk and ref not in self._skipped]

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
            await self._try(ref)

    async def _prepare_gently(self, refs: Sequence[ModelRef]) -> None:
        rested = 0.0
        for left, ref in zip(range(len(refs) - 1, -1, -1), refs, strict=True):
            began = self._clock()
            await self._try(ref)
            if left:
                rest = min(_REST * (self._clock() - began), (_RESTS_SECONDS - rested) / left)
                rested += rest
                await self._sleep(rest)

    async def _try(self, ref: ModelRef) -> None:
        if self._room is not None and self._taken >= self._room:
            self._skipped.add(ref)
            return
        try:
            size = await self._prepare(ref)
        except OutOfResources:
            self._skipped.add(ref)
        except Exception as error:  # noqa: BLE001  # one that fails must not keep the others from being tried
            self._note(ref, error)
        else:
            self._on_disk[ref] = size
            self._taken += size
            self._failures.pop(ref, None)
        self._tell()

    def _tell(self) -> None:
        part = (len(self._on_disk) + len(self._skipped)) * _LOG_PARTS // len(self._refs)
        if part > self._told:
            self._told = part
            progress = self.progress()
            extra = {"models": progress.models, "on_disk": progress.on_disk, "skipped": progress.skipped}
            _LOG.info("preloading", extra=extra)

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
