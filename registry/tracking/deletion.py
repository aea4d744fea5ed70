"""A tenant's traces in MLflow, removed for good: what MLflow itself calls deleting a run only marks it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from registry.errors import TrackingUnavailable
from registry.tracking.models import Tracking
from registry.tracking.records import registered_model

_PAGE = 1000
_PATIENCE_SECONDS = 30.0


class TrackingPlace:
    """MLflow's records of a tenant: the registered model with its versions and aliases, runs, their artifacts.

    Runs are found by the tag `macrofleet.tenant`, in all experiments, also those that are marked as deleted. With a
    database MLflow's own rows are deleted, as `mlflow gc` does it; of an SQLite file, what was overwritten goes too. A
    tracking server has no request for that: the runs are marked, their artifacts deleted, and `find` names them until
    `mlflow gc` has run beside the server.
    """

    name = "mlflow"
    remedy = (
        "Where the tracking server runs: mlflow gc --backend-store-uri URI --run-ids ID,…; it empties the trash of "
        "experiments and logged models as well. Then run this again."
    )
    certain = True

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking

    def remove(self, tenant: str) -> int:
        """Delete the tenant's model and runs. The artifacts of a run go first, since they are found by it."""
        connection = self._tracking.connection
        removed = connection.ask("cannot delete a tenant", partial(_remove, connection.uri, tenant))
        if connection.database is not None:
            with _sqlite(connection.database) as rows:
                rows.execute("VACUUM")
                _empty_log(rows)
        return removed

    def find(self, tenant: str) -> list[str]:
        """The tenant's model and runs, and whether an SQLite file may still have what they were."""
        connection = self._tracking.connection
        found = connection.ask("cannot look for a tenant", partial(_find, tenant))
        if connection.database is not None:
            with _sqlite(connection.database) as rows:
                if not _empty_log(rows):
                    found.append(
                        f"{connection.database}-wal, which another process reads: what was deleted may be in it"
                    )
        return found


def _remove(tracking_uri: str, tenant: str, client: Any) -> int:
    """How many were removed; where it is tried again, by the last attempt."""
    removed = 0
    for run in list(_runs(client, tenant)):
        _delete_artifacts(run.info.artifact_uri, tracking_uri)
        _delete_run(client, run)
        removed += 1
    name = registered_model(tenant)
    if _has_model(client, name):
        client.delete_registered_model(name)
        removed += 1
    return removed


def _find(tenant: str, client: Any) -> list[str]:
    name = registered_model(tenant)
    found = [f"registered model {name}"] if _has_model(client, name) else []
    return found + [f"run {run.info.run_id} ({run.info.lifecycle_stage})" for run in _runs(client, tenant)]


def _has_model(client: Any, name: str) -> bool:
    return bool(client.search_registered_models(f"name = '{name}'", max_results=1))


def _runs(client: Any, tenant: str) -> Iterator[Any]:
    """Every run of a tenant, in experiments and states of any kind."""
    from mlflow.entities import ViewType

    experiments = [one.experiment_id for one in _pages(client.search_experiments, view_type=ViewType.ALL)]
    if experiments:
        yield from _pages(
            client.search_runs,
            experiment_ids=experiments,
            filter_string=f"tags.`macrofleet.tenant` = '{tenant}'",
            run_view_type=ViewType.ALL,
        )


def _pages(search: Callable[..., Any], **query: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(**query, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _delete_artifacts(uri: str, tracking_uri: str) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    parts = urlsplit(uri)
    if parts.scheme == "s3":
        # MLflow's own way leaves what a bucket with versions keeps. It names its server and keys in these variables.
        from registry.store.s3 import S3Store

        endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None
        store = S3Store(parts.netloc, parts.path.strip("/"), endpoint_url=endpoint)
        store.purge(list(store.states()))
    else:
        get_artifact_repository(uri, tracking_uri=tracking_uri).delete_artifacts()


def _delete_run(client: Any, run: Any) -> None:
    if run.info.lifecycle_stage != "deleted":
        client.delete_run(run.info.run_id)
    # What `mlflow gc` calls; the command itself would empty the trash of experiments and logged models along with it.
    delete_for_good = getattr(client._tracking_client.store, "_hard_delete_run", None)
    if delete_for_good is not None:
        delete_for_good(run.info.run_id)


@contextmanager
def _sqlite(database: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(database, isolation_level=None, timeout=_PATIENCE_SECONDS)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise TrackingUnavailable(
            f"what was deleted could not be overwritten in {database} ({error})",
            remedy="Run it again when MLflow is idle.",
        ) from error


def _empty_log(connection: sqlite3.Connection) -> bool:
    """Have SQLite's log taken into the file and emptied; False while somebody reads it."""
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy
