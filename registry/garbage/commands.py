"""`macrofleet garbage …`: what the object store keeps that nobody needs any more.

Nothing but typer is imported before a command runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from registry.console_output import open_configured_store, print_json, print_table, progress

if TYPE_CHECKING:
    from registry.garbage.store_garbage import Collected

garbage = typer.Typer(no_args_is_help=True, help="Delete what nobody needs any more from the store and from MLflow.")

_SHOWN = 20


@garbage.command("collect")
def collect(
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Of each tenant, so many versions published last (5).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would go; delete nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Delete model versions that no fleet of the last seven days names, and what writers that crashed have left.

    Nothing younger than a day is touched, nor the last versions of each tenant. It may run at any time, beside training
    and serving, and again after an interruption.

    Example: macrofleet garbage collect --keep 3 --dry-run
    """
    from registry.garbage.retention import Retention
    from registry.garbage.store_garbage import collect_garbage

    retention = Retention() if keep is None else Retention(keep=keep)
    with progress(as_json) as step:
        done = collect_garbage(open_configured_store(), retention=retention, dry_run=dry_run, step=step)
    if as_json:
        print_json(done.as_dict())
    else:
        _report(done)


def _report(done: Collected) -> None:
    if done.deleted:
        print_table(
            ["tenant", "version", "objects", "MB", "why"],
            [
                [each.tenant, each.version, str(each.objects), f"{each.bytes / 1e6:.1f}", each.why]
                for each in done.deleted[:_SHOWN]
            ],
        )
    if len(done.deleted) > _SHOWN:
        typer.echo(f"and {len(done.deleted) - _SHOWN} more (--json lists them)")
    verb = "would delete" if done.dry_run else "deleted"
    typer.echo(
        f"{verb} {len(done.deleted)} versions, {done.fleet_objects} past states of the fleet and {done.unfinished} "
        f"unfinished writes: {done.objects} objects, {done.bytes / 1e6:.1f} MB"
    )
    for tenant in done.remains:
        typer.echo(f"{verb} what was left of {tenant}, which was deleted")
    reasons = ", ".join(f"{count} {why}" for why, count in sorted(done.reasons().items()))
    typer.echo(f"kept {len(done.kept)} versions" + (f" ({reasons})" if reasons else ""))
    for tenant, version in done.spared:
        typer.echo(f"spared: {tenant} {version}, which is needed again")
    for tenant in done.busy:
        typer.echo(f"left alone: {tenant}, on which another collector is at work", err=True)
