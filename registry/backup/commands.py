"""`macrofleet backup …`: the store, API keys and MLflow's records, kept elsewhere and brought back.

Nothing but typer is imported before a command runs.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.console_output import open_configured_store, print_json, print_table, progress

if TYPE_CHECKING:
    from registry.store import ObjectStore

backup = typer.Typer(
    no_args_is_help=True, help="Back up the store, API keys and MLflow's records, and bring them back."
)

Place = Annotated[
    str | None,
    typer.Option("--in", help="Where backups are: s3://bucket/prefix or a folder. [MACROFLEET_BACKUP_STORE_URL]"),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="As `macrofleet backup list` has it; or `latest`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


@backup.command("create")
def create(
    place: Place = None,
    keep: Annotated[int | None, typer.Option("--keep", min=1, help="Then remove all backups but the latest N.")] = None,
    as_json: Json = False,
) -> None:
    """Take a backup, while everything goes on. What the last one had already is not read again.

    Example: macrofleet backup create --in s3://macrofleet-backups --keep 30
    """
    from registry.backup.backups import prune_backups, take_backup
    from registry.backup.databases import dump_keys, dump_tracking
    from registry.database import DatabaseSettings
    from registry.settings import TrackingSettings, read_settings

    there = _open_place(place)
    uri = read_settings(TrackingSettings).tracking_uri
    with progress(as_json) as step:
        done = take_backup(
            open_configured_store(),
            there,
            dump_keys=dump_keys(read_settings(DatabaseSettings)),
            dump_tracking=dump_tracking(uri),
            step=step,
        )
        gone = prune_backups(there, keep=keep)[0] if keep is not None else ()
    if as_json:
        print_json(done.as_dict() | {"removed": list(gone)})
        return
    typer.echo(
        f"{done.name}: generation {done.generation} of the fleet, {done.objects} objects ({done.bytes / 1e6:.1f} MB, "
        f"{done.read} read), {', '.join(done.databases) or 'no databases'}"
    )
    if "mlflow.db" not in done.databases:
        typer.echo(
            "MLflow's records are no file of SQLite here: back them up where they are (docs/operations.md)", err=True
        )
    for name in gone:
        typer.echo(f"removed {name}")


@backup.command("list")
def list_backups(place: Place = None, as_json: Json = False) -> None:
    """The backups that there are, the latest first.

    Example: macrofleet backup list --in s3://macrofleet-backups
    """
    from registry.backup.documents import backup_names
    from registry.backup.lists import read_heading

    there = _open_place(place)
    rows: list[dict[str, Any]] = []
    for name in backup_names(there):
        found = read_heading(there, name)
        rows.append(
            {
                "name": name,
                "source": found.source,
                "generation": found.generation,
                "objects": found.objects,
                "bytes": found.bytes,
                "databases": sorted(found.databases),
            }
        )
    if as_json:
        print_json({"backups": rows})
        return
    print_table(
        ["name", "source", "generation", "objects", "MB", "databases"],
        [
            [
                row["name"],
                row["source"],
                str(row["generation"]),
                str(row["objects"]),
                f"{row['bytes'] / 1e6:.1f}",
                " ".join(row["databases"]),
            ]
            for row in rows
        ],
    )


@backup.command("check")
def check(name: Name, place: Place = None, as_json: Json = False) -> None:
    """Read every content of a backup. Exit code 1 if one is not there or not what it was.

    Example: macrofleet backup check latest --in s3://macrofleet-backups
    """
    from registry.backup.backups import check_backup

    there = _open_place(place)
    found = _named(there, name)
    with progress(as_json) as step:
        wrong = check_backup(there, found, step=step)
    if as_json:
        print_json({"name": found, "wrong": wrong})
    else:
        for key in wrong:
            typer.echo(f"wrong: {key}")
        typer.echo(f"{found}: {f'{len(wrong)} contents are wrong' if wrong else 'everything is as it was'}")
    if wrong:
        raise typer.Exit(1)


@backup.command("restore")
def restore(
    name: Name,
    place: Place = None,
    over: Annotated[
        bool, typer.Option("--over", help="Go back to it also where there is a fleet, keys, or MLflow's file already.")
    ] = False,
    store_only: Annotated[bool, typer.Option("--store-only", help="Leave the databases alone.")] = False,
    as_json: Json = False,
) -> None:
    """Bring back what a backup has: to the store, the key database and MLflow's file that the environment names.

    Tenants that a later backup knows to be deleted do not come back. An interrupted one is finished by running it again.

    Example: macrofleet backup restore latest --in s3://macrofleet-backups
    """
    from registry.backup.restoring import restore_store

    there = _open_place(place)
    found = _named(there, name)
    with progress(as_json) as step:
        done = restore_store(there, found, open_configured_store(), over=over, step=step)
        databases = {} if store_only else _restore_databases(there, found, over=over, without=done.deleted)
    if as_json:
        print_json(done.as_dict() | databases)
        return
    typer.echo(
        f"{found}: generation {done.generation} of the fleet, {done.written} objects written, {done.there} were there"
    )
    for tenant in done.deleted:
        typer.echo(f"left out {tenant}, which was deleted since")
    if "keys" in databases:
        typer.echo(
            f"{databases['keys']} API keys. Those revoked since the backup are valid again: look through `macrofleet keys "
            "list`, revoke them, then `macrofleet keys publish --force`"
        )
    typer.echo("now run `macrofleet fleet verify --repair`")


def _restore_databases(place: ObjectStore, name: str, *, over: bool, without: Collection[str]) -> dict[str, Any]:
    from registry.backup.databases import restore_keys, restore_tracking
    from registry.backup.documents import KEYS, TRACKING, fetch_content
    from registry.backup.lists import read_heading
    from registry.database import DatabaseSettings
    from registry.files import scratch_folder
    from registry.settings import TrackingSettings, read_settings

    kept = read_heading(place, name).databases
    told: dict[str, Any] = {}
    with scratch_folder("macrofleet-restore-") as folder:
        for part, content in kept.items():
            fetch_content(place, content, folder / part)
        if KEYS in kept:
            settings = read_settings(DatabaseSettings)
            told["keys"] = restore_keys(settings, (folder / KEYS).read_bytes(), over=over, without=without)
        if TRACKING in kept:
            uri = read_settings(TrackingSettings).tracking_uri
            told["tracking"] = restore_tracking(uri, folder / TRACKING, over=over)
    return told


def _named(place: ObjectStore, name: str) -> str:
    from registry.backup.documents import backup_names
    from registry.errors import InvalidInput

    if name != "latest":
        return name
    names = backup_names(place)
    if not names:
        raise InvalidInput(f"{place.url} has no backups", remedy="`macrofleet backup create` takes one.")
    return names[0]


def _open_place(place: str | None) -> ObjectStore:
    from registry.errors import InvalidInput
    from registry.settings import BackupStoreSettings, read_settings
    from registry.store import open_store

    settings = read_settings(BackupStoreSettings, **({} if place is None else {"url": place})).as_store()
    if settings is None:
        raise InvalidInput(
            "nobody says where backups are",
            remedy="Set MACROFLEET_BACKUP_STORE_URL, or give --in (with MACROFLEET_BACKUP_STORE_ENDPOINT_URL and the like).",
        )
    return open_store(settings)
