"""Settings of a staged roll-out, from the environment (`MACROFLEET_…`), read once where a process is composed."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from registry.errors import InvalidInput
from registry.replicas import operator_addresses


class RolloutSettings(BaseSettings):
    """How a fleet run's new versions come to serve.

    Attributes:
        canary_share: of the tenants whose version changes, how many go first; 0 is all at once.
        canary_seconds: how long they are watched before the others follow.
        canary_requests: fewer seconds will do when their new versions have been asked so often.
        servers: operator addresses of the servers that are watched; comma-separated in the environment.
        operator_key: the API key, with the scope `operator`, that they are asked with.

    Raises:
        InvalidInput: canaries without servers to watch them on, or an address that is none.
    """

    model_config = SettingsConfigDict(env_prefix="MACROFLEET_", frozen=True, extra="ignore", hide_input_in_errors=True)

    canary_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    canary_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    canary_requests: Annotated[int, Field(ge=1)] = 1000
    servers: Annotated[tuple[str, ...], NoDecode] = ()
    operator_key: SecretStr | None = None

    @field_validator("servers", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _can_watch(self) -> Self:
        operator_addresses(self.servers)
        if self.canary_share and not self.servers:
            raise InvalidInput(
                "MACROFLEET_CANARY_SHARE is set, and no server is named that canaries could be watched on",
                remedy="Set MACROFLEET_SERVERS to the operator addresses, or the share to 0.",
            )
        return self
