"""The way to MLflow: one client, opened when first needed; its errors as the domain's; what may pass is tried again.

MLflow is imported when it is first needed: it takes seconds, and only processes that publish or verify need it.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from registry.errors import InvalidInput, TrackingUnavailable
from registry.files import FULL
from registry.retrying import patiently
from registry.tracking.address import SQLITE, checked_location, database_file, is_database, without_password
from registry.tracking.artifact import without_warnings

Result = TypeVar("Result")

_DOWN_REMEDY = (
    "Check that MLflow runs at that address and takes these credentials, then run it again: serving does not need it, "
    "and what is already recorded is found."
)
_OLD_REMEDY = "Back it up, then run `mlflow db upgrade` with its address, while nothing else uses it."
_FULL_REMEDY = "Free some space there, then run it again: what is already recorded is found."
_ATTEMPTS = 5
# SQLite's own words and PostgreSQL's.
_FULL_WORDS = ("disk is full", "No space left on device")
# A server that fails, is overloaded or not there (MLflow's client calls each of them an internal error), and a database
# that does not answer or is locked.
_MAY_PASS = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"}
)
# Of everybody who makes MLflow's tables in one PostgreSQL database; any number will do.
_TABLES_LOCK = 0x6D616372

# MLflow reads these whenever it needs them; what the operator has set stays.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A lock file in whatever folder the process was started in says nothing about a model.
    "MLFLOW_UV_AUTO_DETECT": "false",
    # Retries are ours: MLflow's would repeat a request whose answer was lost, and so make a second version of a model. They
    # are for the whole process: MLflow takes them from nowhere else, and to change the environment around each call is
    # not safe beside threads of TensorFlow's that read it.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class TrackingConnection:
    """A tracking server or database. May be used from any thread.

    Args:
        tracking_uri, artifact_location: as `registry.tracking.models.Tracking` takes them.

    Raises:
        InvalidInput: a URI that names no place, or one that holds credentials.
    """

    def __init__(self, tracking_uri: str, artifact_location: str | None) -> None:
        self.database = database_file(tracking_uri)
        self.uri = f"{SQLITE}{self.database}" if self.database else tracking_uri
        self.shown = without_password(self.uri)
        if artifact_location is None and is_database(tracking_uri):
            raise InvalidInput(
                f"MLflow's database {self.shown} says nothing of where artifacts go",
                remedy="Set MACROFLEET_ARTIFACT_LOCATION to a folder or a URI such as s3://bucket/prefix.",
            )
        if artifact_location is None and self.database is not None:
            artifact_location = str(self.database.with_name(f"{self.database.stem}-artifacts"))
        self.artifact_location = None if artifact_location is None else checked_location(artifact_location)
        self._lock = threading.Lock()
        self._client: Any = None
        self._waited_in_vain = False

    def ask(self, failure: str, work: Callable[[Any], Result]) -> Result:
        """What `work` makes of MLflow's client. It is called again where the failure may pass, so again must be harmless.

        Whoever has waited in vain once asks the next time without waiting: a fleet of thousands must not wait for each
        tenant. The first answer restores the patience.

        Args:
            failure: what could not be done, as the end of a sentence: "cannot set an alias".

        Raises:
            InvalidInput: MLflow does not take what it was given.
            TrackingUnavailable: MLflow cannot be reached or used.
        """

        def attempt() -> Result:
            client = self._opened()
            with self._translated(failure):
                return work(client)

        try:
            answer = patiently(attempt, on=_MayPass, attempts=1 if self._waited_in_vain else _ATTEMPTS)
        except _MayPass:
            self._waited_in_vain = True
            raise
        self._waited_in_vain = False
        return answer

    def _opened(self) -> Any:
        with self._lock:
            if self._client is None:
                for name, value in _ENVIRONMENT.items():
                    os.environ.setdefault(name, value)
                try:
                    from mlflow import MlflowClient
                except ImportError as error:
                    raise TrackingUnavailable("MLflow is not installed", remedy="Install macrofleet[flows].") from error
                with self._translated("cannot be opened"), without_warnings():
                    if self.database is not None:
                        _migrate(self.database, self.uri)
                    elif is_database(self.uri):
                        _make_tables(self.uri)
                    # A client of its own, since MLflow's current tracking server is one for the whole process.
                    client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
                    # It opens the registry's database when it first asks it, and for one that is not there by then would
                    # try for a minute and a half, several times.
                    client._get_registry_client()
                    self._client = client
            return self._client

    @contextmanager
    def _translated(self, failure: str) -> Iterator[None]:
        """MLflow's errors, and those of what it stands on (requests, SQLAlchemy, boto3), as the domain's."""
        try:
            yield
        except ModuleNotFoundError as error:
            raise TrackingUnavailable(
                f"MLflow at {self.shown} {failure} (there is no module {error.name})",
                remedy="Install the driver of that database.",
            ) from None
        except Exception as error:
            if not isinstance(error, _vendor_errors()):
                raise
            # The chain is cut: what a driver says of an address may hold its password.
            cause = None if is_database(self.uri) else error
            code = getattr(error, "error_code", type(error).__name__)
            if code == "INVALID_PARAMETER_VALUE":
                raise InvalidInput(f"MLflow does not take this: {str(error).splitlines()[0][:300]}") from cause
            if _is_full(error):
                raise TrackingUnavailable(
                    f"MLflow at {self.shown} {failure}: there is no space left on its disk", remedy=_FULL_REMEDY
                ) from cause
            if "mlflow db upgrade" in str(error):
                raise TrackingUnavailable(
                    f"MLflow at {self.shown} {failure}: its database is of another version of MLflow",
                    remedy=_OLD_REMEDY,
                ) from cause
            kind = _MayPass if self._may_pass(error, code) else TrackingUnavailable
            raise kind(f"MLflow at {self.shown} {failure} ({code})", remedy=_DOWN_REMEDY) from cause

    def _may_pass(self, error: Exception, code: str) -> bool:
        """Whether another attempt may do better. What boto3 raises, of artifacts in S3, it has tried again already."""
        from requests import RequestException
        from sqlalchemy.exc import OperationalError

        if self.database is not None:
            # A file that cannot be opened stays so; only another writer goes away.
            return "locked" in str(error)
        return code in _MAY_PASS or isinstance(error, RequestException | OperationalError)


class _MayPass(TrackingUnavailable):
    """MLflow fails as it may not do in a moment; to everybody outside a TrackingUnavailable like any other."""


def unless_gone(work: Callable[[Any], object], client: Any) -> None:
    """Do `work` with the client; that what it is about is not there is no error: an earlier attempt may have removed it."""
    from mlflow.exceptions import MlflowException

    try:
        work(client)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _is_full(error: Exception) -> bool:
    full = isinstance(error, OSError) and error.errno in FULL
    return full or any(words in str(error) for words in _FULL_WORDS)


def _vendor_errors() -> tuple[type[Exception], ...]:
    from alembic.util import CommandError
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # Those of requests are OSErrors.
    return (MlflowException, SQLAlchemyError, CommandError, OSError, Boto3Error, BotoCoreError, ClientError)


def _migrate(database: Path, uri: str) -> None:
    """Bring an SQLite file to MLflow's current schema, one process at a time: two at once on a new file crash."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{database}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        import sqlalchemy
        from mlflow.store.db import utils

        engine = sqlalchemy.create_engine(uri)
        try:
            # Fails at once where MLflow, for a file that cannot be opened, would try for a minute and a half.
            with engine.connect() as connection:
                # Readers beside a writer, and a fifth off a registration; the file keeps the mode.
                connection.execute(sqlalchemy.text("PRAGMA journal_mode = WAL"))
            if utils._is_empty_database(engine):
                utils._initialize_tables(engine)
            elif utils._get_schema_version(engine) != utils._get_latest_schema_revision():
                utils._upgrade_db(engine)
        finally:
            engine.dispose()


def _make_tables(uri: str) -> None:
    """Make MLflow's tables in an empty database, one process at a time.

    A database with an older schema is its owner's to upgrade (`mlflow db upgrade`): others may be using it.
    """
    import sqlalchemy
    from mlflow.store.db import utils

    engine = sqlalchemy.create_engine(uri)
    try:
        # Fails at once where MLflow, for a server that is not there, would try for a minute and a half.
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                # Until this connection is closed; other servers are left to MLflow's own lock, on one machine.
                connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": _TABLES_LOCK})
            if utils._is_empty_database(engine):
                utils._initialize_tables(engine)
    finally:
        engine.dispose()
