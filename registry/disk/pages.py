"""What we ask of the kernel's page cache: a file's pages all at once, and a file's pages back.

`madvise` is called through `ctypes` because Python's keeps the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

_DONTNEED = 4
_SAMPLES = 16
_CHUNK = 256 * 1024

_libc = ctypes.CDLL(None)
_madvise = getattr(_libc, "madvise", None)
if _madvise is not None:
    _madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    _madvise.restype = ctypes.c_int


def is_cached(descriptor: int, size: int) -> bool:
    """Whether the page cache holds a file, as far as a few samples tell; asked before anything of it is read."""
    sample = [bytearray(1)]
    try:
        return all(
            os.preadv(descriptor, sample, size * part // _SAMPLES, os.RWF_NOWAIT) == 1 for part in range(_SAMPLES)
        )
    except OSError:  # EAGAIN: it would have to be read; or the file system cannot tell
        return False


def read_in(descriptor: int) -> None:
    """Have a file in the page cache, read from start to end, so that no touch waits for the disk.

    Touches would read it in small random pieces, with the interpreter's lock held. Reading costs what a plain read
    costs, and half of what `MADV_POPULATE_READ` or `MADV_WILLNEED` took.

    Raises:
        OSError: it cannot be read. Touching it would end the process with SIGBUS.
    """
    scratch = [bytearray(_CHUNK)]
    offset = 0
    while read := os.preadv(descriptor, scratch, offset):
        offset += read


def forget(mapping: mmap.mmap, path: Path) -> None:
    """Let the kernel have a file's pages back: those of a private mapping that nobody wrote to, and the cached ones.

    The mapping stays good: a later touch reads from disk. Pages that another process has mapped stay. Never raises.
    """
    if _madvise is not None:
        # The page cache keeps what is in a page table, ours first of all.
        _madvise(np.frombuffer(mapping, np.uint8).ctypes.data, len(mapping), _DONTNEED)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return  # removed from disk, which gives the pages back as well
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        pass
    finally:
        os.close(descriptor)
