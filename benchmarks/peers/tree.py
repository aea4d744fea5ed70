"""What the kernel says of all processes of a server together."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.peers.cgroup import MemoryGroup

T = TypeVar("T")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """A server's processes at one moment; memory in bytes.

    Attributes:
        pss: proportional share of all memory, that of mapped files included: pages that several processes have are
            counted once.
        resident: by the control group: anonymous memory and mapped files. None without a group.
        charged: `resident`, and page cache of what its processes read and do not have mapped.
    """

    processes: int
    threads: int
    pss: int
    resident: int | None
    charged: int | None


class ProcessTree:
    """A server: one process or some, and what came of them.

    Args:
        group: in which they are started, and therefore all that comes of them.
    """

    def __init__(self, group: MemoryGroup) -> None:
        self._started: list[int] = []
        self._group = group

    def add(self, pid: int) -> None:
        """A process that was started."""
        self._started.append(pid)

    def pids(self) -> list[int]:
        """All its processes."""
        if self._group.path is not None:
            return self._group.members()
        parents = _parents()
        return [one for pid in self._started for one in descendants(pid, parents)]

    def footprint(self) -> Footprint:
        """Memory and threads now."""
        pids = self.pids()
        stat = self._group.stat()
        resident = stat["total_rss"] + stat["total_mapped_file"] if stat else None
        charged = stat["total_rss"] + stat["total_cache"] if stat else None
        return Footprint(
            processes=len(pids),
            threads=sum(_each(pids, _threads)),
            pss=sum(_each(pids, _pss)),
            resident=resident,
            charged=charged,
        )

    def keep_to(self, cores: Collection[int]) -> None:
        """Have every thread run on these cores only; what they start later does, too."""
        for pid in self.pids():
            for thread in next(_each([pid], lambda one: os.listdir(_PROC / str(one) / "task")), []):
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread), cores)

    def kill(self) -> None:
        """End all of it."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def descendants(pid: int, parents: dict[int, int]) -> list[int]:
    """A process and all below it.

    Args:
        parents: of every process.
    """
    found = [pid] if pid in parents else []
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def _parents() -> dict[int, int]:
    pids = [int(name) for name in os.listdir(_PROC) if name.isdigit()]
    return dict(_each(pids, lambda pid: (pid, int(_stat(pid)[1]))))


def _stat(pid: int) -> list[str]:
    """`/proc/PID/stat` after the command's name, which may hold anything."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _threads(pid: int) -> int:
    return int(_stat(pid)[17])


def _pss(pid: int) -> int:
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _each(pids: Iterable[int], read: Callable[[int], T]) -> Iterator[T]:
    """What `read` gives for each process that is still there."""
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield read(pid)
