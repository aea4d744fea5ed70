"""What a run of the fleet is in MLflow: an experiment of its own, and in it a run that the runs of its models are nested in."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import ConfigDict

from registry.documents import Document
from registry.errors import ObjectNotFound, PreconditionFailed, StoreError
from registry.layout import run_tracking_key
from registry.names import check_run
from registry.store import ObjectStore
from registry.tracking.connection import TrackingConnection, unless_gone
from registry.tracking.records import FLEET_RUN_TAG

_MAX_BYTES = 4096


class FleetRun(Document):
    """Where the runs of one fleet run go; at rest beside the run's other records, so that there is one for everybody.

    Attributes:
        experiment_id, run_id: MLflow's.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    experiment_id: str
    run_id: str


class FleetRuns:
    """Fleet runs by their names, made with the first model, so that a night in which nothing changed leaves none.

    A name names the same run for every process, whichever is first, and again after a crash. MLflow has nothing to settle
    a race with, so the object store does: of those who make one at the same moment, the first to write its id down has
    the run, and the others remove theirs.

    Args:
        store: where the names of runs are looked up.
        experiment: of runs that belong to no fleet run, and the first part of the others' names.
        own_experiments: an experiment for each fleet run, `<experiment>/<name>`; otherwise all are in `experiment`.
    """

    def __init__(
        self, connection: TrackingConnection, store: ObjectStore, *, experiment: str, own_experiments: bool
    ) -> None:
        self._connection = connection
        self._store = store
        self.experiment = experiment
        self._own_experiments = own_experiments
        self._lock = threading.Lock()
        self._experiments: dict[str, str] = {}
        self._known: dict[str, FleetRun] = {}

    def experiment_id(self) -> str:
        """The experiment of runs that belong to no fleet run, made if missing. Raises TrackingUnavailable."""
        return self._experiment_id(self.experiment)

    def get(self, name: str) -> FleetRun:
        """The fleet run of that name, made if missing.

        Raises:
            InvalidInput: no run has such a name.
            StoreError: its record cannot be read or written.
            TrackingUnavailable: MLflow cannot be reached or used.
        """
        check_run(name)
        with self._lock:
            if name not in self._known:
                found = self._read(name)
                if found is None:
                    found = self._make(name)
                else:
                    # A run that had ended and is tried again, maybe; finding that out would cost as much.
                    self._set_status(found, "RUNNING")
                self._known[name] = found
            return self._known[name]

    def finish(self, name: str, *, figures: Mapping[str, float], failed: bool = False) -> None:
        """Close a fleet run with what came of it; one that registered nothing was never opened, and MLflow is not asked.

        Raises:
            StoreError: its record cannot be read.
            TrackingUnavailable: MLflow cannot be reached or used.
        """
        found = self._read(name)
        if found is None:
            return
        run_id, status = found.run_id, "FAILED" if failed else "FINISHED"

        def close(client: Any) -> None:
            from mlflow.entities import Metric

            # The time is the run's own, so that a second attempt writes the same row.
            started = client.get_run(run_id).info.start_time
            client.log_batch(run_id, metrics=[Metric(key, value, started, 0) for key, value in figures.items()])
            client.set_terminated(run_id, status)

        self._connection.ask("cannot close a fleet run", partial(unless_gone, close))

    def _make(self, name: str) -> FleetRun:
        """Make a fleet run, or find the one that somebody else was quicker to make."""
        experiment_id = self._experiment_id(self._experiment_name(name))
        created: list[str] = []

        def create(client: Any) -> str:
            # An earlier attempt's, whose answer was lost, or that of a process that crashed before it wrote it down.
            found = client.search_runs([experiment_id], f"tags.`{FLEET_RUN_TAG}` = '{name}'")
            if found:
                return str(min(found, key=lambda run: (run.info.start_time, run.info.run_id)).info.run_id)
            created.append(client.create_run(experiment_id, run_name=name, tags={FLEET_RUN_TAG: name}).info.run_id)
            return created[-1]

        made = FleetRun(experiment_id=experiment_id, run_id=self._connection.ask("cannot open a fleet run", create))
        try:
            self._store.put(run_tracking_key(name), made.to_bytes(), if_absent=True)
        except PreconditionFailed:
            first = self._read(name) or made
            if made.run_id in created and made.run_id != first.run_id:
                self._connection.ask("cannot remove a run", partial(unless_gone, partial(_delete, made.run_id)))
            return first
        return made

    def _read(self, name: str) -> FleetRun | None:
        key = run_tracking_key(name)
        try:
            data = self._store.get(key, max_bytes=_MAX_BYTES).data
        except ObjectNotFound:
            return None
        return FleetRun.parse(data, what=f"{self._store.url}/{key}", error=StoreError)

    def _set_status(self, run: FleetRun, status: str) -> None:
        self._connection.ask(
            "cannot open a fleet run",
            partial(unless_gone, lambda client: client.update_run(run.run_id, status=status)),
        )

    def _experiment_name(self, name: str) -> str:
        return f"{self.experiment}/{name}" if self._own_experiments else self.experiment

    def _experiment_id(self, name: str) -> str:
        if name not in self._experiments:
            self._experiments[name] = self._connection.ask(
                "cannot be opened", lambda client: _experiment(client, name, self._connection.artifact_location)
            )
        return self._experiments[name]


def _delete(run_id: str, client: Any) -> None:
    if client.get_run(run_id).info.lifecycle_stage == "active":  # or an earlier attempt has done it
        client.delete_run(run_id)


def _experiment(client: Any, name: str, artifact_location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifact_location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # Another process made it in the meantime.
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)
