"""An upgrade and the way back with callers asking all the time: `make test-replicas`, apart from `make test`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# So many commits before this one: there is no older release yet.
_BEFORE = 20


def test_servers_of_two_releases_take_turns_and_nobody_notices() -> None:
    found = subprocess.run(
        ["git", "rev-parse", "--verify", f"HEAD~{_BEFORE}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip("this is no clone with a history")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.upgrading", "--old", found.stdout.strip(), "--seconds", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["failed"] == report["not_followed"] == {}
    assert report["feedback_lost"] == 0
    # Or nobody asked.
    assert report["answers"]["suggestions 200"] > 100
    assert report["feedback_accepted"] > 10
