"""Whose work comes second on this machine: a replica that starts, beside those that answer.

`nice` compares threads of one session alone where the kernel groups them by session (sched(7), "The autogroup feature"), and
each replica has a session of its own. The groups have a nice value themselves, which unlike a thread's may be taken back
without a privilege.
"""

from __future__ import annotations

import time
from pathlib import Path

# A seventieth of the weight of those that answer, and all that they leave.
STARTING = 19
ANSWERING = 0
_TRIES = 5
# The kernel takes such a change ten times a second.
_AGAIN_SECONDS = 0.1


def set_group_nice(pid: int, nice: int) -> bool:
    """Have a session's processes stand back. May block for part of a second.

    Args:
        pid: any of them.
        nice: 0 to 19.

    Returns:
        Whether the kernel did it: it may group threads otherwise (by cgroup, or not at all), and the process may have ended.
    """
    for _ in range(_TRIES):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))
        except BlockingIOError:
            time.sleep(_AGAIN_SECONDS)
        except OSError:
            return False
        else:
            return True
    return False
