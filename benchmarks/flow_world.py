"""What runs of the flow are measured on: synthetic tenants in a store, MLflow on SQLite, and runs in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.flow_run import PEAKS_VARIABLE
from flows.local_server import store_environment
from registry.console_output import Step
from registry.fleet.state import read_fleet
from registry.settings import StoreSettings
from registry.store import open_store
from registry.tracking.models import Tracking
from training.examples import Example
from training.synthetic import SyntheticTenant, make_fleet
from training.tenants import import_examples

TICKETS, MACROS = 300, 12
# Limits that a planted tenant meets soon and no other one does.
LIMITS = {"MACROFLEET_TRAINING_SECONDS": "30", "MACROFLEET_TRAINING_MEMORY_BYTES": str(2 * 1024**3)}
FLOW_RUN = [sys.executable, "-m", "benchmarks.flow_run"]
_EXPERIMENT = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """A run that came to its end, or was killed.

    Attributes:
        seconds: from its process's start to its end.
        training_seconds: from the first sign of fitting to its end.
        outcomes: by tenant, as the flow's summary has them; none where it was killed.
    """

    seconds: float
    training_seconds: float
    outcomes: Mapping[str, Mapping[str, Any]]
    killed: bool

    def of(self, *states: str) -> list[str]:
        """The tenants that ended in these states."""
        return sorted(tenant for tenant, outcome in self.outcomes.items() if outcome["state"] in states)


class FlowWorld:
    """A folder with everything a run of the flow stands on.

    Args:
        folder: MLflow's database and what runs leave behind.
        store: holds the lake and the program.
        disk: the disk tier.
        prefect: environment that points at a Prefect server.
    """

    def __init__(self, folder: Path, store: StoreSettings, *, disk: Path, prefect: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._disk, self._prefect = folder, disk, prefect
        self.store_settings = store
        self.store = open_store(store)
        self._database = folder / "mlflow.db"
        self._peaks = folder / "peaks.jsonl"

    def fill(self, tenants: int, *, seed: int) -> list[str]:
        """Import synthetic tenants, and have MLflow's tables made."""
        names = []
        for made in make_fleet(tenants, seed=seed, tickets=TICKETS, macros=MACROS):
            self.add(made.tenant, made)
            names.append(made.tenant)
        self._tracking().prepare()
        return names

    def add(self, tenant: str, made: SyntheticTenant) -> None:
        """Import the tickets of a synthetic tenant under a name."""
        rows = [
            Example(
                ticket_id=ticket.ticket_id,
                subject=ticket.subject,
                body=ticket.body,
                channel=ticket.channel,
                locale=ticket.locale,
                applied_at=ticket.applied_at,
                macro_id=ticket.macro_id,
            )
            for ticket in made.tickets
        ]
        import_examples(self.store, tenant, rows, titles={macro.id: macro.title for macro in made.macros})

    def copied(self, folder: Path) -> FlowWorld:
        """The same data in another folder, with a store and a database of its own. For stores that are folders."""
        folder.mkdir()
        shutil.copytree(self.store_settings.url, folder / "store")
        shutil.copy(self._database, folder / "mlflow.db")
        store = StoreSettings(url=str(folder / "store"))
        return FlowWorld(folder, store, disk=self._disk, prefect=self._prefect)

    def serving(self) -> dict[str, str | None]:
        """The manifests' digests that the fleet serves, by tenant."""
        return {tenant: entry.manifest for tenant, entry in read_fleet(self.store).entries.items()}

    def registered(self, tenants: Sequence[str]) -> int:
        """How many model versions MLflow has of these tenants."""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self._database}")
        return sum(len(client.search_model_versions(f"name = 'macrofleet.{tenant}'")) for tenant in tenants)

    def peaks(self) -> list[int]:
        """The most memory that a process held while it trained a tenant, in the order of their ends."""
        return [int(json.loads(line)["peak_bytes"]) for line in self._peaks.read_text().splitlines()]

    def run(
        self,
        *,
        processes: int,
        tenants: Sequence[str] | None = None,
        saying: Step | None = None,
        kill_after: float | None = None,
    ) -> RunReport:
        """Run the flow in a process of its own.

        Args:
            tenants: None for all.
            saying: told what it is doing, and its finished share.
            kill_after: kill it (SIGKILL) so many seconds after the first sign of fitting.

        Raises:
            subprocess.CalledProcessError: it ended without a summary, and was not killed.
        """
        began = time.monotonic()
        wanted = json.dumps({"tenants": tenants, "processes": processes})
        process = subprocess.Popen(
            [*FLOW_RUN, wanted],
            env={**os.environ, **self._environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        fitting: float | None = None
        summary: dict[str, Any] | None = None
        timer: threading.Timer | None = None
        with process, _killed_on_the_way_out(process):
            for said in _lines(process):
                summary = said.get("summary", summary)
                if "share" in said and saying is not None:
                    saying(said["doing"], said["share"])
                if fitting is None and said.get("share", 0) > 0:
                    fitting = time.monotonic()
                    if kill_after is not None:
                        timer = threading.Timer(kill_after, process.kill)
                        timer.start()
        if timer is not None:
            timer.cancel()
        killed = summary is None and kill_after is not None and process.returncode < 0
        if summary is None and not killed:
            raise subprocess.CalledProcessError(process.returncode, process.args)
        ended = time.monotonic()
        return RunReport(
            seconds=ended - began,
            training_seconds=ended - (fitting or ended),
            outcomes={} if summary is None else {outcome["tenant"]: outcome for outcome in summary["tenants"]},
            killed=killed,
        )

    def _tracking(self) -> Tracking:
        return Tracking(tracking_uri=f"sqlite:///{self._database}", store=self.store_settings, experiment=_EXPERIMENT)

    def _environment(self) -> dict[str, str]:
        return {
            **store_environment(self.store_settings),
            **self._prefect,
            **LIMITS,
            "MACROFLEET_DISK_FOLDER": str(self._disk),
            "MACROFLEET_TRACKING_URI": f"sqlite:///{self._database}",
            "MACROFLEET_EXPERIMENT": _EXPERIMENT,
            # The generator's tickets end where they always end, however long ago that is.
            "MACROFLEET_MONTHS": "120",
            # A run that is killed leaves its leases, and the next one shall not wait for them longer than it takes to start.
            "MACROFLEET_LEASE_SECONDS": "5",
            PEAKS_VARIABLE: str(self._peaks),
            # Libraries that write into the home folder when they are imported.
            "KERAS_HOME": str(self._disk / "keras"),
            "MPLCONFIGDIR": str(self._disk / "matplotlib"),
        }


@contextlib.contextmanager
def _killed_on_the_way_out(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        process.kill()
        raise


def _lines(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)
