"""Retention in MLflow: runs of models that are no more go, and with the last of them the fleet run they were made in.

MLflow only marks what is deleted, until `mlflow gc` removes it. Where the database is at hand that is done here; behind a
tracking server it is its operator's to run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from registry.tracking.connection import unless_gone
from registry.tracking.listing import list_deleted_runs, list_experiments, list_runs, list_versions
from registry.tracking.models import Tracking
from registry.tracking.records import TrackedRun

Step = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What goes, or went.

    Attributes:
        runs: ids of runs, those of whole experiments included.
        experiments: names of experiments of fleet runs of which nothing is left.
        removed: how many runs were removed for good, deleted earlier ones included.
        waiting: how many are marked as deleted and wait for `mlflow gc` where MLflow runs.
    """

    runs: tuple[str, ...]
    experiments: tuple[str, ...]
    removed: int = 0
    waiting: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)


def prune_runs(
    tracking: Tracking,
    *,
    keep: int,
    older_than: timedelta,
    now: datetime,
    write: bool = True,
    step: Step = lambda text, share: None,  # noqa: ARG005  # nobody listens
) -> Pruned:
    """Delete the runs of models that have no version in MLflow any more, and fleet runs without any run of a model.

    A run whose version is there stays, champion's and challenger's with it, and so does one that is marked as running:
    what a crash left open is `verify_fleet`'s to close.

    Args:
        keep: of each tenant, so many of the latest runs stay whatever became of their versions.
        older_than: younger runs stay.
        write: False only says what would go.

    Raises:
        TrackingUnavailable: MLflow cannot be reached or used; a rerun finishes.
    """
    connection = tracking.connection
    step("listing MLflow's runs", 0.0)
    experiments = list_experiments(connection, tracking.runs.experiment)
    runs = list_runs(connection, experiments, before=now)
    registered = {version.run_id for version in list_versions(connection, None)}
    going = to_prune(runs, registered, keep=keep, before=now - older_than)
    left = Counter(run.experiment_id for run in runs)
    left.subtract(run.experiment_id for run in going)
    # One request instead of one for each run. The experiment of what belongs to no fleet run stays.
    emptied = {
        run.experiment_id
        for run in going
        if not left[run.experiment_id] and experiments[run.experiment_id] != tracking.runs.experiment
    }
    pruned = Pruned(
        runs=tuple(run.run_id for run in going),
        experiments=tuple(sorted(experiments[experiment] for experiment in emptied)),
    )
    if not write:
        return pruned
    alone = [run.run_id for run in going if run.experiment_id not in emptied]
    _delete(tracking, "delete_experiment", sorted(emptied), lambda share: step("deleting experiments", 0.2 * share))
    _delete(tracking, "delete_run", alone, lambda share: step("deleting runs", 0.2 + 0.4 * share))
    removed, waiting = _remove_for_good(tracking, lambda share: step("removing what is deleted", 0.6 + 0.4 * share))
    return Pruned(runs=pruned.runs, experiments=pruned.experiments, removed=removed, waiting=waiting)


def to_prune(runs: Sequence[TrackedRun], registered: Iterable[str], *, keep: int, before: datetime) -> list[TrackedRun]:
    """Which of all runs go.

    Args:
        registered: the runs that versions in MLflow name.
        keep, before: as `prune_runs` has them.
    """
    needed = set(registered)
    latest: Counter[str] = Counter()
    going, held = [], set()
    for run in sorted(runs, key=lambda run: (run.started_at, run.run_id), reverse=True):
        if run.fleet_run:
            continue
        latest[run.tenant] += 1
        if run.run_id in needed or latest[run.tenant] <= keep or _stays(run, before):
            held.add(run.parent)
        else:
            going.append(run)
    emptied = [run for run in runs if run.fleet_run and run.run_id not in held and not _stays(run, before)]
    return going + emptied


def _stays(run: TrackedRun, before: datetime) -> bool:
    return run.status == "RUNNING" or run.started_at >= before


def _delete(tracking: Tracking, method: str, ids: Sequence[str], told: Callable[[float], None]) -> None:
    """Mark runs or experiments as deleted; one that is so already is not an error."""
    for place, one in enumerate(ids):
        told(place / len(ids))
        tracking.connection.ask("cannot delete runs", partial(unless_gone, partial(_call, method, one)))


def _call(method: str, one: str, client: Any) -> None:
    getattr(client, method)(one)


def _remove_for_good(tracking: Tracking, told: Callable[[float], None]) -> tuple[int, int]:
    """Do to our deleted runs and experiments what `mlflow gc` does.

    Returns:
        How many runs were removed, and how many are left to it.
    """
    from mlflow.entities import ViewType

    connection = tracking.connection
    deleted = list_experiments(connection, tracking.runs.experiment, view=ViewType.DELETED_ONLY)
    experiments = {**list_experiments(connection, tracking.runs.experiment), **deleted}
    runs = list_deleted_runs(connection, experiments)
    if not connection.ask("cannot be used", lambda client: hasattr(_backend(client), "_hard_delete_run")):
        return 0, len(runs)
    for place, (run_id, artifact_uri) in enumerate(runs.items()):
        told(place / len(runs))
        connection.ask(
            "cannot remove a run", partial(unless_gone, partial(_remove_run, connection.uri, run_id, artifact_uri))
        )
    for experiment_id in deleted:
        connection.ask("cannot remove an experiment", partial(unless_gone, partial(_remove_experiment, experiment_id)))
    return len(runs), 0


def _backend(client: Any) -> Any:
    """What the client writes to: a database, or the REST interface of a server."""
    return client._tracking_client.store


def _remove_run(uri: str, run_id: str, artifact_uri: str, client: Any) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    # The artifacts first, as long as something says where they are.
    get_artifact_repository(artifact_uri, tracking_uri=uri).delete_artifacts()
    _backend(client)._hard_delete_run(run_id)


def _remove_experiment(experiment_id: str, client: Any) -> None:
    _backend(client)._hard_delete_experiment(experiment_id)
