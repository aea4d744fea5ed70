"""`macrofleet regions …`: a copy of the store in another region.

Nothing but typer is imported before a command runs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.console_output import open_configured_store, print_json, progress

if TYPE_CHECKING:
    from registry.store import ObjectStore

regions = typer.Typer(no_args_is_help=True, help="Keep a copy of the store in another region, and serve from it.")

To = Annotated[
    str | None, typer.Option("--to", help="The copy: s3://bucket/prefix or a folder. [MACROFLEET_COPY_STORE_URL]")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


@regions.command("copy")
def copy(
    to: To = None,
    every: Annotated[
        float | None, typer.Option("--every", min=1, help="Again so many seconds after each copy, until SIGTERM.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Look at every model, not only where the fleet changed.")
    ] = False,
    collect: Annotated[
        bool, typer.Option("--collect", help="Then delete there what `macrofleet garbage collect` would.")
    ] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Replace a fleet there that is not this store's copy, or is ahead of it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring a copy up to date: models first, the fleet last, so that it is whole at any moment. Safe to interrupt and repeat.

    Exit code 1 if something that the fleet names is not whole in the store: all else is copied, and this is named.
    Tickets, feedback and records of runs are not copied: see `macrofleet backup`.

    Example: macrofleet regions copy --to s3://macrofleet-west --every 30
    """
    from registry.errors import InvalidInput, MacrofleetError

    if every is not None and adopt:
        raise InvalidInput("--adopt is for once, and --every for always", remedy="Run it once with --adopt first.")
    source, destination = open_configured_store(), _open_copy(to)
    while True:
        try:
            whole = _copy_once(
                source, destination, everything=everything, collect=collect, adopt=adopt, as_json=as_json
            )
            if every is None and not whole:
                raise typer.Exit(1)
        except InvalidInput:
            raise  # which stays so until somebody does something
        except MacrofleetError as problem:
            if every is None:
                raise
            typer.echo(f"macrofleet: {problem}", err=True)
        if every is None:
            return
        time.sleep(every)


@regions.command("status")
def status(to: To = None, as_json: Json = False) -> None:
    """How far the copy is behind. Exit code 1 if it has another generation of the fleet than the store.

    Example: macrofleet regions status --to s3://macrofleet-west --json
    """
    from registry.fleet.at_rest import read_root
    from registry.regions.marks import place_of, read_mark

    source, destination = open_configured_store(), _open_copy(to)
    mark = read_mark(destination)
    ours, theirs = read_root(source).generation, read_root(destination).generation
    finished = mark.finished_at if mark is not None else 0.0
    told: dict[str, Any] = {
        "source": place_of(source),
        "copy": place_of(destination),
        "copy_of": mark.source if mark is not None else None,
        "generation": ours,
        "copy_generation": theirs,
        "age_seconds": round(max(time.time() - finished, 0.0), 1) if finished else None,
    }
    if as_json:
        print_json(told)
    else:
        age = "never finished" if told["age_seconds"] is None else f"finished {told['age_seconds']:.0f} s ago"
        whose = f"a copy of {mark.source}, {age}" if mark is not None else "no copy"
        typer.echo(f"{source.url}: generation {ours}")
        typer.echo(f"{destination.url}: generation {theirs}, {whose}")
    if mark is None or mark.source != place_of(source) or ours != theirs:
        raise typer.Exit(1)


@regions.command("promote")
def promote(to: To = None, as_json: Json = False) -> None:
    """Make a home of the copy, where the store is lost: nobody copies over it any more, and it may be written and copied from.

    Example: macrofleet regions promote --to s3://macrofleet-west
    """
    from registry.regions.marks import promote as promote_copy

    destination = _open_copy(to)
    was = promote_copy(destination)
    if as_json:
        print_json({"store": destination.url, "was_copy_of": was.source, "generation": was.generation})
    else:
        typer.echo(f"{destination.url} is a home of its own now, no copy of {was.source} any more")
        typer.echo("set MACROFLEET_STORE_URL to it everywhere, then run macrofleet keys publish --force")


def _copy_once(
    source: ObjectStore, destination: ObjectStore, *, everything: bool, collect: bool, adopt: bool, as_json: bool
) -> bool:
    """Copy, and tell of it. Returns whether all was whole."""
    from registry.garbage.store_garbage import collect_garbage
    from registry.regions.copying import copy_region

    with progress(as_json) as step:
        done = copy_region(source, destination, everything=everything, adopt=adopt, step=step)
        gone = collect_garbage(destination, step=step) if collect else None
    if as_json:
        print_json(done.as_dict() | {"collected": len(gone.deleted) if gone else None})
        return done.whole
    typer.echo(
        f"{destination.url} has generation {done.generation} (was {done.before}): copied {done.models} models and "
        f"{done.documents} other objects, removed {done.removed}"
        + (f", and {len(gone.deleted)} old models" if gone else "")
    )
    for tenant in done.tenants_removed:
        typer.echo(f"removed {tenant}, which was deleted")
    for version in done.missing:
        typer.echo(f"not in the store: {version}, which the fleet names and nobody is served", err=True)
    for version in done.damaged:
        typer.echo(f"damaged, and not copied: {version}. Nobody is served it", err=True)
    return done.whole


def _open_copy(to: str | None) -> ObjectStore:
    from registry.errors import InvalidInput
    from registry.settings import CopyStoreSettings, read_settings
    from registry.store import open_store

    settings = read_settings(CopyStoreSettings, **({} if to is None else {"url": to})).as_store()
    if settings is None:
        raise InvalidInput(
            "nobody says where the copy is",
            remedy="Set MACROFLEET_COPY_STORE_URL, or give --to (with MACROFLEET_COPY_STORE_ENDPOINT_URL and the like).",
        )
    return open_store(settings)
