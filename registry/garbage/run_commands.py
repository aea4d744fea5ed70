"""`macrofleet garbage runs`: which of MLflow's runs nobody needs any more.

Nothing but typer is imported before it runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from registry.console_output import print_json, progress

# What stays whatever became of the models.
_KEEP, _DAYS = 5, 30


def runs(
    keep: Annotated[
        int, typer.Option("--keep", min=0, help="Of each tenant, so many of the latest runs stay in any case.")
    ] = _KEEP,
    days: Annotated[int, typer.Option("--days", min=1, help="Younger runs stay.")] = _DAYS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would go; delete nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Delete MLflow's runs of models that have no version there any more, and with the last of them the fleet run.

    Versions go before them: `garbage collect` takes bundles from the store, `fleet verify --repair` their versions from
    MLflow. Behind a tracking server runs are marked as deleted, and `mlflow gc` there removes them.

    Example: macrofleet garbage runs --days 90 --dry-run
    """
    from datetime import UTC, datetime, timedelta

    from registry.settings import StoreSettings, TrackingSettings, read_settings
    from registry.tracking.models import Tracking
    from registry.tracking.retention import prune_runs

    tracking = Tracking.from_settings(read_settings(TrackingSettings), read_settings(StoreSettings))
    with progress(as_json) as step:
        older_than = timedelta(days=days)
        done = prune_runs(
            tracking, keep=keep, older_than=older_than, now=datetime.now(UTC), write=not dry_run, step=step
        )
    if as_json:
        print_json({**done.as_dict(), "dry_run": dry_run})
        return
    verb = "would delete" if dry_run else "deleted"
    typer.echo(f"{verb} {len(done.runs)} runs of MLflow's, and {len(done.experiments)} experiments of fleet runs")
    if done.waiting:
        typer.echo(f"{done.waiting} runs are marked as deleted: `mlflow gc` removes them where MLflow runs")
