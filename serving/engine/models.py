"""From the store to something that scores: programs loaded and warmed, bundles installed, mapped and bound."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from registry.disk.tier import DiskTier
from registry.errors import BundleCorrupt, InvalidInput, ModelNotFound, OutOfResources, ProgramCorrupt
from registry.model.bundle import Manifest
from registry.model.mapped import MappedModel
from registry.model.runtime import BoundModel
from serving.admission import Pacer
from serving.engine.executor import Executor
from serving.engine.programs import RunningProgram, open_program
from serving.engine.single_flight import SingleFlight
from serving.fleet_watch import ModelRef
from serving.metrics import Metrics
from serving.threads import Workers, stand_back

_LOG = logging.getLogger(__name__)
# How far what nobody waits for stands back.
_NICE_IN_BACKGROUND = 17


class _Threads:
    """Those of one urgency: what is on disk is opened beside what is fetched, and waits for no store.

    Args:
        name: of the threads.
        opening: how many open models.
        nice: how far all stand back.
    """

    def __init__(self, name: str, *, opening: int, nice: int) -> None:
        self.fetch = Workers(f"{name}-fetch", 4, nice=nice)
        self.open = Workers(f"{name}-open", opening, nice=nice)

    def close(self) -> None:
        """Let go of the threads as they finish."""
        self.fetch.close()
        self.open.close()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model in memory, with the executor of its program.

    Attributes:
        version: the model's, kept because a manifest hashes itself to tell it.
    """

    bound: BoundModel
    executor: Executor
    version: str
    nbytes: int


