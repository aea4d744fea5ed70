"""Deletions of a tenant that are killed on the way: `python -m tests.flows.deleting`.

What takes a second is imported once; each deletion is a fork. Reads a folder and a step's number a line; answers with a
line of JSON, or with an empty one where the fork was killed (SIGKILL).
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import mlflow  # noqa: F401  # before the first fork

from flows.run_traces import RunsPlace
from registry.deletion.deleting import Place, delete_tenant
from registry.deletion.places import DiskPlace, FleetPlace, HiddenPlace, LeasePlace, StorePlace
from registry.leases import Leases
from registry.settings import StoreSettings
from registry.store import open_store
from registry.tracking.deletion import TrackingPlace
from registry.tracking.models import Tracking
from tests.flows.forks import Forks
from tests.registry.garbage_world import TENANT
from tests.registry.lease_world import JumpingClock


def delete(folder: Path, killed_at: int) -> dict[str, Any]:
    """Delete the tenant.

    Args:
        killed_at: the number of the step before which SIGKILL comes; 0 for none.
    """
    settings = StoreSettings(url=str(folder / "store"))
    store = open_store(settings)
    places: list[Place] = [
        FleetPlace(store),
        RunsPlace(store),
        HiddenPlace(store),
        TrackingPlace(Tracking(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", store=settings)),
        DiskPlace([folder / "disk"], store),
        StorePlace(store),
        LeasePlace(store),
    ]
    steps = iter(range(1, 1000))

    def step(_text: str, _share: float) -> None:
        if next(steps) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    clock = JumpingClock()  # a deletion that was killed holds its lease until that has run out
    leases = Leases(store, holder=f"deletion {killed_at}", clock=clock, sleep=clock.sleep)
    done = delete_tenant(store, TENANT, places, leases=leases, step=step)
    return {**done.as_dict(), "steps": next(steps) - 1}


def main() -> None:
    """Delete what is asked for until standard input ends."""
    answer = os.dup(1)
    os.dup2(2, 1)
    forks = Forks()

    def work(folder: Path, killed_at: int) -> None:
        os.write(answer, json.dumps(delete(folder, killed_at)).encode() + b"\n")

    for line in sys.stdin:
        folder, killed_at = json.loads(line)
        status = forks.run(functools.partial(work, Path(folder), killed_at))
        if status:
            os.write(answer, b"\n" if os.WIFSIGNALED(status) else b"null\n")


if __name__ == "__main__":
    main()
