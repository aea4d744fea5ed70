"""A memory bound over whole trees of processes, with the page cache in it: a control group of the kernel's version 1.

Page cache belongs to the group whose process reads a page first, so files whose pages were dropped before a server starts
are counted as that server's, mapped or read alike.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup/memory")
_PATIENCE_SECONDS = 10.0


class MemoryGroup:
    """A control group of one's own, below that of this process.

    Attributes:
        path: its folder; None where the machine has no such groups or lets nobody make one, and nothing is bounded.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def enter(self) -> list[str]:
        """What a command line must begin with to run inside."""
        if self.path is None:
            return []
        return ["sh", "-c", f'echo $$ > "{self.path}/cgroup.procs" && exec "$@"', "sh"]

    def members(self) -> list[int]:
        """The processes in it."""
        if self.path is None:
            return []
        return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]

    def stat(self) -> dict[str, int]:
        """`memory.stat` of it: `total_rss`, `total_cache`, `total_mapped_file` and so on, in bytes."""
        if self.path is None:
            return {}
        return parse_stat((self.path / "memory.stat").read_text())

    def hits(self) -> int:
        """How often its bound was hit; mostly the kernel then takes page cache back, and nothing else happens."""
        return 0 if self.path is None else int((self.path / "memory.failcnt").read_text())

    def killed(self) -> int:
        """How many of its processes the kernel ended, since there was nothing to take back."""
        return 0 if self.path is None else parse_stat((self.path / "memory.oom_control").read_text()).get("oom_kill", 0)

    def kill(self) -> None:
        """End everything in it."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (members := self.members()) and time.monotonic() < deadline:
            for member in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
            time.sleep(0.05)  # the kernel takes memory back before it lets go of a process


def parse_stat(text: str) -> dict[str, int]:
    """Numbers by name, one a line."""
    pairs = (line.split() for line in text.splitlines())
    return {name: int(value) for name, value in pairs}


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A group with a bound; what is left in it at the end is killed."""
    path = _make(limit_bytes)
    group = MemoryGroup(path)
    try:
        yield group
    finally:
        if path is not None:
            group.kill()
            _remove(path)


def _make(limit_bytes: int) -> Path | None:
    own = _own_group()
    if own is None:
        return None
    path = own / f"macrofleet-{os.getpid()}-{time.monotonic_ns()}"
    try:
        path.mkdir()
        (path / "memory.limit_in_bytes").write_text(str(limit_bytes))
    except OSError:
        with contextlib.suppress(OSError):
            path.rmdir()
        return None
    return path


def _own_group(listing: Path = Path("/proc/self/cgroup"), root: Path = _ROOT) -> Path | None:
    """The folder of this process's group, where the memory controller is one of version 1."""
    try:
        lines = listing.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if "memory" in controllers.split(","):
            folder = root / place.lstrip("/")
            return folder if folder.is_dir() else None
    return None


def _remove(path: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            path.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as problem:
            if problem.errno != errno.EBUSY:
                raise
            if time.monotonic() > deadline:
                return  # an empty folder more; the servers that come next are worth having
            time.sleep(0.05)  # the last member is on its way out
