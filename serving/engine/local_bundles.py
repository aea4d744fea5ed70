"""Models from folders of this machine: programs that the image brings, bundles that somebody unpacked. No store."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from registry.catalogue import MAX_CATALOGUE_BYTES, parse_catalogue
from registry.errors import (
    BundleCorrupt,
    InvalidInput,
    ModelNotFound,
    NotReady,
    OutOfResources,
    ProgramCorrupt,
    StoreError,
)
from registry.files import read_whole
from registry.layout import LABELS, MANIFEST, WEIGHTS
from registry.model.mapped import MappedModel, map_bundle
from registry.model.program import check_trusted
from registry.model.runtime import BoundModel
from registry.model.sagemaker_export import CATALOGUE
from serving.engine.executor import Executor
from serving.engine.programs import RunningProgram, open_program
from serving.metrics import Metrics
from serving.suggestions.policy import Policy
from serving.threads import Workers

_LOG = logging.getLogger(__name__)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_URL = 4096
_NO_FOLDER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
_EXHAUSTED = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE})


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model in memory, with what may be suggested and the executor of its program.

    Attributes:
        tenant: whose it is, by its manifest.
        policy: what of its macros may be shown.
        memory: the mapping itself; its end gives the memory back.
    """

    bound: BoundModel
    tenant: str
    policy: Policy
    executor: Executor
    version: str
    nbytes: int
    memory: object
    _mapped: MappedModel

    def forget_pages(self) -> None:
        """Let the kernel have the weights' memory back. Never raises."""
        self._mapped.forget_pages()


class LocalBundles:
    """Makes models of folders. Owned by one event loop; the slow parts run in threads.

    Args:
        programs: a folder of programs, each under its digest; those that are not trusted are left alone.
        trusted: digests of the programs that may be executed.
        max_queue: bound on the queue of each program's executor.
        metrics: hears of batches and of loads' parts.

    Raises:
        InvalidInput: the folder holds no trusted program.
    """

    def __init__(self, programs: Path, *, trusted: frozenset[str], max_queue: int, metrics: Metrics) -> None:
        self._trusted = trusted
        self._max_queue = max_queue
        self._metrics = metrics
        self._folders = _programs_in(programs, trusted)
        self._programs: dict[str, RunningProgram] = {}
        self._workers = Workers("load", 4)

    @property
    def ready(self) -> bool:
        """Whether every program has been loaded and warmed."""
        return len(self._programs) == len(self._folders)

    async def open_programs(self) -> None:
        """Load the programs, which takes seconds.

        Raises:
            ProgramUntrusted, ProgramCorrupt: a folder is not what its name says.
        """
        for digest, folder in self._folders.items():
            began = time.monotonic()
            opened = await self._workers.run(open_program, folder, trusted=self._trusted)
            if (found := opened.program.digest) != digest:
                raise ProgramCorrupt(f"{folder} holds the program {found[:16]}…", remedy="Build the image anew.")
            self._programs[digest] = opened.run(max_queue=self._max_queue, observer=self._metrics)
            _LOG.info("program ready", extra={"program": digest, "milliseconds": _since(began)})

    async def weigh(self, url: str) -> int:
        """The bytes that the model in a folder will count.

        Raises:
            InvalidInput: the URL is not that of a local folder.
            ModelNotFound: there is no such folder.
            BundleCorrupt: it is no bundle.
            StoreError: the folder cannot be read.
        """
        folder = folder_of(url)
        return await self._workers.run(_weigh, folder)

    async def load(self, url: str, nbytes: int) -> LocalModel:
        """The model in a folder: every byte verified, mapped, and bound to its program; it has scored a ticket.

        Args:
            url: an absolute path, or a file URL.
            nbytes: what `weigh` said; another size now is damage.

        Raises:
            NotReady: the programs are still being loaded.
            ProgramUntrusted, ProgramCorrupt: it is for a program that may not be executed, or is not in the image.
            BundleCorrupt: it is damaged, or does not fit its program.
            OutOfResources: the process may not map another file.
            InvalidInput, StoreError: as for `weigh`.
        """
        if not self.ready:
            raise NotReady("the programs are still being loaded")
        return await self._workers.run(self._open, folder_of(url), nbytes)

    def close(self) -> None:
        """End the executors and the threads."""
        for running in self._programs.values():
            running.executor.close()
        self._workers.close()

    def _open(self, folder: Path, nbytes: int) -> LocalModel:
        """Runs in a thread."""
        try:
            return self._bind(folder, nbytes)
        except Exception as problem:
            # Whoever keeps the error, a log perhaps, would keep the mapping with its frames.
            traceback.clear_frames(problem.__traceback__)
            if _is_exhaustion(problem):
                raise OutOfResources(
                    f"{folder} cannot be mapped: {problem}", remedy="Raise the limits of the process."
                ) from problem
            raise

    def _bind(self, folder: Path, nbytes: int) -> LocalModel:
        began = time.monotonic()
        mapped = map_bundle(folder, tenant=None)
        if mapped.nbytes != nbytes:
            raise BundleCorrupt(f"{folder} was changed while it was loaded")
        running = self._program(mapped.manifest.program)
        policy = _policy(folder)
        bound = running.program.bind(mapped)
        bound.check(running.features)
        self._metrics.phase("map", time.monotonic() - began)
        manifest, executor = mapped.manifest, running.executor
        return LocalModel(bound, manifest.tenant, policy, executor, manifest.version, nbytes, _memory(mapped), mapped)

    def _program(self, digest: str) -> RunningProgram:
        check_trusted(digest, self._trusted)
        running = self._programs.get(digest)
        if running is None:
            raise ProgramCorrupt(
                f"the program {digest[:16]}… is trusted but not here",
                remedy="Build the image with it, in MACROFLEET_PROGRAMS_FOLDER.",
            )
        return running


