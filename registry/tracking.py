"""MLflow, the control plane's record of models: a run and a version for each published bundle, and the aliases.

What MLflow holds is a description that knows where the bundle lies (`registry.flavour` loads it), never a copy of the
weights. MLflow is imported when it is first needed: it takes seconds, and only processes that publish need it.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.bundle import Manifest
from registry.errors import InvalidInput, ModelNotFound, TrackingUnavailable
from registry.layout import models_prefix
from registry.names import check_tenant
from registry.settings import StoreSettings
from registry.store import open_store
from registry.tracking_address import SQLITE, checked_location, database_file, is_database, without_password
from registry.tracking_artifact import ARTIFACT, ArtifactTemplate, without_warnings

ALIASES = ("champion", "challenger")
MANIFEST_TAG = "macrofleet.manifest"
_PREFIX = "macrofleet."
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NOT_IN_A_METRIC = re.compile(r"[^\w./ :-]")
_DOWN_REMEDY = (
    "Check that MLflow runs at that address and takes these credentials, then run it again: serving does not need it, "
    "and what is already recorded is found."
)

# MLflow reads these whenever it needs them; what the operator has set stays.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A lock file in whatever folder the process was started in says nothing about a model.
    "MLFLOW_UV_AUTO_DETECT": "false",
    # Its own seven retries take four minutes to say that nobody listens.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Where a bundle stands in MLflow.

    Attributes:
        version: MLflow's version number, which counts a tenant's registrations; not the model version.
    """

    run_id: str
    registered_model: str
    version: str


@dataclass(frozen=True, slots=True)
class _Opened:
    client: Any
    experiment_id: str


