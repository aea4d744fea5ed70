"""Child processes that end with their parent."""

from __future__ import annotations

import shutil
import threading


def leash() -> list[str]:
    """What to put before a command so that Linux ends it with its parent, even one that is killed; else nothing.

    It follows the thread that starts the command, so it is only right for one that lives as long as the process.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []
