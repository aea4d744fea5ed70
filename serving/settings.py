"""What the server is told at its start; read once, where the process is composed."""

from __future__ import annotations

import ipaddress
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from registry.errors import InvalidInput
from registry.files import Digest
from registry.fleet.state import MAX_HOLDBACK, PreloadPlan
from registry.model.program import RELEASED_PROGRAMS
from registry.settings import WatchedNames, user_cache
from serving.proxy.ring_members import check_ring


class ServingSettings(BaseSettings):
    """`MACROFLEET_HOST`, `MACROFLEET_PORT` and so on. Where the store is, `registry.settings.StoreSettings` says.

    Attributes:
        host: address to listen on.
        port: 0 lets the system choose; the log line "serving" names what it chose.
        access: "keys" asks everybody for an API key, but for health; "open" asks nobody, on loopback.
        access_poll_seconds: how often the keys are looked at; a revoked one is refused after that.
        access_stale_seconds: for how long keys hold that cannot be read again; then everybody is refused.
        sagemaker_access: of SageMaker's contract, which carries no key: "platform" leaves it to the platform to let callers
            in; "keys" asks for one.
        insecure: allow `open` on an address that other machines reach.
        operator_host: address of the operator's faces (`/admin`, `/metrics`, `/v2`).
        operator_port: 0 lets the system choose.
        disk_folder: the local disk tier; processes on one machine may share it.
        disk_bytes: budget of the disk tier.
        memory_bytes: budget of the memory tier, counted by the models' mapped size.
        shadow_bytes: budget of shadows in memory, beside that of what serves.
        shadow_share: of the answers of tenants with a shadow, what share to compare.
        shadow_queue: tickets that may wait to be compared; more are left out.
        trusted_programs: digests of the programs that this process may execute; comma-separated in the environment.
        fleet_poll_seconds: how often the fleet is looked at.
        catalogue_seconds: least age at which a tenant's catalogue and its rules are read again.
        answer_bytes: budget of the answers that are remembered for tickets that are opened again; 0 remembers none.
        answer_tenant_share: of that, what share one tenant's answers may have.
        request_timeout_ms: deadline of a request that names none.
        max_queue: requests that may wait for one program; a tenant may take a quarter of it.
        tenant_concurrency: requests of one tenant under way at once, where the fleet says nothing else.
        tenant_requests_per_second: the same for its rate; None is no bound.
        cold_loads_per_second: models fetched from the store for requests; what would wait longer than its deadline is
            refused.
        preload: what must be on local disk before the server is ready, where the fleet says nothing: "all", "pinned",
            "share" (its own tenants, by the ring of the proxy in front), "none", "top:N" (tenants by recent traffic) or
            "bytes:N".
        ring: who is on that ring, see `serving.proxy.ring_members.ring_members`; None is nobody else.
        ring_key: this replica's key on it.
        preload_broken: whether a model that cannot be had keeps the server from being ready: "excuse" or "block".
        feedback_bytes: of feedback and impressions that are on local disk and not in the store yet; more feedback is refused.
        feedback_segment_bytes, feedback_segment_seconds: size and age at which what was written is shipped to the store.
        feedback_objects_per_hour: of the store that a server makes of it, about: one a tenant and segment, so segments of many
            tenants are shipped less often, every six hours at least, or when they have an eighth of `feedback_bytes`.
        holdback_share: of views with something to show, what share shows nothing, where the fleet says nothing else.
        holdback_salt: of the choice of these; the same at all replicas.
        read_from: of a store and its copy in another region, which is near and read first.
        metrics_tenants: whom metrics tell of by name; comma-separated in the environment.
        signing_key: makes suggestion ids. Replicas must share one, or the same ticket has another id at each of them,
            and ids do not outlive the process that made them; unset, each process draws its own.

    Raises:
        InvalidInput: `host` is reachable from elsewhere, nobody is asked for a key, and `insecure` is not set; or the ring
            has no members, or no place for this replica.
    """

    model_config = SettingsConfigDict(env_prefix="MACROFLEET_", frozen=True, extra="ignore", hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    access: Literal["keys", "open"] = "keys"
    access_poll_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    access_stale_seconds: Annotated[float, Field(gt=0, le=7 * 86_400)] = 3600
    sagemaker_access: Literal["keys", "platform"] = "keys"
    insecure: bool = False
    operator_host: str = "127.0.0.1"
    operator_port: Annotated[int, Field(ge=0, le=65_535)] = 8001
    disk_folder: Path = Field(default_factory=user_cache)
    disk_bytes: Annotated[int, Field(gt=0)] = 40 * 1024**3
    memory_bytes: Annotated[int, Field(gt=0)] = 2 * 1024**3
    shadow_bytes: Annotated[int, Field(ge=0)] = 256 * 1024**2
    shadow_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    shadow_queue: Annotated[int, Field(ge=1)] = 64
    trusted_programs: Annotated[frozenset[Digest], NoDecode] = frozenset(RELEASED_PROGRAMS.values())
    fleet_poll_seconds: Annotated[float, Field(gt=0, le=86_400)] = 5
    catalogue_seconds: Annotated[float, Field(gt=0, le=86_400)] = 30
    answer_bytes: Annotated[int, Field(ge=0)] = 32 * 1024**2
    answer_tenant_share: Annotated[float, Field(gt=0, le=1)] = 0.125
    request_timeout_ms: Annotated[int, Field(ge=1, le=60_000)] = 1000
    max_queue: Annotated[int, Field(ge=1)] = 256
    tenant_concurrency: Annotated[int, Field(ge=1)] = 64
    tenant_requests_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    cold_loads_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 50
    preload: Annotated[PreloadPlan, NoDecode] = PreloadPlan(models="all")
    ring: str | None = None
    ring_key: Annotated[str, Field(min_length=1)] | None = None
    preload_broken: Literal["excuse", "block"] = "excuse"
    feedback_bytes: Annotated[int, Field(ge=64 * 1024)] = 1024**3
    feedback_segment_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024**2
    feedback_segment_seconds: Annotated[float, Field(gt=0, le=86_400)] = 900
    feedback_objects_per_hour: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    holdback_share: Annotated[float, Field(ge=0, le=MAX_HOLDBACK, allow_inf_nan=False)] = 0.03
    holdback_salt: str = "macrofleet"
    read_from: Literal["home", "copy"] = "home"
    metrics_tenants: WatchedNames = ()
    signing_key: Annotated[SecretStr, Field(min_length=16)] = Field(
        default_factory=lambda: SecretStr(secrets.token_hex(32))
    )

    @field_validator("trusted_programs", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return frozenset(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("preload", mode="before")
    @classmethod
    def _parse_plan(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        models, colon, bound = value.strip().partition(":")
        if not colon:
            return {"models": models}
        if models not in {"top", "bytes"} or not bound.isascii() or not bound.isdecimal():
            raise ValueError("it is one of all, pinned, share, none, top:N and bytes:N")
        return {"models": models, models: int(bound)}

    @model_validator(mode="after")
    def _know_the_ring(self) -> Self:
        if self.ring is not None:
            check_ring(self.ring)
        if (self.ring is None) != (self.ring_key is None):
            raise InvalidInput(
                "a replica knows its share by the ring and its own key on it",
                remedy="Set MACROFLEET_RING and MACROFLEET_RING_KEY both, or neither.",
            )
        return self

    @model_validator(mode="after")
    def _keep_to_loopback(self) -> Self:
        for host in (self.host, self.operator_host):
            if self.access == "open" and not self.insecure and not _is_loopback(host):
                raise InvalidInput(
                    f"host {host!r} can be reached from other machines, and nobody is asked for an API key",
                    remedy="Leave MACROFLEET_ACCESS at keys; MACROFLEET_INSECURE=true is for a network that is itself trusted.",
                )
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