class Tracking:
    """A tracking server, or an SQLite file, that records published bundles. May be used from any thread.

    Args:
        tracking_uri: `sqlite:///mlflow.db`, `http(s)://…` (credentials: `MLFLOW_TRACKING_USERNAME` and the like), or a
            database that MLflow knows (`postgresql://user:password@host/mlflow`; its driver is yours to install, and
            the password is shown nowhere).
        store: where the bundles lie. Its URL and endpoint are recorded, its keys never.
        experiment: MLflow's name for the list of runs; made if missing.
        artifact_location: where a new experiment keeps its artifacts (some 10 kB a version): a folder or a URI such as
            `s3://bucket/prefix`, for which MLflow's own S3 client reads `MLFLOW_S3_ENDPOINT_URL` and `AWS_…`. By
            default a folder beside the SQLite file, and with a server what the server decides; a database needs one.

    Raises:
        InvalidInput: a URI that names no place, or one that holds credentials.

    Example:
        >>> tracking = Tracking(tracking_uri="sqlite:///mlflow.db", store=StoreSettings())
        >>> tracking.register(manifest, parameters={}, tags={}).registered_model
        'macrofleet.acme'
    """

    def __init__(
        self,
        *,
        tracking_uri: str,
        store: StoreSettings,
        experiment: str = "macrofleet",
        artifact_location: str | None = None,
    ) -> None:
        self._database = database_file(tracking_uri)
        self._uri = f"{SQLITE}{self._database}" if self._database else tracking_uri
        self._shown = without_password(self._uri)
        if artifact_location is None and is_database(tracking_uri):
            raise InvalidInput(
                f"MLflow's database {self._shown} says nothing of where artifacts go",
                remedy="Set MACROFLEET_ARTIFACT_LOCATION to a folder or a URI such as s3://bucket/prefix.",
            )
        if artifact_location is None and self._database is not None:
            artifact_location = str(self._database.with_name(f"{self._database.stem}-artifacts"))
        self._artifact_location = None if artifact_location is None else checked_location(artifact_location)
        self._store_url = open_store(store).url
        self._endpoint_url = store.endpoint_url
        self._experiment = experiment
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._template: ArtifactTemplate | None = None

    @property
    def uri(self) -> str:
        """Where MLflow is; a database's has its password in it."""
        return self._uri

    @property
    def database(self) -> Path | None:
        """The SQLite file, where that is what MLflow keeps its records in."""
        return self._database

    @contextmanager
    def client(self, failure: str) -> Iterator[Any]:
        """MLflow's own client, for what is not here; what it raises becomes the domain's.

        Args:
            failure: what cannot be done then: "cannot delete a tenant".

        Raises:
            TrackingUnavailable: MLflow cannot be reached or used.
        """
        opened = self._open()
        with self._translated(failure):
            yield opened.client

    def prepare(self) -> None:
        """Make or migrate the SQLite file, and the experiment. Again is quick and harmless; every method sees to it.

        Raises:
            TrackingUnavailable: MLflow cannot be reached or used.
        """
        self._open()

    def register(
        self,
        manifest: Manifest,
        *,
        parameters: Mapping[str, str | int | float],
        tags: Mapping[str, str],
        git_revision: str | None = None,
    ) -> Registration:
        """Record a published bundle: a run with its metrics and settings, and a version of `macrofleet.<tenant>`.

        Again is harmless: the version is found by the manifest's digest, and nothing is written. What a crash left
        half done is a run without a version, marked as running; the next call starts another one. Two calls for one
        bundle at the same time may make two versions, of which every later call names the first: take the tenant's
        lease.

        Args:
            parameters: logged beside the manifest's settings, which win.
            tags: set on the run and the version; names that start with `macrofleet.` are ours.
            git_revision: of the code that trained the model.

        Raises:
            InvalidInput: a tag with a name of ours, or something that MLflow cannot take.
            TrackingUnavailable: MLflow cannot be reached or used.
        """
        taken = sorted(name for name in tags if name.startswith((_PREFIX, "mlflow.")))
        if taken:
            raise InvalidInput(f"the tag {taken[0]!r} cannot be set by hand", remedy="Choose another name for it.")
        known = self.find(manifest.tenant, manifest.digest)
        if known is not None:
            return known
        opened = self._open()
        name = registered_model(manifest.tenant)
        all_tags = {**tags, **self._tags(manifest, git_revision)}
        with self._translated("cannot register a model"):
            run = opened.client.create_run(
                opened.experiment_id,
                run_name=f"{manifest.tenant}/{manifest.version}",
                tags={**all_tags, **({"mlflow.source.git.commit": git_revision} if git_revision else {})},
            )
            run_id = run.info.run_id
            self._log_figures(opened, run_id, manifest, parameters)
            self._log_model(run.info.artifact_uri, manifest, run_id)
            self._create_registered_model(opened, name, manifest.tenant)
            made = opened.client.create_model_version(
                name,
                f"{run.info.artifact_uri}/{ARTIFACT}",
                run_id,
                tags=all_tags,
                # Such a version is ready at once; waiting for it would cost another request.
                await_creation_for=None,
            )
            opened.client.set_terminated(run_id)
        return Registration(run_id=run_id, registered_model=name, version=str(made.version))

    def set_alias(self, tenant: str, alias: str, *, manifest_digest: str) -> None:
        """Point `champion` or `challenger` at the version of a bundle.

        Raises:
            ModelNotFound: the bundle was never registered.
            InvalidInput: another alias.
            TrackingUnavailable: MLflow cannot be reached or used.
        """
        if alias not in ALIASES:
            raise InvalidInput(f"{alias[:80]!r} is no alias", remedy=f"Aliases: {', '.join(ALIASES)}.")
        found = self.find(tenant, manifest_digest)
        if found is None:
            raise ModelNotFound(
                f"MLflow at {self._shown} has no version of tenant {tenant} with manifest {manifest_digest[:16]}…",
                remedy="Register it first.",
            )
        with self._translated("cannot set an alias"):
            self._open().client.set_registered_model_alias(found.registered_model, alias, found.version)

    def find(self, tenant: str, manifest_digest: str) -> Registration | None:
        """The registration of a bundle, the first one if there are several; None when it was never registered.

        Raises:
            TrackingUnavailable: MLflow cannot be reached or used.
        """
        name = registered_model(tenant)
        if not _DIGEST.fullmatch(manifest_digest):
            raise InvalidInput(f"{manifest_digest[:80]!r} is not a manifest's digest")
        client = self._open().client
        with self._translated("cannot look a model up"):
            found = client.search_model_versions(f"name = '{name}' and tag.`{MANIFEST_TAG}` = '{manifest_digest}'")
        if not found:
            return None
        first = min(found, key=lambda version: int(version.version))
        return Registration(run_id=first.run_id, registered_model=name, version=str(first.version))

    def _tags(self, manifest: Manifest, git_revision: str | None) -> dict[str, str]:
        bundle = f"{self._store_url}/{models_prefix(manifest.tenant)}{manifest.version}"
        tags = {
            MANIFEST_TAG: manifest.digest,
            f"{_PREFIX}tenant": manifest.tenant,
            f"{_PREFIX}version": manifest.version,
            f"{_PREFIX}data_fingerprint": manifest.data_fingerprint,
            f"{_PREFIX}program": manifest.program,
            f"{_PREFIX}bundle": bundle,
        }
        return {**tags, f"{_PREFIX}git_revision": git_revision} if git_revision else tags

    def _log_figures(
        self, opened: _Opened, run_id: str, manifest: Manifest, parameters: Mapping[str, str | int | float]
    ) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        figures = {**manifest.metrics, "threshold": manifest.threshold}
        opened.client.log_batch(
            run_id,
            metrics=[Metric(_metric_name(name), value, now, 0) for name, value in figures.items()],
            params=[Param(name, str(value)) for name, value in {**parameters, **manifest.settings}.items()],
        )

    def _log_model(self, artifact_uri: str, manifest: Manifest, run_id: str) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        config = {
            "store_url": self._store_url,
            "store_endpoint_url": self._endpoint_url,
            "tenant": manifest.tenant,
            "version": manifest.version,
            "manifest": manifest.digest,
        }
        with self._lock:
            if self._template is None:
                self._template = ArtifactTemplate()
        with tempfile.TemporaryDirectory() as folder:
            self._template.write(Path(folder), run_id=run_id, config=config)
            # The client's own `log_artifacts` would ask for the run again to learn its URI.
            get_artifact_repository(artifact_uri, tracking_uri=self._uri).log_artifacts(folder, ARTIFACT)

    def _create_registered_model(self, opened: _Opened, name: str, tenant: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            opened.client.create_registered_model(name, tags={f"{_PREFIX}tenant": tenant})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _open(self) -> _Opened:
        with self._lock:
            if self._opened is None:
                for name, value in _ENVIRONMENT.items():
                    os.environ.setdefault(name, value)
                try:
                    from mlflow import MlflowClient
                except ImportError as error:
                    raise TrackingUnavailable("MLflow is not installed", remedy="Install macrofleet[flows].") from error
                with self._translated("cannot be opened"), without_warnings():
                    if self._database is not None:
                        _migrate(self._database, self._uri)
                    # A client of its own, since MLflow's current tracking server is one for the whole process.
                    client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
                    self._opened = _Opened(client, self._experiment_id(client))
            return self._opened

    def _experiment_id(self, client: Any) -> str:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(client.create_experiment(self._experiment, artifact_location=self._artifact_location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                # Another process made it in the meantime.
                found = client.get_experiment_by_name(self._experiment)
        return str(found.experiment_id)

    @contextmanager
    def _translated(self, failure: str) -> Iterator[None]:
        """MLflow's errors, and those of what it stands on (requests, SQLAlchemy, boto3), as the domain's."""
        try:
            yield
        except ModuleNotFoundError as error:
            raise TrackingUnavailable(
                f"MLflow at {self._shown} {failure} (there is no module {error.name})",
                remedy="Install the driver of that database.",
            ) from None
        except Exception as error:
            if not isinstance(error, _vendor_errors()):
                raise
            code = getattr(error, "error_code", type(error).__name__)
            # The chain is cut: what a driver says of an address may hold its password.
            cause = None if is_database(self._uri) else error
            if code == "INVALID_PARAMETER_VALUE":
                raise InvalidInput(f"MLflow does not take this: {str(error).splitlines()[0][:300]}") from cause
            raise TrackingUnavailable(f"MLflow at {self._shown} {failure} ({code})", remedy=_DOWN_REMEDY) from cause


def _vendor_errors() -> tuple[type[Exception], ...]:
    from alembic.util import CommandError
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # Those of requests are OSErrors.
    return (MlflowException, SQLAlchemyError, CommandError, OSError, Boto3Error, BotoCoreError, ClientError)


def registered_model(tenant: str) -> str:
    """MLflow's name for a tenant's models."""
    return f"{_PREFIX}{check_tenant(tenant)}"


def _metric_name(name: str) -> str:
    """`precision@1` as MLflow takes it: `precision_at_1`."""
    return _NOT_IN_A_METRIC.sub("_", name.replace("@", "_at_"))


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
