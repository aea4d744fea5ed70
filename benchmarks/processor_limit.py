"""Processes that get a part of a core each from the kernel, as a small machine or a container's limit has it.

Several servers on few cores fill the machine before any of them is full. With a limit each is full while the machine is not.
The means is the kernel's bandwidth control (`Documentation/scheduler/sched-bwc.rst`) through control groups, version 1 or 2.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# How long who has had its part waits at most. The kernel's default of 100 ms would be in every latency.
_PERIOD_US = 10_000


@dataclass(frozen=True, slots=True)
class _Controller:
    """Where control groups for the processor are.

    Attributes:
        root: of the hierarchy.
        version: of the interface, 1 or 2.
    """

    root: Path
    version: int

    def write_limit(self, group: Path, cores: float) -> None:
        quota = round(cores * _PERIOD_US)
        if self.version == 2:
            (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))

    def group_of(self, pid: int, processes: Path) -> Path:
        """Where a process is now."""
        for line in (processes / str(pid) / "cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            if ("cpu" in names.split(",")) if self.version == 1 else not names:
                return self.root / path.lstrip("/")
        return self.root


@contextlib.contextmanager
def limited(pids: Sequence[int], cores: float, *, processes: Path = Path("/proc")) -> Iterator[bool]:
    """Hold each of several processes, its threads together, to a part of a core; afterwards they are where they were.

    Args:
        pids: of them.
        cores: that each may use, 0.3 say.
        processes: where the kernel tells of processes and of what is mounted.

    Yields:
        Whether it was done: it takes root, or a control group of one's own. Where it is False nothing was changed.
    """
    controller = _find_controller(processes)
    with contextlib.ExitStack() as stack:
        done = controller is not None
        if controller is not None:
            try:
                for pid in pids:
                    stack.enter_context(_limit(controller, pid, cores, processes))
            except OSError:
                stack.close()
                done = False
        yield done


@contextlib.contextmanager
def _limit(controller: _Controller, pid: int, cores: float, processes: Path) -> Iterator[None]:
    before = controller.group_of(pid, processes)
    group = controller.root / f"macrofleet-bench-{os.getpid()}-{pid}"
    group.mkdir()
    try:
        controller.write_limit(group, cores)
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        with contextlib.suppress(OSError):  # it may have ended
            (before / "cgroup.procs").write_text(str(pid))
        with contextlib.suppress(OSError):
            group.rmdir()


def _find_controller(processes: Path) -> _Controller | None:
    """None where the kernel has none, or does not say."""
    try:
        mounts = [line.split() for line in (processes / "self/mounts").read_text().splitlines()]
    except OSError:
        return None
    for _, place, kind, options, *_ in mounts:
        root = Path(place)
        if kind == "cgroup" and "cpu" in options.split(","):
            return _Controller(root, 1)
        with contextlib.suppress(OSError):
            if kind == "cgroup2" and "cpu" in (root / "cgroup.subtree_control").read_text().split():
                return _Controller(root, 2)
    return None
