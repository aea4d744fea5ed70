"""What the kernel says of this process, held to what Python knows."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.processes import cached_pages, drop_pages, mapped_bytes, processor_seconds, read_whole, usage

MIB = 1 << 20
TICK = 1 / os.sysconf("SC_CLK_TCK")


def test_memory_that_is_touched_is_anonymous() -> None:
    before = usage(os.getpid())
    touched = np.ones(128 * MIB, np.uint8)
    after = usage(os.getpid())
    assert 127 * MIB < after.anonymous - before.anonymous < 140 * MIB
    assert 127 * MIB < after.rss - before.rss < 140 * MIB
    assert abs(after.file - before.file) < 8 * MIB
    assert after.rss >= after.anonymous + after.file
    assert touched[-1]


def test_pages_of_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(32 * MIB))
    before = usage(os.getpid())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        assert not np.frombuffer(mapping, np.uint8).any()
        after = usage(os.getpid())
        assert abs(after.anonymous - before.anonymous) < 8 * MIB
        assert after.rss - before.rss > 24 * MIB


def test_threads_and_descriptors_are_counted() -> None:
    program = """
import os, threading
for _ in range(3):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
pipe = os.pipe()
print("ready", flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        found = usage(process.pid)
        process.kill()
    assert found.threads == 1 + 3
    assert found.descriptors == 3 + 2


def test_mappings_below_a_folder_are_counted_touched_or_not(tmp_path: Path) -> None:
    """A folder beside it whose name begins alike is another; a way to it through a link is the same."""
    for name, size in (("disk/a", 3), ("disk/sub/b", 2), ("disk-too/c", 7)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size * MIB))
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert mapped_bytes(os.getpid(), tmp_path) == 0
    maps = []
    for name in ("disk/a", "disk/sub/b", "disk-too/c"):
        with (tmp_path / name).open("rb") as file:
            maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        assert mapped_bytes(os.getpid(), tmp_path / "disk") == 5 * MIB
        assert mapped_bytes(os.getpid(), tmp_path / "link") == 5 * MIB
        assert mapped_bytes(os.getpid(), tmp_path) == 12 * MIB
    finally:
        for mapping in maps:
            mapping.close()


def test_processor_time_is_the_process_s_own() -> None:
    until = time.process_time() + 0.1
    while (before := time.process_time()) < until:
        pass
    found = processor_seconds(os.getpid())
    after = time.process_time()
    assert before - 3 * TICK <= found <= after + 3 * TICK


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    for size in (0, 1, MIB, 2 * MIB + 5):
        path = tmp_path / str(size)
        path.write_bytes(bytes(size))
        assert read_whole(path) == size


def test_asking_what_is_cached_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4096)
    pages = path.stat().st_size // mmap.PAGESIZE
    with path.open("rb") as file:
        assert cached_pages(file.fileno()) == pages
        if not drop_pages(path):
            pytest.skip("this file system keeps what it has")
        assert cached_pages(file.fileno()) == 0
        assert cached_pages(file.fileno()) == 0
        read_whole(path)
        assert cached_pages(file.fileno()) == pages
    (tmp_path / "empty").touch()
    assert drop_pages(tmp_path / "empty")


def test_pages_are_dropped_unless_somebody_has_them_mapped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4096)
    dropped = drop_pages(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        assert np.frombuffer(mapping, np.uint8).any()
        dropped_mapped = drop_pages(path)
    assert path.read_bytes() == bytes(range(256)) * 4096
    if not dropped and not dropped_mapped:
        pytest.skip("this file system keeps what it has")
    assert (dropped, dropped_mapped) == (True, False)
