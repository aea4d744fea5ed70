"""A process really gets no more than its part of a core: it takes root, so it is not in `make test`."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from benchmarks.processes import processor_seconds
from benchmarks.processor_limit import limited


def used(pid: int, seconds: float) -> float:
    """Of a core, in so long."""
    before, began = processor_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return (processor_seconds(pid) - before) / (time.monotonic() - began)


def test_a_part_of_a_core() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            with limited([busy.pid], 0.2) as held:
                if not held:
                    pytest.skip("this takes root, or a control group of one's own")
                assert used(busy.pid, 1.0) < 0.25
            assert used(busy.pid, 1.0) > 0.25
        finally:
            busy.kill()
