"""What a run of the fleet is in MLflow: an experiment of its own, and in it a run that the runs of its models are nested in."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.errors import InvalidInput
from registry.tracked import FLEET_RUN_TAG
from registry.tracking_connection import TrackingConnection

# Goes into a filter of MLflow's and into a name that a browser shows.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRun:
    """Where the runs of one fleet run go."""

    experiment_id: str
    run_id: str


class FleetRuns:
    """Fleet runs by their names, made when first asked for, so that a night in which nothing changed leaves none.

    A name names the same run for every process, and again after a crash. MLflow has nothing to settle a race with, so
    somebody asks for it once before the work is spread: two who make it at the same moment would have one each.

    Args:
        experiment: of runs that belong to no fleet run, and the first part of the others' names.
        own_experiments: an experiment for each fleet run, `<experiment>/<name>`; otherwise all are in `experiment`.
    """

    def __init__(self, connection: TrackingConnection, *, experiment: str, own_experiments: bool) -> None:
        self._connection = connection
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
            InvalidInput: a name that is no name.
            TrackingUnavailable: MLflow cannot be reached or used.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{name[:80]!r} cannot name a fleet run", remedy="Use letters, digits, '.', '_' and '-', up to 100."
            )
        with self._lock:
            if name not in self._known:
                experiment_id = self._experiment_id(self._experiment_name(name))
                self._known[name] = FleetRun(experiment_id=experiment_id, run_id=self._parent(experiment_id, name))
            return self._known[name]

    def finish(self, name: str, *, figures: Mapping[str, float], failed: bool = False) -> None:
        """Close a fleet run with what came of it; one that registered nothing was never opened, and stays so.

        Raises TrackingUnavailable.
        """

        def close(client: Any) -> None:
            from mlflow.entities import Metric

            experiment = client.get_experiment_by_name(self._experiment_name(name))
            run = None if experiment is None else _find(client, experiment.experiment_id, name)
            if run is not None:
                # The time is the run's own, so that a second attempt writes the same row.
                made = [Metric(key, value, run.info.start_time, 0) for key, value in figures.items()]
                client.log_batch(run.info.run_id, metrics=made)
                client.set_terminated(run.info.run_id, "FAILED" if failed else "FINISHED")

        self._connection.ask("cannot close a fleet run", close)

    def _experiment_name(self, name: str) -> str:
        return f"{self.experiment}/{name}" if self._own_experiments else self.experiment

    def _experiment_id(self, name: str) -> str:
        if name not in self._experiments:
            self._experiments[name] = self._connection.ask(
                "cannot be opened", lambda client: _experiment(client, name, self._connection.artifact_location)
            )
        return self._experiments[name]

    def _parent(self, experiment_id: str, name: str) -> str:
        def parent(client: Any) -> str:
            found = _find(client, experiment_id, name)
            if found is None:
                found = client.create_run(experiment_id, run_name=name, tags={FLEET_RUN_TAG: name})
            elif found.info.status != "RUNNING":
                client.update_run(found.info.run_id, status="RUNNING")  # a rerun of what had ended
            return str(found.info.run_id)

        return self._connection.ask("cannot open a fleet run", parent)


def _find(client: Any, experiment_id: str, name: str) -> Any:
    """The fleet run of that name, the first one that was made if there are several; None where there is none."""
    found = client.search_runs([experiment_id], f"tags.`{FLEET_RUN_TAG}` = '{name}'")
    return min(found, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


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
