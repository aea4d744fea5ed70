"""Tidying the lake of every tenant, each by its own settings: `macrofleet garbage lake`, and the flow `tidy_lake`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from registry.console_output import open_configured_store, print_json, print_table, progress

_SHOWN = 20
# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeTidied:
    """What became of lakes.

    Attributes:
        tenants: what each lost; see `training.lake_retention.Tidied`.
        problems: of tenants that could not be tidied, a sentence each.
    """

    dry_run: bool
    tenants: tuple[dict[str, Any], ...]
    problems: tuple[str, ...]

    def total(self, name: str) -> int:
        """A count over all tenants."""
        return sum(int(row[name]) for row in self.tenants)

    def sentence(self) -> str:
        """In one line."""
        verb = "would remove" if self.dry_run else "removed"
        pack = "would pack" if self.dry_run else "packed"
        return (
            f"{verb} {self.total('tickets')} tickets and {self.total('feedback')} objects of feedback that are too old; "
            f"{pack} {self.total('packed')} objects of feedback into {self.total('made')}; "
            f"{len(self.tenants)} tenants"
        )

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        counts = ("tickets", "undated", "feedback", "packed", "made", "synchronisations", "hidden")
        return {
            "dry_run": self.dry_run,
            **{name: self.total(name) for name in counts},
            "tenants": list(self.tenants),
            "problems": list(self.problems),
        }


def tidy_lakes(
    tenants: Sequence[str] | None = None,
    *,
    dry_run: bool = False,
    step: Step = lambda _text, _share: None,
    now: datetime | None = None,
) -> LakeTidied:
    """Tidy lakes, several tenants at once; one that cannot be tidied does not keep others from it.

    Args:
        tenants: None for all that the lake has anything of.
        now: UTC.

    Raises:
        MacrofleetError: what concerns all: the settings, the store.
    """
    from flows.settings import FlowSettings
    from registry.deletion.tombstones import buried_among
    from registry.errors import MacrofleetError
    from registry.fleet.state import in_threads
    from registry.names import check_tenant
    from registry.settings import read_settings
    from registry.tenant_settings import read_tenant_settings
    from training.lake import Lake
    from training.lake_retention import Tidied, tidy_lake

    store, settings = open_configured_store(), read_settings(FlowSettings)
    at = now or datetime.now(UTC)
    named = [check_tenant(name) for name in dict.fromkeys(tenants)] if tenants else Lake(store).owners()
    # Of what is left of those `garbage collect` takes care.
    deleted = buried_among(store, named)
    chosen = [name for name in named if name not in deleted]
    places = itertools.count(1)

    def one(tenant: str) -> Tidied | str:
        try:
            months = settings.overlaid(read_tenant_settings(store, tenant)).keep_months
            return tidy_lake(store, tenant, keep_months=months, now=at, write=not dry_run)
        except MacrofleetError as problem:
            return f"{tenant}: {problem}"
        finally:
            step("tidying the lake", next(places) / len(chosen))

    done = in_threads(one, chosen)
    return LakeTidied(
        dry_run=dry_run,
        tenants=tuple(each.as_dict() for each in done if not isinstance(each, str)),
        problems=tuple(each for each in done if isinstance(each, str)),
    )


def lake(
    tenants: Annotated[list[str] | None, typer.Argument(metavar="[TENANT…]", help="By default all of them.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would go; change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Remove tickets and feedback that are older than their tenant keeps them, and pack feedback's small objects.

    How long is MACROFLEET_KEEP_MONTHS (24), or a tenant's own: `tenants set acme --keep-months 12`. Whole months go.
    It may run at any time, and again after an interruption. Exit code 1 if a tenant could not be tidied.

    Example: macrofleet garbage lake --dry-run
    """
    with progress(as_json) as step:
        done = tidy_lakes(tenants, dry_run=dry_run, step=step)
    if as_json:
        print_json(done.as_dict())
    else:
        _report(done)
    if done.problems:
        raise typer.Exit(1)


def _report(done: LakeTidied) -> None:
    changed = [row for row in done.tenants if row["tickets"] or row["feedback"] or row["packed"] or row["hidden"]]
    names = ("tenant", "before", "tickets", "undated", "left", "feedback", "packed", "made", "hidden")
    if changed:
        print_table(names, [[str(row[name]) for name in names] for row in changed[:_SHOWN]])
    if len(changed) > _SHOWN:
        typer.echo(f"and {len(changed) - _SHOWN} more (--json lists them)")
    typer.echo(done.sentence())
    if undated := done.total("undated"):
        typer.echo(f"{undated} tickets have no time and stay")
    for problem in done.problems:
        typer.echo(f"left as it was: {problem}", err=True)
