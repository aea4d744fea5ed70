"""All that MLflow holds of a fleet, read in pages: thousands of tenants in a few dozen requests.

MLflow pages by offset, so a writer meanwhile can make it skip or repeat a row: what is missing here is looked at again
before anything follows from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from registry.names import is_tenant
from registry.tracking.connection import TrackingConnection
from registry.tracking.records import (
    BUNDLE_TAG,
    FLEET_RUN_TAG,
    MANIFEST_TAG,
    PARENT_TAG,
    PREFIX,
    TENANT_TAG,
    VERSION_TAG,
    TrackedRun,
    TrackedVersion,
    registered_model,
)

# Rows a request. Of runs fewer, since each comes with its metrics and settings.
_VERSIONS, _MODELS, _RUNS, _EXPERIMENTS = 5_000, 1_000, 1_000, 1_000
# A filter names them all, and SQL takes no more than some ten thousand names at once.
_EXPERIMENTS_A_SEARCH = 500


def list_versions(connection: TrackingConnection, tenants: Sequence[str] | None) -> list[TrackedVersion]:
    """The versions of these tenants' models, or of all; oldest first for each. Raises TrackingUnavailable."""
    found = {}
    for chosen in _models(tenants):
        order = ["name ASC", "version_number ASC"]
        options = {"filter_string": chosen, "max_results": _VERSIONS, "order_by": order}
        for version in _pages(connection, "search_model_versions", options):
            tenant = version.name.removeprefix(PREFIX)
            if is_tenant(tenant):  # or it is somebody else's model
                found[tenant, int(version.version)] = TrackedVersion(
                    tenant=tenant,
                    number=int(version.version),
                    run_id=version.run_id or "",
                    version=version.tags.get(VERSION_TAG, ""),
                    manifest=version.tags.get(MANIFEST_TAG, ""),
                    bundle=version.tags.get(BUNDLE_TAG, ""),
                )
    return [found[key] for key in sorted(found)]


def list_aliases(connection: TrackingConnection, tenants: Sequence[str] | None) -> dict[str, Mapping[str, int]]:
    """Alias to version number, by tenant; of these tenants, or of all that have a model. Raises TrackingUnavailable."""
    found: dict[str, Mapping[str, int]] = {}
    for chosen in _models(tenants):
        options = {"filter_string": chosen, "max_results": _MODELS, "order_by": ["name ASC"]}
        for model in _pages(connection, "search_registered_models", options):
            tenant = model.name.removeprefix(PREFIX)
            if is_tenant(tenant):
                found[tenant] = {alias: int(number) for alias, number in model.aliases.items()}
    return found


def list_runs(
    connection: TrackingConnection,
    experiments: Iterable[str],
    *,
    before: datetime,
    status: str | None = None,
    tenants: Sequence[str] | None = None,
) -> list[TrackedRun]:
    """Our runs in these experiments that started before a time, oldest first.

    Args:
        status: only those in it.
        tenants: only the runs of their models; None for all, those of the fleet included.

    Raises TrackingUnavailable.
    """
    conditions = [f"attributes.start_time < {int(before.timestamp() * 1000)}"]
    if status is not None:
        conditions.append(f"attributes.status = '{status}'")
    wishes = [[]] if tenants is None else [[f"tags.`{TENANT_TAG}` = '{tenant}'"] for tenant in tenants]
    found: dict[str, TrackedRun] = {}
    for some in _batches(sorted(experiments), _EXPERIMENTS_A_SEARCH):
        for wish in wishes:
            options = {
                "experiment_ids": some,
                "filter_string": " and ".join(conditions + wish),
                "max_results": _RUNS,
                "order_by": ["attributes.start_time ASC"],
            }
            for run in _pages(connection, "search_runs", options):
                tags = run.data.tags
                if TENANT_TAG in tags or FLEET_RUN_TAG in tags:
                    found[run.info.run_id] = TrackedRun(
                        run_id=run.info.run_id,
                        experiment_id=run.info.experiment_id,
                        tenant=tags.get(TENANT_TAG, ""),
                        manifest=tags.get(MANIFEST_TAG, ""),
                        fleet_run=tags.get(FLEET_RUN_TAG, ""),
                        parent=tags.get(PARENT_TAG, ""),
                        status=run.info.status,
                        started_at=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
                    )
    return sorted(found.values(), key=lambda run: (run.started_at, run.run_id))


def list_deleted_runs(connection: TrackingConnection, experiments: Iterable[str]) -> dict[str, str]:
    """The ids of runs in these experiments that are marked as deleted, with the URI of their artifacts.

    Raises TrackingUnavailable.
    """
    from mlflow.entities import ViewType

    found = {}
    for some in _batches(sorted(experiments), _EXPERIMENTS_A_SEARCH):
        options = {"experiment_ids": some, "run_view_type": ViewType.DELETED_ONLY, "max_results": _RUNS}
        for run in _pages(connection, "search_runs", options):
            found[run.info.run_id] = run.info.artifact_uri
    return found


def list_experiments(connection: TrackingConnection, experiment: str, *, view: int | None = None) -> dict[str, str]:
    """The id and name of an experiment and of those of the fleet runs below it.

    Args:
        view: one of MLflow's `ViewType`; by default those that are not deleted.

    Raises TrackingUnavailable.
    """
    options = {"max_results": _EXPERIMENTS, **({} if view is None else {"view_type": view})}
    return {
        found.experiment_id: found.name
        for found in _pages(connection, "search_experiments", options)
        if found.name == experiment or found.name.startswith(f"{experiment}/")
    }


def _models(tenants: Sequence[str] | None) -> list[str]:
    """Filters that choose the registered models: one for all of them, or one each."""
    if tenants is None:
        return [f"name LIKE '{PREFIX}%'"]
    return [f"name = '{registered_model(tenant)}'" for tenant in tenants]


def _pages(connection: TrackingConnection, search: str, options: Mapping[str, Any]) -> Iterator[Any]:
    """All that one of the client's searches finds."""
    token: str | None = None
    while True:
        page = connection.ask("cannot be listed", partial(_page, search, {**options, "page_token": token}))
        yield from page
        token = page.token
        if not token:
            return


def _page(search: str, options: Mapping[str, Any], client: Any) -> Any:
    return getattr(client, search)(**options)


def _batches(items: Sequence[str], size: int) -> Iterator[list[str]]:
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch
