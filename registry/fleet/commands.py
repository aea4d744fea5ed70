"""`macrofleet fleet …`: desired state of the whole fleet, written from the command line; every replica follows it.

Nothing but typer is imported before a command runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.console_output import configured_operator_key, open_configured_store, print_json, print_table

if TYPE_CHECKING:
    from registry.fleet.state import FleetEdit, FleetEntry, PreloadPlan

fleet = typer.Typer(
    no_args_is_help=True, help="Say what every replica shall do: pins, limits, preload, roll-back, promotion."
)

Tenants = Annotated[list[str], typer.Argument(metavar="TENANT…", help="One or more; all are changed in one write.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would change; write nothing.")]

_SHOWN = 20


@fleet.command("show")
def show(
    tenants: Annotated[list[str] | None, typer.Argument(metavar="[TENANT…]", help="By default all.")] = None,
    as_json: Json = False,
) -> None:
    """What each tenant serves, what waits or runs beside it, what is pinned, limited and held, and the preload plan.

    Example: macrofleet fleet show acme globex
    """
    from registry.fleet.control import select
    from registry.fleet.state import read_fleet

    store = open_configured_store()
    found = read_fleet(store)
    entries = select(store, found, tenants) if tenants else dict(sorted(found.entries.items()))
    if as_json:
        rows = [{"tenant": tenant, **_row(entry)} for tenant, entry in entries.items()]
        print_json({"generation": found.generation, "preload": _plan(found.preload), "tenants": rows})
        return
    typer.echo(f"fleet generation {found.generation}; preload: {_plan_text(found.preload)}")
    print_table(
        ["tenant", "version", "previous", "candidate", "shadow", "rollout", "pinned", "limits", "held", "reason"],
        [
            [
                tenant,
                entry.version or "-",
                entry.previous or "-",
                entry.candidate or "",
                entry.shadow or "",
                _rollout_text(entry),
                "yes" if entry.keep_loaded else "",
                _limits_text(entry),
                "yes" if entry.hold_version else "",
                entry.reason or "",
            ]
            for tenant, entry in entries.items()
        ],
    )


@fleet.command("pin")
def pin(tenants: Tenants, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Keep tenants' models in memory everywhere: loaded before a replica is ready, and never evicted.

    Example: macrofleet fleet pin acme globex
    """
    from registry.fleet import control as fleet_control

    _report(fleet_control.pin(open_configured_store(), tenants, write=not dry_run), dry_run, as_json)


