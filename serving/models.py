"""From the store to something that scores: programs loaded and warmed, bundles installed, mapped and bound."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from registry.bundle import Manifest
from registry.disk_tier import DiskTier
from registry.errors import BundleCorrupt, InvalidInput, ModelNotFound, ProgramCorrupt
from registry.runtime import BoundModel, Program
from serving.executor import Executor
from serving.fleet_watch import ModelRef
from serving.single_flight import SingleFlight

_LOG = logging.getLogger(__name__)
_WARM_TEXT = "Where is my order? It should have arrived on Monday. "


@dataclass(frozen=True, slots=True)
class RunningProgram:
    """A program, loaded and warmed, with its executor."""

    program: Program
    executor: Executor


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model in memory, with the executor of its program.

    Attributes:
        version: the model's, kept because a manifest hashes itself to tell it.
    """

    bound: BoundModel
    executor: Executor
    version: str

    @property
    def nbytes(self) -> int:
        """What it counts against the memory budget."""
        return self.bound.nbytes


class Models:
    """Makes models of what the fleet names. Owned by one event loop; the slow parts run in threads, beside each other.

    Args:
        disk: where bundles and programs are installed.
        trusted: digests of the programs that may be executed.
        max_queue: bound on the queue of each program's executor.
    """

    def __init__(self, disk: DiskTier, *, trusted: frozenset[str], max_queue: int) -> None:
        self._disk = disk
        self._trusted = trusted
        self._max_queue = max_queue
        self._programs: dict[str, RunningProgram] = {}
        self._opening: SingleFlight[str, RunningProgram] = SingleFlight()
        # One at a time for a version: an installation that finds nothing whole clears the place first.
        self._installing: SingleFlight[ModelRef, Manifest] = SingleFlight()

    async def prepare(self, ref: ModelRef) -> None:
        """Have a version on local disk, verified, and its program ready, so that `load` is quick.

        Raises:
            MacrofleetError: see `load`.
        """
        manifest = await self._install(ref)
        await self.program(manifest.program)

    async def load(self, ref: ModelRef) -> ServedModel:
        """A version in memory; fetched first where the disk does not have it.

        Raises:
            BundleCorrupt: the bundle is missing, is not what the fleet names, or does not fit its program.
            ProgramUntrusted: this process may not execute its program.
            ProgramCorrupt: the program is missing, or is not what its digest says.
            StoreError: the store or the disk failed.
        """
        manifest = await self._install(ref)
        running = await self.program(manifest.program)
        started = time.monotonic()
        bound = await asyncio.to_thread(self._bind, running.program, ref)
        _LOG.info(
            "model loaded",
            extra={
                "tenant": ref.tenant,
                "version": ref.version,
                "bytes": bound.nbytes,
                "milliseconds": _since(started),
            },
        )
        return ServedModel(bound, running.executor, bound.manifest.version)

    async def program(self, digest: str) -> RunningProgram:
        """A program that is ready to work; loaded, which takes seconds, when it is first asked for.

        Raises:
            ProgramUntrusted, ProgramCorrupt, StoreError: see `load`.
        """
        running = self._programs.get(digest)
        if running is None:
            running = await self._opening.run(digest, lambda: self._open(digest))
        return running

    def close(self) -> None:
        """End the executors."""
        for running in self._programs.values():
            running.executor.close()

    async def _install(self, ref: ModelRef) -> Manifest:
        async def install() -> Manifest:
            return await asyncio.to_thread(self._disk.install_model, ref.tenant, ref.version, ref.manifest)

        try:
            return await self._installing.run(ref, install)
        except ModelNotFound as error:
            # To a caller this is a model that is damaged, not a tenant that has none yet.
            raise BundleCorrupt(f"the fleet names a version that is not there: {error}") from error

    async def _open(self, digest: str) -> RunningProgram:
        started = time.monotonic()
        try:
            folder = await asyncio.to_thread(self._disk.install_program, digest)
        except InvalidInput as error:
            raise ProgramCorrupt(str(error)) from error
        program = await asyncio.to_thread(self._load_program, folder)
        running = self._programs[digest] = RunningProgram(program, Executor(program, max_queue=self._max_queue))
        _LOG.info(
            "program ready", extra={"program": digest, "family": program.spec.name, "milliseconds": _since(started)}
        )
        return running

    def _load_program(self, folder: Path) -> Program:
        """Runs in a thread: load, then trace and allocate what the first request would otherwise wait for."""
        program = Program(folder, trusted=self._trusted)
        for tickets in (1, 2, 64):
            program.featurise([_WARM_TEXT] * tickets)
        return program

    def _bind(self, program: Program, ref: ModelRef) -> BoundModel:
        return program.bind(self._disk.map_model(ref.tenant, ref.version, ref.manifest))


def _since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
