"""What is written to the kernel's control groups; that it holds processes is `make test-replicas`, since it takes root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.hot_tenant import replica_cores
from benchmarks.processor_limit import limited


def kernel(folder: Path, mount: str, line: str, *pids: int) -> tuple[Path, Path]:
    """A `/proc` that tells of one mount and of these processes' groups, and the root of the control groups."""
    processes, root = folder / "proc", folder / "cgroup"
    (root / "own").mkdir(parents=True)
    (root / "cgroup.subtree_control").write_text("cpu memory")
    for name in ("self", *map(str, pids)):
        (processes / name).mkdir(parents=True)
    (processes / "self/mounts").write_text(f"proc /proc proc rw 0 0\n{mount.format(root=root)} 0 0\n")
    for pid in pids:
        (processes / str(pid) / "cgroup").write_text(f"3:cpuset:/elsewhere\n{line}\n")
    return processes, root


def groups(root: Path) -> list[Path]:
    return sorted(root.glob(f"macrofleet-bench-{os.getpid()}-*"))


@pytest.mark.parametrize(
    ("mount", "line", "written"),
    [
        (
            "cgroup {root} cgroup rw,relatime,cpu,cpuacct",
            "1:cpu,cpuacct:/own",
            {"cpu.cfs_period_us": "10000", "cpu.cfs_quota_us": "3000"},
        ),
        ("cgroup2 {root} cgroup2 rw,relatime", "0::/own", {"cpu.max": "3000 10000"}),
    ],
)
def test_each_has_its_part_and_goes_back(tmp_path: Path, mount: str, line: str, written: dict[str, str]) -> None:
    processes, root = kernel(tmp_path, mount, line, 41, 42)
    with limited([41, 42], 0.3, processes=processes) as held:
        assert held
        found = groups(root)
        assert [{name: (group / name).read_text() for name in written} for group in found] == [written] * 2
        assert [(group / "cgroup.procs").read_text() for group in found] == ["41", "42"]
        assert not (root / "own/cgroup.procs").exists()
    assert (root / "own/cgroup.procs").read_text() == "41"  # the last to go back


@pytest.mark.parametrize("mount", ["cgroup {root} cgroup rw,cpuset", "tmpfs {root} tmpfs rw,cpu"])
def test_where_there_is_no_such_group(tmp_path: Path, mount: str) -> None:
    processes, root = kernel(tmp_path, mount, "0::/own", 41)
    with limited([41], 0.3, processes=processes) as held:
        assert not held
    assert groups(root) == []


def test_who_cannot_be_held_leaves_nobody_held(tmp_path: Path) -> None:
    processes, root = kernel(tmp_path, "cgroup {root} cgroup rw,cpu", "1:cpu:/own", 41)
    with limited([41, 42], 0.3, processes=processes) as held:  # 42 has ended
        assert not held
        assert (root / "own/cgroup.procs").read_text() == "41"


def test_what_happens_meanwhile_is_the_callers(tmp_path: Path) -> None:
    processes, root = kernel(tmp_path, "cgroup {root} cgroup rw,cpu", "1:cpu:/own", 41)
    with pytest.raises(OSError, match="the load"), limited([41], 0.3, processes=processes):
        raise OSError("the load")
    assert (root / "own/cgroup.procs").read_text() == "41"


@pytest.mark.parametrize(("cores", "part"), [(2, 0.3), (4, 0.6), (5, None)])
def test_what_a_replica_has(monkeypatch: pytest.MonkeyPatch, cores: int, part: float | None) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert replica_cores(3) == part