@fleet.command("unpin")
def unpin(tenants: Tenants, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Let tenants' models be evicted again.

    Example: macrofleet fleet unpin acme
    """
    from registry.fleet import control as fleet_control

    _report(fleet_control.pin(open_configured_store(), tenants, pinned=False, write=not dry_run), dry_run, as_json)


@fleet.command("limit")
def limit(
    tenants: Tenants,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Requests under way at once, on each replica.")
    ] = None,
    requests_per_second: Annotated[
        float | None, typer.Option(help="Over time, on each replica; a quarter of it, or up to ten, may come at once.")
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="No limits of their own: the replica's settings hold.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Say how much of each replica tenants may use. A limit that is not given stays as it is.

    Example: macrofleet fleet limit acme --concurrency 16 --requests-per-second 50
    """
    from registry.errors import InvalidInput
    from registry.fleet import control as fleet_control
    from registry.fleet.state import UNSET

    if none:
        if concurrency is not None or requests_per_second is not None:
            raise InvalidInput("--none excludes the other limits", remedy="Give either.")
        edited = fleet_control.unlimit(open_configured_store(), tenants, write=not dry_run)
    else:
        edited = fleet_control.limit(
            open_configured_store(),
            tenants,
            concurrency=UNSET if concurrency is None else concurrency,
            requests_per_second=UNSET if requests_per_second is None else requests_per_second,
            write=not dry_run,
        )
    _report(edited, dry_run, as_json)


@fleet.command("holdback")
def holdback(
    tenants: Tenants,
    share: Annotated[float | None, typer.Option("--share", help="0.03 holds back three of a hundred; 0 none.")] = None,
    none: Annotated[bool, typer.Option("--none", help="No share of their own: the replica's setting holds.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Say for which share of tickets agents see no suggestions, so that it is known what they do without.

    Example: macrofleet fleet holdback acme --share 0.05
    """
    from registry.errors import InvalidInput
    from registry.fleet import control as fleet_control

    if none == (share is not None):
        raise InvalidInput("it takes a share or --none", remedy="Give either: --share 0.03, say.")
    _report(fleet_control.hold_back(open_configured_store(), tenants, share, write=not dry_run), dry_run, as_json)


@fleet.command("preload")
def preload(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="all, pinned, share, none, top, bytes, or unset.")],
    bound: Annotated[
        str | None, typer.Argument(metavar="[N|SIZE]", help="For top: how many. For bytes: 8GiB, 500MB or digits.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Say what must be on a replica's disk before it is ready; `unset` leaves that to each replica's settings.

    Example: macrofleet fleet preload bytes 8GiB
    """
    from registry.errors import InvalidInput
    from registry.fleet import control as fleet_control

    if plan == "unset" and bound is not None:
        raise InvalidInput("the preload plan unset takes no bound", remedy="Write: macrofleet fleet preload unset.")
    wanted = None if plan == "unset" else fleet_control.make_plan(plan, bound)
    edited = fleet_control.set_preload(open_configured_store(), wanted, write=not dry_run)
    if as_json:
        print_json(
            {
                "generation": edited.generation,
                "dry_run": dry_run,
                "before": _plan(edited.preload_before),
                "after": _plan(edited.preload_after),
            }
        )
        return
    if edited.preload_before == edited.preload_after:
        typer.echo(f"preload: {_plan_text(edited.preload_after)}, as before")
    else:
        typer.echo(f"preload: {_plan_text(edited.preload_before)} -> {_plan_text(edited.preload_after)}")
    _say_generation(edited, dry_run)


@fleet.command("rollback")
def rollback(
    tenants: Tenants,
    to: Annotated[str | None, typer.Option("--to", metavar="VERSION", help="Instead of the previous version.")] = None,
    release: Annotated[
        bool, typer.Option("--release", help="Lift the hold: the next training run may change the version again.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Serve tenants' previous versions again, and hold them there: training does not undo it until --release.

    A tenant that is held already stays as it is, so that running this twice is running it once; --to moves it.

    Example: macrofleet fleet rollback acme
    """
    from registry.errors import InvalidInput
    from registry.fleet import control as fleet_control

    if release and to is not None:
        raise InvalidInput("--release and --to exclude each other", remedy="Roll back first, release later.")
    if release:
        edited = fleet_control.release(open_configured_store(), tenants, write=not dry_run)
    else:
        edited = fleet_control.roll_back(open_configured_store(), tenants, to=to, write=not dry_run)
    _report(edited, dry_run, as_json)


@fleet.command("promote")
def promote(
    tenants: Tenants,
    version: Annotated[
        str | None, typer.Option("--version", metavar="VERSION", help="Where a candidate and a shadow differ.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Have the version that waits as a candidate, or runs as a shadow, serve.

    What served becomes the previous version (`fleet rollback` goes back to it), and a hold is lifted.

    Example: macrofleet fleet promote acme
    """
    from registry.fleet import control as fleet_control

    edited = fleet_control.promote(open_configured_store(), tenants, version=version, write=not dry_run)
    _report(edited, dry_run, as_json)


@fleet.command("shadow")
def shadow(
    tenants: Tenants,
    version: Annotated[
        str | None, typer.Option("--version", metavar="VERSION", help="Of the one tenant that is named.")
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help="End the comparison.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Have servers load a version beside the one that serves and compare the two, without showing it to anybody.

    Example: macrofleet fleet shadow acme --version 0123456789abcdef
    """
    from registry.errors import InvalidInput
    from registry.fleet import control as fleet_control

    if stop == (version is not None):
        raise InvalidInput("give either --version or --stop", remedy="`macrofleet fleet show` lists candidates.")
    if version is None:
        edited = fleet_control.stop_shadow(open_configured_store(), tenants, write=not dry_run)
    elif len(tenants) > 1:
        raise InvalidInput("--version names a version of one tenant", remedy="Do the others in a command each.")
    else:
        edited = fleet_control.set_shadow(open_configured_store(), tenants[0], version, write=not dry_run)
    _report(edited, dry_run, as_json)


@fleet.command("refresh")
def refresh(
    urls: Annotated[list[str], typer.Argument(metavar="URL…", help="Operator addresses of replicas.")],
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds to wait for each.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Have replicas read the fleet now, instead of at their next poll. Exit code 1 if one of them did not.

    They are asked with MACROFLEET_OPERATOR_KEY.

    Example: macrofleet fleet refresh http://127.0.0.1:8001
    """
    from registry.replicas import refresh_replicas

    answers = refresh_replicas(urls, key=configured_operator_key(), timeout_seconds=timeout)
    if as_json:
        rows = [{"url": one.url, "generation": one.generation, "problem": one.problem} for one in answers]
        print_json({"replicas": rows})
    else:
        for one in answers:
            if one.problem is None:
                typer.echo(f"{one.url}: generation {one.generation}")
            else:
                typer.echo(f"{one.url}: {one.problem}", err=True)
    if any(one.problem is not None for one in answers):
        raise typer.Exit(1)


def _report(edited: FleetEdit, dry_run: bool, as_json: bool) -> None:
    """What an edit changed, tenant by tenant."""
    changed = {tenant: _differences(edited, tenant) for tenant in edited.changed()}
    unchanged = sorted(tenant for tenant in edited.after if tenant not in changed)
    if as_json:
        rows = [
            {"tenant": tenant, "before": dict(before), "after": dict(after)}
            for tenant, (before, after) in changed.items()
        ]
        print_json({"generation": edited.generation, "dry_run": dry_run, "changed": rows, "unchanged": unchanged})
        return
    for tenant, (before, after) in list(changed.items())[:_SHOWN]:
        steps = (f"{name} {_text(before[name])} -> {_text(after[name])}" for name in before)
        typer.echo(f"{tenant}: {', '.join(steps)}")
    if len(changed) > _SHOWN:
        typer.echo(f"and {len(changed) - _SHOWN} more (--json lists them)")
    if unchanged:
        named = ", ".join(unchanged[:_SHOWN]) + (", …" if len(unchanged) > _SHOWN else "")
        typer.echo(f"as before: {len(unchanged)} ({named})")
    _say_generation(edited, dry_run)


def _say_generation(edited: FleetEdit, dry_run: bool) -> None:
    typer.echo(f"fleet generation {edited.generation}" + ("; nothing was written (--dry-run)" if dry_run else ""))


def _differences(edited: FleetEdit, tenant: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    was, now = edited.before[tenant], edited.after[tenant]
    before = _row(was) if was else {}
    after = _row(now) if now else {}
    names = [name for name in after if before.get(name) != after[name] and "manifest" not in name]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


def _row(entry: FleetEntry) -> dict[str, Any]:
    limits = entry.limits
    return {
        "version": entry.version,
        "manifest": entry.manifest,
        "previous": entry.previous,
        "previous_manifest": entry.previous_manifest,
        "candidate": entry.candidate,
        "candidate_manifest": entry.candidate_manifest,
        "shadow": entry.shadow,
        "shadow_manifest": entry.shadow_manifest,
        "rollout": _rollout_text(entry) or None,
        "pinned": entry.keep_loaded,
        "held": entry.hold_version,
        "limits": limits.model_dump(mode="json", exclude_none=True) if limits else None,
        "holdback": entry.holdback,
        "reason": entry.reason,
    }


def _rollout_text(entry: FleetEntry) -> str:
    """What a staged roll-out says of a tenant: its version is on trial, or another one was taken back."""
    rollout = entry.rollout
    if rollout is None:
        return ""
    return rollout.stage if rollout.version == entry.version else f"{rollout.stage} {rollout.version}"


def _limits_text(entry: FleetEntry) -> str:
    limits = entry.limits
    if limits is None:
        return ""
    at_once = [] if limits.concurrency is None else [f"{limits.concurrency} at once"]
    rate = [] if limits.requests_per_second is None else [f"{limits.requests_per_second:g}/s"]
    return ", ".join(at_once + rate)


def _plan(plan: PreloadPlan | None) -> dict[str, Any] | None:
    return plan.model_dump(mode="json", exclude_none=True) if plan else None


def _plan_text(plan: PreloadPlan | None) -> str:
    if plan is None:
        return "unset (each replica's settings)"
    return " ".join(str(part) for part in (plan.models, plan.top, plan.bytes) if part is not None)


def _text(value: Any) -> str:
    """A value of a report in a sentence."""
    if value is None or value is False:
        return "no" if value is False else "none"
    if value is True:
        return "yes"
    if isinstance(value, dict):
        return " ".join(f"{name}={part}" for name, part in value.items()) or "none"
    return str(value)
