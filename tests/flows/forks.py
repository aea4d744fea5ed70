"""Work in forks of this process: what takes seconds to import is imported once."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress


class Forks:
    """Does work in forks, one after the other.

    The first one that comes to its end says what it had to import on the way; that is imported here, so that those after it
    find it. Nothing that starts a thread may be among it.
    """

    def __init__(self) -> None:
        self._learned = False

    def run(self, work: Callable[[], object]) -> int:
        """Do some work; how that ended, as `os.waitpid` says it."""
        assert threading.active_count() == 1, "a fork has one thread"
        assert "tensorflow" not in sys.modules, "it does not survive a fork"
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                before = set(sys.modules)
                work()
                os.write(writing, json.dumps(sorted(sys.modules.keys() - before)).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        if said and not self._learned:
            self._learn(json.loads(said))
        return status

    def _learn(self, names: list[str]) -> None:
        self._learned = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                with suppress(Exception):  # whoever needs it imports it
                    importlib.import_module(name)
