"""A process that deletes a tenant, and is killed on the way if it is told to: `python -m tests.flows.deleting FOLDER STEP`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from flows.run_traces import RunsPlace
from registry.deletion import Place, delete_tenant
from registry.leases import Leases
from registry.settings import StoreSettings
from registry.store import open_store
from registry.tenant_places import DiskPlace, FleetPlace, HiddenPlace, LeasePlace, StorePlace
from registry.tracking import Tracking
from registry.tracking_deletion import TrackingPlace
from tests.registry.garbage_world import TENANT


def main(folder: Path, killed_at: int) -> None:
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

    leases = Leases(store, holder=f"deletion {killed_at}", seconds=0.5)
    done = delete_tenant(store, TENANT, places, leases=leases, step=step)
    json.dump({**done.as_dict(), "steps": next(steps) - 1}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
