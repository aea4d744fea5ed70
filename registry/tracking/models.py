"""MLflow, the control plane's record of models: a run and a version for each published bundle, and the aliases.

What MLflow holds is a description that knows where the bundle lies (`registry.flavour` loads it), never a copy of the
weights.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from registry.errors import InvalidInput, ModelNotFound
from registry.model.bundle import Manifest
from registry.settings import StoreSettings, TrackingSettings
from registry.store import open_store
from registry.tracking.artifact import ARTIFACT, artifact_template
from registry.tracking.connection import TrackingConnection, unless_gone
from registry.tracking.records import (
    BUNDLE_TAG,
    MANIFEST_TAG,
    PARENT_TAG,
    PREFIX,
    TENANT_TAG,
    VERSION_TAG,
    bundle_address,
    registered_model,
)
from registry.tracking.runs import FleetRuns

ALIASES = ("champion", "challenger")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NOT_IN_A_METRIC = re.compile(r"[^\w./ :-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Where a bundle stands in MLflow.

    Attributes:
        version: MLflow's version number, which counts a tenant's registrations; not the model version.
    """

    run_id: str
    registered_model: str
    version: str


class Tracking:
    """A tracking server, or an SQLite file, that records published bundles. May be used from any thread.

    What fails for the moment is tried again, a handful of times with jitter, before it is raised.

    Args:
        tracking_uri: `sqlite:///mlflow.db`, `http(s)://…` (credentials: `MLFLOW_TRACKING_USERNAME` and the like), or a
            database that MLflow knows (`postgresql://user:password@host/mlflow`; its driver is yours to install, and
            the password is shown nowhere).
        store: where the bundles lie. Its URL and endpoint are recorded, its keys never.
        experiment: MLflow's name for the list of runs; made if missing.
        experiment_per_run: an experiment for each fleet run, named `<experiment>/<run>`; otherwise a fleet run is one
            run in `experiment`. The runs of its models are nested in either.
        artifact_location: where a new experiment keeps its artifacts (some 3 kB a version): a folder or a URI such as
            `s3://bucket/prefix`, for which MLflow's own S3 client reads `MLFLOW_S3_ENDPOINT_URL` and `AWS_…`. By
            default a folder beside the SQLite file, and with a server what the server decides; a database needs one.

    Attributes:
        connection: for what reads MLflow in bulk or removes from it.
        runs: the fleet runs.

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
        experiment_per_run: bool = True,
        artifact_location: str | None = None,
    ) -> None:
        self.connection = TrackingConnection(tracking_uri, artifact_location)
        opened = open_store(store)
        self.runs = FleetRuns(self.connection, opened, experiment=experiment, own_experiments=experiment_per_run)
        self._store_url = opened.url
        self._endpoint_url = store.endpoint_url

    @classmethod
    def from_settings(cls, settings: TrackingSettings, store: StoreSettings) -> Self:
        """The one that settings name; nothing is connected to yet. Raises InvalidInput."""
        return cls(
            tracking_uri=settings.tracking_uri,
            store=store,
            experiment=settings.experiment,
            experiment_per_run=settings.experiment_per_run,
            artifact_location=settings.artifact_location,
        )

    def prepare(self) -> None:
        """Make or migrate the SQLite file, and the experiment. Again is quick and harmless; every method sees to it.

        Raises:
            TrackingUnavailable: MLflow cannot be reached or used.
        """
        self.runs.experiment_id()

    def register(
        self,
        manifest: Manifest,
        *,
        parameters: Mapping[str, str | int | float],
        tags: Mapping[str, str],
        git_revision: str | None = None,
        fleet_run: str | None = None,
    ) -> Registration:
        """Record a published bundle: a run with its metrics and settings, and a version of `macrofleet.<tenant>`.

        Again is harmless: the version is found by the manifest's digest, and nothing is written. What a crash left
        half done is a run that is marked as running, which `verify_fleet` closes; the next call starts another one.
        Two calls for one bundle at the same time may make two versions, of which every later call names the first: take
        the tenant's lease.

        Args:
            parameters: logged beside the manifest's settings, which win.
            tags: set on the run and the version; names that start with `macrofleet.` are ours.
            git_revision: of the code that trained the model.
            fleet_run: the name of the fleet run that it belongs to, if any.

        Raises:
            InvalidInput: a tag with a name of ours, or something that MLflow cannot take.
            StoreError: what the fleet run is in MLflow cannot be looked up.
            TrackingUnavailable: MLflow cannot be reached or used.
        """
        taken = sorted(name for name in tags if name.startswith((PREFIX, "mlflow.")))
        if taken:
            raise InvalidInput(f"the tag {taken[0]!r} cannot be set by hand", remedy="Choose another name for it.")
        known = self.find(manifest.tenant, manifest.digest)
        if known is not None:
            return known
        failure = "cannot register a model"
        all_tags = {**tags, **self._tags(manifest, git_revision)}
        run = self._start_run(manifest, all_tags, git_revision, fleet_run)
        run_id, artifacts = run.info.run_id, run.info.artifact_uri
        figures, settings = _figures(manifest), _settings(manifest, parameters)
        self.connection.ask(failure, lambda client: client.log_batch(run_id, metrics=figures, params=settings))
        self.connection.ask(failure, lambda _: self._log_model(artifacts, manifest, run_id))
        name = registered_model(manifest.tenant)
        self.connection.ask(failure, lambda client: _create_registered_model(client, name, manifest.tenant))
        version = self.connection.ask(failure, _VersionMaker(name, f"{artifacts}/{ARTIFACT}", run_id, all_tags))
        self.connection.ask(failure, lambda client: client.set_terminated(run_id))
        return Registration(run_id=run_id, registered_model=name, version=version)

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
                f"MLflow at {self.connection.shown} has no version of tenant {tenant} "
                f"with manifest {manifest_digest[:16]}…",
                remedy="Register it first.",
            )
        self.connection.ask(
            "cannot set an alias",
            lambda client: client.set_registered_model_alias(found.registered_model, alias, found.version),
        )

    def drop_alias(self, tenant: str, alias: str) -> None:
        """Take an alias away; taking away what is not there is not an error. Raises TrackingUnavailable."""
        name = registered_model(tenant)
        self.connection.ask(
            "cannot remove an alias",
            partial(unless_gone, lambda client: client.delete_registered_model_alias(name, alias)),
        )

    def drop_version(self, tenant: str, number: int, *, heir: int | None = None) -> None:
        """Remove one of MLflow's versions; its run stays. Removing what is not there is not an error.

        Args:
            heir: the version that its aliases go to; without one they go with it.

        Raises:
            TrackingUnavailable: MLflow cannot be reached or used.
        """
        name = registered_model(tenant)

        def drop(client: Any) -> None:
            if heir is not None:
                for alias in client.get_model_version(name, str(number)).aliases:
                    client.set_registered_model_alias(name, alias, str(heir))
            client.delete_model_version(name, str(number))

        self.connection.ask("cannot remove a version", partial(unless_gone, drop))

    def end_run(self, run_id: str, status: str) -> None:
        """Close a run that was left open; one that is gone is not an error. Raises TrackingUnavailable."""
        self.connection.ask(
            "cannot close a run", partial(unless_gone, lambda client: client.set_terminated(run_id, status))
        )

    def find(self, tenant: str, manifest_digest: str) -> Registration | None:
        """The registration of a bundle, the first one if there are several; None when it was never registered.

        Raises:
            TrackingUnavailable: MLflow cannot be reached or used.
        """
        name = registered_model(tenant)
        if not _DIGEST.fullmatch(manifest_digest):
            raise InvalidInput(f"{manifest_digest[:80]!r} is not a manifest's digest")
        first = self.connection.ask(
            "cannot look a model up", lambda client: _first_version(client, name, manifest_digest)
        )
        if first is None:
            return None
        return Registration(run_id=first.run_id, registered_model=name, version=str(first.version))

    def _start_run(
        self, manifest: Manifest, tags: Mapping[str, str], git_revision: str | None, fleet_run: str | None
    ) -> Any:
        """A run of its own; where the answer is lost, one that nobody closes is left behind."""
        parent = None if fleet_run is None else self.runs.get(fleet_run)
        experiment_id = self.runs.experiment_id() if parent is None else parent.experiment_id
        theirs = {
            **({"mlflow.source.git.commit": git_revision} if git_revision else {}),
            **({PARENT_TAG: parent.run_id} if parent else {}),
        }
        return self.connection.ask(
            "cannot register a model",
            lambda client: client.create_run(
                experiment_id, run_name=f"{manifest.tenant}/{manifest.version}", tags={**tags, **theirs}
            ),
        )

    def _tags(self, manifest: Manifest, git_revision: str | None) -> dict[str, str]:
        tags = {
            MANIFEST_TAG: manifest.digest,
            TENANT_TAG: manifest.tenant,
            VERSION_TAG: manifest.version,
            f"{PREFIX}data_fingerprint": manifest.data_fingerprint,
            f"{PREFIX}program": manifest.program,
            BUNDLE_TAG: bundle_address(self._store_url, manifest.tenant, manifest.version),
        }
        return {**tags, f"{PREFIX}git_revision": git_revision} if git_revision else tags

    def _log_model(self, artifact_uri: str, manifest: Manifest, run_id: str) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        config = {
            "store_url": self._store_url,
            "store_endpoint_url": self._endpoint_url,
            "tenant": manifest.tenant,
            "version": manifest.version,
            "manifest": manifest.digest,
        }
        with tempfile.TemporaryDirectory() as folder:
            artifact_template().write(Path(folder), run_id=run_id, config=config)
            # The client's own `log_artifacts` would ask for the run again to learn its URI.
            get_artifact_repository(artifact_uri, tracking_uri=self.connection.uri).log_artifacts(folder, ARTIFACT)


class _VersionMaker:
    """Makes a version of a registered model, once: the answer to an earlier attempt may have been lost."""

    def __init__(self, name: str, source: str, run_id: str, tags: Mapping[str, str]) -> None:
        self._name = name
        self._source = source
        self._run_id = run_id
        self._tags = dict(tags)
        self._tried = False

    def __call__(self, client: Any) -> str:
        made = _first_version(client, self._name, self._tags[MANIFEST_TAG]) if self._tried else None
        self._tried = True
        if made is None:
            made = client.create_model_version(
                self._name,
                self._source,
                self._run_id,
                tags=self._tags,
                # Such a version is ready at once; waiting for it would cost another request.
                await_creation_for=None,
            )
        return str(made.version)


def _first_version(client: Any, name: str, manifest_digest: str) -> Any:
    found = client.search_model_versions(f"name = '{name}' and tag.`{MANIFEST_TAG}` = '{manifest_digest}'")
    return min(found, key=lambda version: int(version.version), default=None)


def _create_registered_model(client: Any, name: str, tenant: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags={TENANT_TAG: tenant})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _figures(manifest: Manifest) -> list[Any]:
    """The metrics as MLflow takes them, all of one time: a second attempt writes the same rows."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    figures = {**manifest.metrics, "threshold": manifest.threshold}
    return [Metric(_metric_name(name), value, now, 0) for name, value in figures.items()]


def _settings(manifest: Manifest, parameters: Mapping[str, str | int | float]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, str(value)) for name, value in {**parameters, **manifest.settings}.items()]


def _metric_name(name: str) -> str:
    """`precision@1` as MLflow takes it: `precision_at_1`."""
    return _NOT_IN_A_METRIC.sub("_", name.replace("@", "_at_"))
