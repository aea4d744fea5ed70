"""How much replicas have to do, for `serving.replicas.scaling`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

# So many requests under way keep a replica busy, whatever the processor says: where others take it, a replica that falls
# behind uses little of it.
BUSY_REQUESTS = 16


class ReplicaLoad:
    """Load in replicas: a server is one event loop, so one that uses a whole core is busy all the time."""

    def __init__(self) -> None:
        self._used: dict[int, float] = {}
        self._at: float | None = None

    def sample(self, pids: Iterable[int], *, requests: int) -> float | None:
        """The load since the last sample; None at the first, and where a process is new.

        Args:
            pids: of the replicas.
            requests: under way at all of them together, now.
        """
        now = time.monotonic()
        used = {pid: seconds for pid in pids if (seconds := processor_seconds(pid)) is not None}
        before, self._used = self._used, used
        since, self._at = self._at, now
        if since is None or now <= since or set(before) != set(used):
            return None
        share = sum(min((used[pid] - before[pid]) / (now - since), 1.0) for pid in used)
        return max(share, min(requests / BUSY_REQUESTS, float(len(used))))


def processor_seconds(pid: int) -> float | None:
    """What a process has used of the processor, its threads together; None where it cannot be known (it has ended)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