class Models:
    """Makes models of what the fleet names. Owned by one event loop; the slow parts run in threads, beside each other.

    Args:
        disk: where bundles and programs are installed.
        trusted: digests of the programs that may be executed.
        max_queue: bound on the queue of each program's executor.
        pacer: spaces out the downloads that requests wait for.
        metrics: hears of loads and batches.
    """

    def __init__(
        self, disk: DiskTier, *, trusted: frozenset[str], max_queue: int, pacer: Pacer, metrics: Metrics
    ) -> None:
        self._disk = disk
        self._trusted = trusted
        self._max_queue = max_queue
        self._pacer = pacer
        self._metrics = metrics
        # Apart, so that no preload or swap holds up a model that a request waits for; and behind what answers requests:
        # hashing and writing a model takes as long as fifty answers.
        self._for_requests = _Threads("load", opening=4, nice=12)
        self._in_background = _Threads("background", opening=2, nice=_NICE_IN_BACKGROUND)
        # Stands back from the first program on: see `_start`.
        self._for_programs = Workers("program", 1)
        self._programs_stand_back = False
        self._programs: dict[str, RunningProgram] = {}
        self._opening: SingleFlight[str, RunningProgram] = SingleFlight()
        # A new version is wanted on disk and in memory at once, and fetched once; a request waits for neither of them.
        self._installing: SingleFlight[tuple[ModelRef, bool], Manifest] = SingleFlight()

    @property
    def programs(self) -> Mapping[str, RunningProgram]:
        """Those that are ready to work, by digest."""
        return self._programs

    async def prepare(self, ref: ModelRef) -> int:
        """Have a version on local disk, verified, and its program ready, so that `load` is quick.

        Returns:
            Bytes of its files.

        Raises:
            OutOfResources: there is no room for it on the disk tier without evicting another.
            MacrofleetError: see `load`.
        """
        manifest = await self._install(ref, self._in_background, evict=False)
        await self.program(manifest.program)
        return sum(file.size for file in manifest.files.values())

    async def on_disk(self, refs: Sequence[ModelRef]) -> set[ModelRef]:
        """Those of some versions that `load` need not fetch."""

        def find() -> set[ModelRef]:
            found = set()
            for ref in refs:
                with suppress(BundleCorrupt):  # no name that a version could have
                    if self._disk.has_model(ref.tenant, ref.version):
                        found.add(ref)
            return found

        return await self._in_background.open.run(find)

    async def load(self, ref: ModelRef, *, demand: bool) -> ServedModel:
        """A version in memory that has scored a ticket; fetched first where the disk does not have it.

        Args:
            demand: a request waits for it; only those are bounded in number a second.

        Raises:
            BundleCorrupt: the bundle is missing, is not what the fleet names, or does not fit its program.
            ProgramUntrusted: this process may not execute its program.
            ProgramCorrupt: the program is missing, or is not what its digest says.
            StoreError: the store or the disk failed.
            Overloaded: too many models are being fetched.
        """
        threads = self._for_requests if demand else self._in_background
        source: Literal["disk", "store"] = "disk"
        found = await threads.open.run(self._open_installed, ref)
        if found is None:
            source = "store"
            if demand:
                await asyncio.sleep(self._pacer.reserve())
            began = time.monotonic()
            await self._install(ref, threads, evict=True)
            self._metrics.phase("download", time.monotonic() - began)
            found = await threads.open.run(self._open, ref)
        if isinstance(found, MappedModel):
            running = await self.program(found.manifest.program)
            found = await threads.open.run(self._bind, running, found, ref)
        if demand:
            self._metrics.cache_hit(source)
            self._metrics.cold_load(source)
        _LOG.info("model loaded", extra={"tenant": ref.tenant, "version": ref.version, "from": source})
        return found

    async def load_beside(self, ref: ModelRef, *, demand: bool) -> ServedModel:  # noqa: ARG002  # a shadow: no request waits
        """As `load`, but installed first without evicting anything from the disk tier.

        Raises:
            OutOfResources: see `prepare`.
            MacrofleetError: see `load`.
        """
        await self.prepare(ref)
        return await self.load(ref, demand=False)

    async def program(self, digest: str) -> RunningProgram:
        """A program that is ready to work; loaded, which takes seconds, when it is first asked for.

        Raises:
            ProgramUntrusted, ProgramCorrupt, StoreError: see `load`.
        """
        running = self._programs.get(digest)
        if running is None:
            running = await self._opening.run(digest, lambda: self._start(digest))
        return running

    def close(self) -> None:
        """End the executors and the threads."""
        for running in self._programs.values():
            running.executor.close()
        self._for_requests.close()
        self._in_background.close()
        self._for_programs.close()

    async def _install(self, ref: ModelRef, threads: _Threads, *, evict: bool) -> Manifest:
        async def install() -> Manifest:
            return await threads.fetch.run(self._disk.install_model, ref.tenant, ref.version, ref.manifest, evict=evict)

        try:
            try:
                return await self._installing.run((ref, threads is self._for_requests), install)
            except OutOfResources:
                if not evict:
                    raise
                return await install()  # what it waited for may have been one that evicts nothing
        except ModelNotFound as error:
            # To a caller this is a model that is damaged, not a tenant that has none yet.
            raise BundleCorrupt(f"the fleet names a version that is not there: {error}") from error

    async def _start(self, digest: str) -> RunningProgram:
        began = time.monotonic()
        try:
            folder = await self._for_programs.run(self._disk.install_program, digest)
        except InvalidInput as error:
            raise ProgramCorrupt(str(error)) from error
        opened = await self._for_programs.run(open_program, folder, trusted=self._trusted)
        if not self._programs_stand_back:
            self._programs_stand_back = True
            # With the first program TensorFlow started threads, which stand as far back as the one that starts them: not
            # at all. Another takes hundreds of milliseconds, most of them in Python, from a server that answers.
            await self._for_programs.run(stand_back, _NICE_IN_BACKGROUND)
        running = self._programs[digest] = opened.run(max_queue=self._max_queue, observer=self._metrics)
        _LOG.info(
            "program ready",
            extra={"program": digest, "family": running.program.spec.name, "milliseconds": _since(began)},
        )
        return running

    def _open_installed(self, ref: ModelRef) -> ServedModel | MappedModel | None:
        """Runs in a thread: what `_open` gives of a model that is on disk. One way to a thread and back for both."""
        return self._open(ref) if self._disk.has_model(ref.tenant, ref.version) else None

    def _open(self, ref: ModelRef) -> ServedModel | MappedModel:
        """Runs in a thread: the model, or only its mapping where its program does not run yet."""
        try:
            mapped = self._disk.open_model(ref.tenant, ref.version, ref.manifest, on_phase=self._metrics.phase)
        except ModelNotFound as error:
            raise BundleCorrupt(f"the fleet names a version that is not there: {error}") from error
        running = self._programs.get(mapped.manifest.program)
        return mapped if running is None else self._bind(running, mapped, ref)

    def _bind(self, running: RunningProgram, mapped: MappedModel, ref: ModelRef) -> ServedModel:
        """Runs in a thread: bind, and score a ticket, so that what cannot is found out here."""
        bound = running.program.bind(mapped)
        bound.check(running.features)
        return ServedModel(bound, running.executor, ref.version, bound.nbytes)


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
