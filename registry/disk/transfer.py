"""An object on its way to a new local file: hashed and written beside the reading, not after it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Generic, TypeVar

from registry.documents import sha256
from registry.errors import BundleCorrupt, MacrofleetError
from registry.files import FileDigest, FileState, file_state

# Written in pieces so large, a file lies in large folios of the page cache, and mapping it takes a fiftieth of the time.
_CHUNK = 1024 * 1024

Result = TypeVar("Result")


class Helpers:
    """A few threads for the parts of a transfer that can run beside it.

    Nobody ever waits for a thread to become free: a task that none has begun is taken back and done by whoever needs
    it. So tasks that hang on a slow store cannot hold up others.
    """

    def __init__(self, threads: int = 4) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="transfer")
        self._alone = processors() == 1

    def start(self, work: Callable[[], Result]) -> Task[Result]:
        """Begin `work` as soon as a thread is free."""
        try:
            return Task(work, self._pool.submit(work))
        except RuntimeError:  # closed
            return Task(work, None)

    def compute(self, work: Callable[[], Result]) -> Task[Result]:
        """Like `start`, for what needs a processor and waits for nothing: with only one, it is left to who needs it."""
        return Task(work, None) if self._alone else self.start(work)

    def close(self) -> None:
        """End the threads after what they are at; tasks are then done by whoever needs them."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Task(Generic[Result]):
    """Something a helper may have begun."""

    def __init__(self, work: Callable[[], Result], future: Future[Result] | None) -> None:
        self._work = work
        self._future = future

    def finish(self) -> Result:
        """Its result, done here unless a helper has begun it. Raises what it raises."""
        if self._future is None or self._future.cancel() or self._future.cancelled():
            return self._work()
        return self._future.result()

    def drop(self, dispose: Callable[[Result], object]) -> None:
        """Do without it; a result that comes all the same goes to `dispose`."""

        def done(future: Future[Result]) -> None:
            if not future.cancelled() and future.exception() is None:
                dispose(future.result())

        if self._future is not None and not self._future.cancel():
            self._future.add_done_callback(done)


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def receive(
    stream: IO[bytes], path: Path, expected: FileDigest, *, what: str, error: type[MacrofleetError], helpers: Helpers
) -> FileState:
    """Copy a stream to a new file, checking length and digest while the bytes pass; nothing is synced.

    Args:
        what: where the bytes come from, for the message.
        error: what to raise when they are not those expected.

    Returns:
        The state of the file whose content was found to be right.

    Raises:
        error: the stream is longer or shorter than expected, or has another digest. The file is left for the caller's
            temporary folder to take away.
    """
    hasher = hashlib.sha256()
    received = 0
    with path.open("xb", buffering=0) as file:
        written: Task[None] | None = None
        try:
            while chunk := stream.read(_CHUNK):
                received += len(chunk)
                if received > expected.size:
                    break
                if written is not None:
                    written.finish()
                written = helpers.compute(partial(_pass_on, chunk, hasher.update, file.fileno()))
        finally:
            # The file must not be closed under a helper.
            if written is not None:
                written.finish()
        state = file_state(os.fstat(file.fileno()))
    if received != expected.size or hasher.hexdigest() != expected.sha256:
        raise error(f"{what} is not what its manifest says: {received} bytes of {expected.size}, or other content")
    return state


def _pass_on(chunk: bytes, update: Callable[[bytes], object], descriptor: int) -> None:
    update(chunk)
    left = memoryview(chunk)
    while left:
        left = left[os.write(descriptor, left) :]


def write_checked(path: Path, data: bytes, expected: FileDigest, what: str) -> FileState:
    """Write what was read whole to a new file, as `receive` does. Raises BundleCorrupt."""
    if len(data) != expected.size or sha256(data) != expected.sha256:
        raise BundleCorrupt(f"{what} is not what its manifest says")
    with path.open("xb", buffering=0) as file:
        file.write(data)
        return file_state(os.fstat(file.fileno()))
