"""Settings that more than one room reads, each from the environment; made once, where a process is composed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from registry.errors import InvalidInput
from registry.names import is_tenant

Settings = TypeVar("Settings", bound=BaseSettings)


def read_settings(kind: type[Settings], **given: Any) -> Settings:
    """Settings from the environment, `given` before it.

    Raises:
        InvalidInput: one cannot be used; names its variable, never its value.
    """
    try:
        return kind(**given)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        variable = f"{kind.model_config.get('env_prefix', '')}{name}".upper()
        raise InvalidInput(
            f"the setting {variable} cannot be used: {first['msg']}", remedy="Mend it or unset it."
        ) from None


def user_cache() -> Path:
    """Where the disk tier lies by default: a folder of this user's alone, since who can write there can replace a model."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "macrofleet"


class StoreSettings(BaseSettings):
    """Where the object store is: `MACROFLEET_STORE_URL` and so on. `registry.store.open_store` opens it.

    Attributes:
        url: `s3://bucket/prefix`, `file:///folder` or the path of a folder (the default, below the working folder).
        endpoint_url: an S3 server other than Amazon's.
        region: None leaves it to boto3.
        access_key: None, together with `secret_key`, leaves the credentials to boto3's chain.
    """

    model_config = SettingsConfigDict(
        env_prefix="MACROFLEET_STORE_", frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    url: str = "macrofleet-data/store"
    endpoint_url: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: SecretStr | None = None


class CopyStoreSettings(BaseSettings):
    """Where a copy of the store is, in another region: `MACROFLEET_COPY_STORE_URL` and so on, as `StoreSettings` has them.

    Attributes:
        url: None where there is no copy.
    """

    model_config = SettingsConfigDict(
        env_prefix="MACROFLEET_COPY_STORE_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    url: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: SecretStr | None = None

    def as_store(self) -> StoreSettings | None:
        """What `open_store` takes; None where there is no copy."""
        if self.url is None:
            return None
        return StoreSettings(
            url=self.url,
            endpoint_url=self.endpoint_url,
            region=self.region,
            access_key=self.access_key,
            secret_key=self.secret_key,
        )


class BackupStoreSettings(CopyStoreSettings):
    """Where backups are: `MACROFLEET_BACKUP_STORE_URL` and so on."""

    model_config = SettingsConfigDict(env_prefix="MACROFLEET_BACKUP_STORE_")


class TrackingSettings(BaseSettings):
    """Where MLflow is: `MACROFLEET_TRACKING_URI` and so on; `registry.tracking.models.Tracking` says what each may be.

    Attributes:
        tracking_uri: a file of SQLite by default.
        artifact_location: where MLflow keeps its (small) artifacts; None puts them beside the SQLite file.
        experiment: MLflow's name for the runs.
        experiment_per_run: an experiment below that name for each run of the fleet.
    """

    model_config = SettingsConfigDict(env_prefix="MACROFLEET_", frozen=True, extra="ignore", hide_input_in_errors=True)

    tracking_uri: str = "sqlite:///macrofleet-data/mlflow.db"
    artifact_location: str | None = None
    experiment: str = "macrofleet"
    experiment_per_run: bool = True


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _are_tenants(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(map(is_tenant, value)):
        raise ValueError("one of them cannot be the name of a tenant")
    return value


# Which tenants metrics tell of by name, at servers and at the console (`MACROFLEET_METRICS_TENANTS`): each costs several time
# series everywhere. Comma-separated in the environment.
WatchedNames = Annotated[
    tuple[str, ...], NoDecode, Field(max_length=100), BeforeValidator(_split), AfterValidator(_are_tenants)
]


class OperatorSettings(BaseSettings):
    """What commands ask running servers with: `MACROFLEET_OPERATOR_KEY`.

    Attributes:
        key: an API key with the scope `operator`; None asks without one, which a server takes that is open.
    """

    model_config = SettingsConfigDict(
        env_prefix="MACROFLEET_OPERATOR_", frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    key: SecretStr | None = None

    @field_validator("key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]{1,200}", value.get_secret_value()):
            raise ValueError("it is no API key")
        return value
