"""Work for a pool's processes that takes no time: a job is the name of what shall happen."""

from __future__ import annotations

import os
import signal
import sys
import threading

from flows.pool import Limits, Pool, Told, Work
from registry.errors import StoreUnavailable

_KEPT: list[bytes] = []
MIB = 1024**2
ROOMY = Limits(seconds=120, memory_bytes=400 * MIB)


def make() -> Work[str, int]:
    return work


def work(job: str, told: Told) -> int:
    """The process's id, if it comes to that."""
    if job == "tell":
        told(0.5)
        told(1.0)
    elif job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif job == "exit":
        os._exit(3)
    elif job == "hang":
        told(0.0)
        threading.Event().wait()
    elif job == "spin":
        while True:
            pass
    elif job == "eat":
        while True:
            _KEPT.append(b"x" * MIB)
    elif job == "grow":
        _KEPT.append(b"x" * 300 * MIB)
    elif job == "raise":
        raise ValueError("my card number is 4111")
    return os.getpid()


def refuse() -> Work[str, int]:
    raise StoreUnavailable("the store does not answer")


def trip() -> Work[str, int]:
    raise ValueError("my card number is 4111")


def die_at_once() -> Work[str, int]:
    os._exit(4)


def main() -> None:
    """Have two jobs hang, and say in which processes; the test ends this one."""
    with Pool(make, processes=2, limits=ROOMY) as pool:
        told = threading.Semaphore(0)
        for _ in range(2):
            threading.Thread(target=pool.run, args=("hang", lambda _: told.release()), daemon=True).start()
        for _ in range(2):
            told.acquire()
        pids = [process._process.pid for process in pool._all]
        sys.stdout.write(" ".join(map(str, pids)) + "\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