def folder_of(url: str) -> Path:
    """The folder that a URL names: an absolute path as it stands, or `file:///…`.

    Raises:
        InvalidInput: it is neither.
    """
    path = url
    if url.startswith("file:"):
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        path = unquote(parts.path) if parts.netloc in ("", "localhost") and not parts.query + parts.fragment else ""
    if len(url) > _MAX_URL or "\0" in path or not path.startswith("/"):
        raise InvalidInput("the url is not that of a local folder", remedy="Send an absolute path, or file:///….")
    return Path(path)


def _programs_in(folder: Path, trusted: frozenset[str]) -> dict[str, Path]:
    try:
        found = {path.name: path for path in sorted(folder.iterdir()) if _DIGEST.fullmatch(path.name)}
    except OSError as problem:
        raise InvalidInput(
            f"the programs in {folder} cannot be listed ({problem.strerror})",
            remedy="Set MACROFLEET_PROGRAMS_FOLDER to the folder in the image that holds them.",
        ) from None
    usable = {digest: path for digest, path in found.items() if digest in trusted}
    if not usable:
        raise InvalidInput(
            f"{folder} holds no program that this process may execute",
            remedy="Put the released program there, under its digest, or add yours to MACROFLEET_TRUSTED_PROGRAMS.",
        )
    if len(usable) < len(found):
        _LOG.warning("programs that are not trusted are left alone", extra={"count": len(found) - len(usable)})
    return usable


def _weigh(folder: Path) -> int:
    """Runs in a thread. Only plain files are opened later: reading another kind may never end."""
    try:
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            raise ModelNotFound("there is no such folder")
        sizes = {}
        for name in (MANIFEST, LABELS, WEIGHTS, CATALOGUE):
            try:
                status = os.stat(folder / name)
            except FileNotFoundError:
                # Without a catalogue nobody knows which of its macros are switched off, or one agent's own.
                raise BundleCorrupt(f"{folder} has no {name}") from None
            if not stat.S_ISREG(status.st_mode):
                raise BundleCorrupt(f"{folder / name} is no file")
            sizes[name] = status.st_size
    except OSError as problem:
        if problem.errno in _NO_FOLDER:
            raise ModelNotFound("there is no such folder") from None
        raise StoreError(f"{folder} cannot be read ({problem.strerror})") from problem
    return sizes[WEIGHTS]


def _policy(folder: Path) -> Policy:
    """What may be shown: the catalogue of the export."""
    path = folder / CATALOGUE
    try:
        catalogue = parse_catalogue(read_whole(path, MAX_CATALOGUE_BYTES, error=BundleCorrupt), what=str(path))
    except InvalidInput as problem:
        raise BundleCorrupt(str(problem)) from None
    return Policy(catalogue.macros)


def _memory(mapped: MappedModel) -> object:
    """What all tensors are views of: the mapping of their file."""
    root: object = next(iter(mapped.tensors.values()))
    while isinstance(root, np.ndarray):
        root = root.base
    return root.obj if isinstance(root, memoryview) else root


def _is_exhaustion(problem: BaseException | None) -> bool:
    """Whether the system had nothing left to give: memory, mappings or descriptors."""
    while problem is not None:
        if isinstance(problem, MemoryError) or (isinstance(problem, OSError) and problem.errno in _EXHAUSTED):
            return True
        problem = problem.__cause__ or problem.__context__
    return False


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
