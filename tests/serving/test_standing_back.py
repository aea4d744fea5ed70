"""A session's place among the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.replicas.standing_back import set_group_nice


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="the kernel does not group by session")
def test_a_session_stands_back_and_forth() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        for nice in (10, 0):
            assert set_group_nice(process.pid, nice)
            assert Path(f"/proc/{process.pid}/autogroup").read_text().split()[-1] == str(nice)
    finally:
        process.kill()
        process.communicate()
    assert not set_group_nice(process.pid, 10)
