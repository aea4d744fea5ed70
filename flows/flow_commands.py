"""`macrofleet flows …`: run what is scheduled, and see how it went.

Nothing but typer is imported before a command runs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.timetable import NIGHTLY, Timetable
from registry.console_output import open_configured_store, print_json, print_table

if TYPE_CHECKING:
    from flows.status import RunStatus

flows = typer.Typer(no_args_is_help=True, help="Retrain on a schedule, on one machine or many, and see how it went.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Cron = Annotated[
    str,
    typer.Option(envvar="MACROFLEET_CRON", help="When retrain_fleet runs: five fields, or never.", show_envvar=True),
]
Timezone = Annotated[
    str, typer.Option(envvar="MACROFLEET_TIMEZONE", help="Of --cron: Europe/Berlin, say.", show_envvar=True)
]
_SHOWN = 3


@flows.command("serve")
def serve(
    cron: Cron = NIGHTLY,
    timezone: Timezone = "UTC",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; a run with shards needs one for itself and one for them.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the Prefect server that this starts.")] = 4200,
    ui: Annotated[bool, typer.Option("--ui", help="Have that server show Prefect's pages, too.")] = False,
) -> None:
    """Run everything from here: deployments, schedule and runs, until SIGTERM.

    Starts a Prefect server on loopback, unless PREFECT_API_URL (or Prefect's profile) names one. Stopping it pauses the
    schedule; the next start takes it up again.

    Example: macrofleet flows serve --cron "0 2 * * *" --timezone Europe/Berlin
    """
    _quiet()
    from flows.deploying import serve_deployments

    serve_deployments(_timetable(cron, timezone), port=port, ui=ui, limit=limit, say=typer.echo)


@flows.command("deploy")
def deploy(
    pool: Annotated[str, typer.Option("--pool", help="The work pool; one for processes is made if missing.")],
    cron: Cron = NIGHTLY,
    timezone: Timezone = "UTC",
    job_variable: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="What the pool's kind takes: image, say. Repeatable.")
    ] = None,
    operations_pool: Annotated[
        str | None,
        typer.Option(
            help="The pool of collect_garbage and delete_tenant, which need more rights in the store than training."
        ),
    ] = None,
    copier_pool: Annotated[
        str | None, typer.Option(help="The pool of copy_region; by default that of operations.")
    ] = None,
) -> None:
    """Make the deployments known to the Prefect server of PREFECT_API_URL, for workers of a work pool.

    Where workers have no more rights in the store than they need, those of each pool have other ones: docs/flows.md.

    Example: macrofleet flows deploy --pool macrofleet --operations-pool macrofleet-operations
    """
    from flows.identities import Pools
    from registry.errors import InvalidInput

    variables = {}
    for given in job_variable or ():
        name, equals, value = given.partition("=")
        if not equals or not name:
            raise InvalidInput(f"--job-variable {given!r} is not NAME=VALUE", remedy="Write --job-variable image=v2.")
        variables[name] = value
    _quiet()
    from flows.deploying import deploy_deployments

    pools = Pools(training=pool, operations=operations_pool, copier=copier_pool)
    deploy_deployments(_timetable(cron, timezone), pools=pools, job_variables=variables, say=typer.echo)


@flows.command("status")
def status(
    last: Annotated[int, typer.Option(min=1, max=100, help="So many runs.")] = 10,
    run: Annotated[str | None, typer.Option("--run", help="One of them, tenant by tenant.")] = None,
    as_json: Json = False,
) -> None:
    """The last runs: how they ended, how many tenants came to what, and what is left to do. Exit code 1 if anything is.

    What runs wrote to the store is shown; with a Prefect server named, what only that one knows, too.

    Example: macrofleet flows status --json
    """
    if run is not None:
        _show_run(run, as_json)
        return
    from flows.status import recent_runs, with_prefect

    warning = ""
    found = recent_runs(open_configured_store(), last=last)
    if os.environ.get("PREFECT_API_URL"):
        _quiet()
        from flows.prefect_runs import known_runs
        from registry.errors import SchedulerUnavailable

        try:
            found = with_prefect(found, known_runs(last=last))
        except SchedulerUnavailable as problem:
            warning = str(problem)
    if as_json:
        print_json({"runs": [one.as_dict() for one in found], "warnings": [warning] if warning else []})
    else:
        columns = ["run", "flow", "state", "began", "took", "tenants", "came to", "left"]
        print_table(columns, [_row(one) for one in found])
        for one in found:
            _explain(one)
        if warning:
            typer.echo(f"macrofleet: {warning}", err=True)
    latest: dict[str, RunStatus] = {}
    for one in found:
        if one.run:
            latest.setdefault(one.flow, one)
    if any(one.left or one.warnings or one.state not in {"running", "completed"} for one in latest.values()):
        raise typer.Exit(1)


def _show_run(run: str, as_json: bool) -> None:
    from flows.runs import counts_text
    from flows.status import describe_run

    found, outcomes = describe_run(open_configured_store(), run)
    if as_json:
        print_json({**found.as_dict(), "outcomes": outcomes})
        return
    typer.echo(f"{found.flow} {found.state}, {found.done} of {found.tenants} tenants; {counts_text(found.counts)}")
    print_table(
        ["tenant", "state", "s", "version", "reason"],
        [
            [str(one["tenant"]), str(one["state"]), f"{one['seconds']:.1f}", str(one["version"]), str(one["reason"])]
            for one in outcomes
        ],
    )
    _explain(found)


def _explain(one: RunStatus) -> None:
    """What the table has no room for."""
    if one.reason:
        typer.echo(f"{one.run or one.flow}: {one.reason}")
    if one.working:
        typer.echo(f"{one.run}: at work on {', '.join(one.working)}")
    for left in list(one.left)[:_SHOWN]:
        typer.echo(f"{one.run}: left: {left['tenant']} ({left['state']}): {left['reason']}")
    if len(one.left) > _SHOWN:
        typer.echo(f"{one.run}: and {len(one.left) - _SHOWN} more")
    for warning in one.warnings:
        typer.echo(f"{one.run}: {warning}")


def _row(one: RunStatus) -> list[str]:
    from flows.runs import counts_text

    began = f"{one.started_at:%Y-%m-%d %H:%M}" if one.started_at else ""
    took = "" if one.seconds is None else f"{one.seconds:.0f} s"
    tenants = f"{one.done}/{one.tenants}" if one.tenants else ""
    return [one.run, one.flow, one.state, began, took, tenants, counts_text(one.counts), str(len(one.left) or "")]


def _timetable(cron: str, timezone: str) -> Timetable:
    return Timetable(cron=None if cron == "never" else cron, timezone=timezone)


def _quiet() -> None:
    """What a command line wants of Prefect, before Prefect is imported."""
    defaults: dict[str, Any] = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
