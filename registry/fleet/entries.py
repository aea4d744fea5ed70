"""What the fleet says of one tenant, and the plan that it has for every replica. Pure."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from registry.documents import Document
from registry.files import Digest

# More would be a test of the product, not a sample of what agents do without it.
MAX_HOLDBACK: Final = 0.5

Version = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class TenantLimits(Document):
    """What one tenant may use of a replica; None takes the replica's own setting.

    Attributes:
        concurrency: requests under way at once.
        requests_per_second: over time; a quarter of that, or up to ten of it, may come at once.
    """

    model_config = ConfigDict(extra="allow")

    concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    requests_per_second: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None


class PreloadPlan(Document):
    """What must be on a replica's local disk before it says that it is ready.

    Attributes:
        models: "all"; "pinned"; "top", the `top` tenants with the most recent traffic; "bytes", as many as fit in
            `bytes`, by recent traffic; "share", those that the proxy's ring gives to the replica; "none". The pinned ones
            always come first, and with every plan but "none".
    """

    model_config = ConfigDict(extra="allow")

    models: Literal["all", "pinned", "top", "bytes", "share", "none"]
    top: Annotated[int, Field(ge=1)] | None = None
    bytes: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.models == "top") != (self.top is not None) or (self.models == "bytes") != (self.bytes is not None):
            raise ValueError("`top` goes with the plan 'top', and `bytes` with the plan 'bytes'")
        return self


class Rollout(Document):
    """Where a tenant is in a staged roll-out.

    Attributes:
        stage: "canary": the tenant serves the new version ahead of the others, which are told by what it does there;
            "halted": that version was taken back, and is not tried again unless it is forced.
        version, manifest: which version that is.
        previous, previous_manifest: what was the tenant's previous version before, for when this one is taken back.
    """

    model_config = ConfigDict(extra="allow")

    stage: str
    version: str
    manifest: Digest
    previous: str | None = None
    previous_manifest: Digest | None = None


class FleetEntry(Document):
    """What one tenant serves. Fields of later releases are kept when an older one rewrites the entry.

    Attributes:
        version: the model version that serves, or None while there is none.
        manifest: digest of that version's manifest.
        previous: the version that served before, for a quick roll-back.
        previous_manifest: digest of that version's manifest.
        reason: why there is no version to serve (too few examples, say).
        keep_loaded: pinned: on disk and in memory before a replica is ready, and never evicted.
        hold_version: set by a roll-back: publishing does not change what serves until it is released.
        candidate: a version that passed the gate and waits for a person to promote it.
        candidate_manifest: digest of that version's manifest.
        shadow: a version that is loaded beside the one that serves and compared with it, without being shown.
        shadow_manifest: digest of that version's manifest.
        rollout: where the tenant is in a staged roll-out.
        limits: what the tenant may use of each replica.
        holdback: of its views with something to show, what share shows nothing; None takes the replica's own setting.
        lease_token: of the lease under which a version was published last; it only grows.
    """

    model_config = ConfigDict(extra="allow")

    version: Version | None = None
    manifest: Digest | None = None
    previous: str | None = None
    previous_manifest: Digest | None = None
    reason: str | None = None
    keep_loaded: bool = False
    hold_version: bool = False
    candidate: Version | None = None
    candidate_manifest: Digest | None = None
    shadow: Version | None = None
    shadow_manifest: Digest | None = None
    rollout: Rollout | None = None
    limits: TenantLimits | None = None
    holdback: Annotated[float, Field(ge=0, le=MAX_HOLDBACK, allow_inf_nan=False)] | None = None
    lease_token: Annotated[int, Field(ge=0)] = 0

    @property
    def serves(self) -> bool:
        """Whether there is a version to serve."""
        return self.version is not None and self.manifest is not None

    @property
    def is_canary(self) -> bool:
        """Whether the version that serves is on trial for others."""
        return self.rollout is not None and (self.rollout.stage, self.rollout.version) == ("canary", self.version)

    def with_version(self, version: str, manifest: str) -> Self:
        """The entry once `version` serves; what served until then becomes the previous one.

        It is no candidate or shadow any more, and no roll-out that went before concerns it. All else stays.
        """
        if (version, manifest) == (self.version, self.manifest):
            return self
        update: dict[str, object] = {"version": version, "manifest": manifest, "reason": None, "rollout": None}
        if self.serves and self.version != version:
            update |= {"previous": self.version, "previous_manifest": self.manifest}
        if self.candidate == version:
            update |= {"candidate": None, "candidate_manifest": None}
        if self.shadow == version:
            update |= {"shadow": None, "shadow_manifest": None}
        return self.model_copy(update=update)

    def published(self, version: str, manifest: str, *, token: int = 0) -> Self:
        """The entry once a newly trained version is there: it serves, unless the entry holds the one it has.

        An older candidate has been overtaken. A shadow goes on: it is compared with whatever serves.

        Args:
            token: of the lease under which it was trained; see `fenced`.
        """
        if token < self.lease_token:
            return self
        entry = self.fenced(token)
        if self.hold_version:
            return entry
        after = entry.with_version(version, manifest)
        if after.candidate is None:
            return after
        return after.model_copy(update={"candidate": None, "candidate_manifest": None})

    def fenced(self, token: int) -> Self:
        """The entry once something was published under a lease with this token.

        With a smaller one nothing is: whoever publishes now was replaced meanwhile, and its version is older than what the
        entry knows of. Whoever writes asks before.
        """
        return self if token <= self.lease_token else self.model_copy(update={"lease_token": token})
