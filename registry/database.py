"""The control plane's database: SQLite by default, PostgreSQL where several machines write. Traffic does not need it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from registry.errors import DatabaseUnavailable, InvalidInput

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_SECONDS = 30
_CONNECT_SECONDS = 10
# "macrofle", so that two processes that find an old schema do not bring it up to date at once.
_LOCK = int.from_bytes(b"macrofle")
_REMEDY = "Use sqlite:///path/to/macrofleet.db or postgresql://user:password@host/macrofleet."


class DatabaseSettings(BaseSettings):
    """Where the control plane's database is: `MACROFLEET_DATABASE_URL`.

    Attributes:
        url: `sqlite:///path` or `postgresql://user:password@host/name`. Secret, since it may hold a password.
    """

    model_config = SettingsConfigDict(
        env_prefix="MACROFLEET_DATABASE_", frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    url: SecretStr = SecretStr("sqlite:///macrofleet-data/macrofleet.db")

    @property
    def file(self) -> Path | None:
        """The file, where it is SQLite. Raises InvalidInput."""
        url = _checked(self.url.get_secret_value())
        return Path(url.database) if url.drivername == "sqlite" and url.database else None


class Database:
    """A database, its schema brought up to date at the first use. Close it after use; threads may share it.

    Args:
        settings: where it is.

    Raises:
        InvalidInput: the address names no database that is supported.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        url = _checked(settings.url.get_secret_value())
        # A query may hold a password as well.
        self.place = url.set(query={}).render_as_string(hide_password=True)
        self._engine = _open(url)
        self._current = False

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction, which is committed at the end of the block and rolled back where that raises.

        On SQLite transactions come one after the other. On PostgreSQL each statement sees what was committed before it, so
        a transaction that must not have another one beside it begins by locking a row (an UPDATE, SELECT … FOR UPDATE).

        Raises:
            DatabaseUnavailable: the database cannot be reached, or fails.
            InvalidInput: its schema is of a later release.
        """
        from sqlalchemy.exc import DBAPIError

        try:
            if not self._current:
                _upgrade(self._engine, self.place)
                self._current = True
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as problem:
            raise DatabaseUnavailable(
                f"the database {self.place} fails ({_first_line(problem)})",
                remedy="Check MACROFLEET_DATABASE_URL and that the database can be reached.",
            ) from problem

    def close(self) -> None:
        """Let go of its connections."""
        self._engine.dispose()


@contextmanager
def opened_database(settings: DatabaseSettings) -> Iterator[Database]:
    """A `Database` that is closed at the end. Raises what it raises."""
    database = Database(settings)
    try:
        yield database
    finally:
        database.close()


def _checked(address: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise InvalidInput("MACROFLEET_DATABASE_URL is no address of a database", remedy=_REMEDY) from None
    if url.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return url.set(drivername="postgresql+psycopg")
    if url.drivername != "sqlite" or not url.database or url.database == ":memory:" or url.query:
        # Not repeated here: what stands before an @ is often a password.
        raise InvalidInput("MACROFLEET_DATABASE_URL names no database that is supported", remedy=_REMEDY)
    return url


def _open(url: URL) -> Engine:
    from sqlalchemy import create_engine, event

    if url.drivername != "sqlite":
        options = {"connect_timeout": _CONNECT_SECONDS, "application_name": "macrofleet"}
        return create_engine(url, isolation_level="READ COMMITTED", connect_args=options)
    file = Path(url.database or "")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InvalidInput(
            f"the folder of the database {file} cannot be made ({problem.strerror})",
            remedy="Set MACROFLEET_DATABASE_URL.",
        ) from problem
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})

    # Python's sqlite3 begins a transaction before it writes and not before it reads, so that two could read the same state
    # and both write. The library's documentation has it off, and the transaction begun by hand, for writing at once.
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = FULL")
        # What is deleted, a tenant's keys for one, is not to stay readable in the file.
        connection.execute("PRAGMA secure_delete = ON")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _upgrade(engine: Engine, place: str) -> None:
    """Bring the schema up to date, one process at a time."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError
    from sqlalchemy import text

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as problem:
            raise InvalidInput(
                f"the database {place} was changed by a later release of macrofleet", remedy="Use that release."
            ) from problem


def _first_line(problem: Exception) -> str:
    """What the driver says; the statement and its values are not shown."""
    said = str(getattr(problem, "orig", problem)).strip().splitlines()
    return said[0] if said else type(problem).__name__
