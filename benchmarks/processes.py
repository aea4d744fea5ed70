"""What the kernel says of a process, and of a file's pages."""

from __future__ import annotations

import ctypes
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_TRIES = 3
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Memory in bytes; `anonymous` is without files, `file` is pages of files, shared with the page cache."""

    rss: int
    anonymous: int
    file: int
    threads: int
    descriptors: int


def usage(pid: int) -> Usage:
    """A process at this moment."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.split()
    size = {name: int(fields[name][0]) * 1024 for name in ("VmRSS", "RssAnon", "RssFile")}
    return Usage(
        rss=size["VmRSS"],
        anonymous=size["RssAnon"],
        file=size["RssFile"],
        threads=int(fields["Threads"][0]),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
    )


def mapped_bytes(pid: int, folder: Path) -> int:
    """How much of the files below `folder` a process has mapped, touched or not."""
    below = f"{folder.resolve()}/"
    total = 0
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        place = line.find(below)
        if place > 0:
            start, _, end = line.partition(" ")[0].partition("-")
            total += int(end, 16) - int(start, 16)
    return total


def processor_seconds(pid: int) -> float:
    """What a process has used of the processor, its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drop_pages(path: Path) -> bool:
    """Have the kernel forget what it keeps of a file; whether it did (it does not while a process has it mapped)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # what is not written yet cannot be dropped
        for _ in range(_TRIES):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            if not cached_pages(descriptor):
                return True
        return False
    finally:
        os.close(descriptor)


def cached_pages(descriptor: int) -> int:
    """How many pages of a file the kernel keeps in memory (mincore(2)).

    Reading with RWF_NOWAIT is no way to ask: it has the kernel read ahead what it does not find.
    """
    size = os.fstat(descriptor).st_size
    if not size:
        return 0
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapped:
        found = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
        start = np.frombuffer(mapped, np.uint8)
        failed = _libc.mincore(
            ctypes.c_void_p(start.ctypes.data), ctypes.c_size_t(size), ctypes.c_void_p(found.ctypes.data)
        )
        del start  # or the mapping cannot be closed
    if failed:
        raise OSError(ctypes.get_errno(), "mincore failed")
    return int((found & 1).sum())


def read_whole(path: Path) -> int:
    """Read a file from its start to its end, and the bytes that were."""
    buffer = bytearray(1 << 20)
    total = 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while count := os.readv(descriptor, [buffer]):
            total += count
    finally:
        os.close(descriptor)
    return total
