"""The control plane's databases in a backup: API keys as rows, for any kind of database; MLflow's records where they are a file.

What MLflow keeps in PostgreSQL is PostgreSQL's to back up (`pg_dump`, or whoever runs it); and `macrofleet fleet verify --repair`
registers again what serves, from the store.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.backup.documents import KeysDump
from registry.database import Database, DatabaseSettings, opened_database
from registry.errors import BackupCorrupt, DatabaseUnavailable, InvalidInput
from registry.files import content_digest, sync_file, sync_folder
from registry.tracking.address import SQLITE

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy import Connection

# The database may hold others' tables as well.
_OURS = ("access_state", "api_keys")
_PATIENCE_SECONDS = 30.0


def dump_keys(settings: DatabaseSettings) -> Callable[[Path], bool]:
    """What writes all keys (their digests: nobody has the keys) to a file. There is nothing where SQLite has no file yet."""

    def dump(path: Path) -> bool:
        if settings.file is not None and not settings.file.exists():
            return False
        with opened_database(settings) as database:
            path.write_bytes(_read_rows(database).to_bytes())
        return True

    return dump


def restore_keys(settings: DatabaseSettings, data: bytes, *, over: bool = False, without: Collection[str] = ()) -> int:
    """Bring keys back, into a database of any kind that is supported.

    Args:
        over: also into one that has keys, which go.
        without: tenants that were deleted since, whose keys stay away.

    Returns:
        How many there are.

    Raises:
        InvalidInput: the database has keys, or the backup is of a later release.
        BackupCorrupt: the backup cannot be read.
        DatabaseUnavailable: the database fails.
    """
    import sqlalchemy as sa

    dumped = KeysDump.parse(data, what="the backup's API keys", error=BackupCorrupt).tables
    # What a release before this one backed up may have others' tables in it.
    rows = {
        name: tuple(row for row in found if row.get("tenant") not in without)
        for name, found in dumped.items()
        if name in _OURS
    }
    with opened_database(settings) as database, database.begin() as connection:
        tables = _tables(connection)
        for name, found in rows.items():
            if name not in tables or any(set(row) - set(tables[name].columns.keys()) for row in found):
                raise InvalidInput(
                    f"the backup's {name} is of a later release of macrofleet", remedy="Restore it with that release."
                )
        if _rows(connection, tables) == rows:
            return len(rows.get("api_keys", ()))
        there = connection.execute(sa.select(sa.func.count()).select_from(tables["api_keys"])).scalar_one()
        if there and not over:
            raise InvalidInput(
                f"the database {database.place} has {there} keys",
                remedy="Restore to an empty database, or give --over: keys that were made since the backup are lost then.",
            )
        for name, table in tables.items():
            connection.execute(table.delete())
            if rows.get(name):
                connection.execute(table.insert(), [dict(row) for row in rows[name]])
            last = connection.execute(sa.select(sa.func.max(table.c.id))).scalar_one() if "id" in table.c else None
            if connection.dialect.name == "postgresql" and last is not None:
                # Rows that came with their numbers have not moved what new ones are numbered by.
                connection.execute(sa.select(sa.func.setval(sa.func.pg_get_serial_sequence(name, "id"), last)))
        return len(rows.get("api_keys", ()))


def _read_rows(database: Database) -> KeysDump:
    with database.begin() as connection:
        return KeysDump(tables=_rows(connection, _tables(connection)))


def _rows(connection: Connection, tables: Mapping[str, sa.Table]) -> dict[str, tuple[dict[str, Any], ...]]:
    return {
        name: tuple(dict(row) for row in connection.execute(table.select().order_by(*table.primary_key)).mappings())
        for name, table in tables.items()
    }


def _tables(connection: Connection) -> dict[str, sa.Table]:
    import sqlalchemy as sa

    metadata = sa.MetaData()
    metadata.reflect(bind=connection, only=_OURS)
    return {table.name: table for table in metadata.sorted_tables if table.name in _OURS}


def tracking_file(uri: str) -> Path | None:
    """The file of SQLite that MLflow's records are in; None where they are elsewhere."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def dump_tracking(uri: str) -> Callable[[Path], bool]:
    """What copies MLflow's file as it is at one moment, while others write. There is nothing where it is no file, or none yet."""

    def dump(path: Path) -> bool:
        file = tracking_file(uri)
        if file is None or not file.exists():
            return False
        try:
            with (
                closing(
                    sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE_SECONDS)
                ) as there,
                closing(sqlite3.connect(path)) as here,
            ):
                there.backup(here)
        except sqlite3.Error as problem:
            raise DatabaseUnavailable(f"MLflow's records in {file} cannot be copied ({problem})") from problem
        return True

    return dump


def restore_tracking(uri: str, path: Path, *, over: bool = False) -> bool:
    """Put MLflow's file in its place. MLflow must not run on it.

    Returns:
        False where its records are not in a file, so that nothing was done.

    Raises:
        InvalidInput: there is one.
    """
    file = tracking_file(uri)
    if file is None:
        return False
    if file.exists() and content_digest(file) == content_digest(path):
        return True
    if file.exists() and not over:
        raise InvalidInput(f"{file} is there already", remedy="Move it away, or give --over.")
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.restored")
    shutil.copyfile(path, beside)
    sync_file(beside)
    for journal in ("-wal", "-shm", "-journal"):
        file.with_name(file.name + journal).unlink(missing_ok=True)
    beside.replace(file)
    sync_folder(file.parent)
    return True
