"""How a run's work is shared out, from the environment (`MACROFLEET_SHARD…`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.runs import MAX_SHARDS
from flows.shard_fan import Patience

# A week at most: who waits cannot be told more than some years, and none of this is meant to take so long.
Seconds = Annotated[float, Field(gt=0, le=7 * 86_400.0)]


class ShardSettings(BaseSettings):
    """Into how many shards, and when one of them is given up.

    Attributes:
        shards: each a run of the deployment `retrain_shard`, for whatever worker takes it; 0 trains where the run is. A
            shard holds at most 500 tenants, so that a large fleet is cut into more.
        ray_address: with it, shards are tasks of that Ray cluster instead.
        shard_beat_seconds: how often a shard writes down that it lives.
        shard_lost_seconds, shard_start_seconds, shard_idle_seconds, shard_poll_seconds: see `Patience`.
    """

    model_config = SettingsConfigDict(env_prefix="MACROFLEET_", frozen=True, extra="ignore", env_ignore_empty=True)

    shards: int = Field(default=0, ge=0, le=MAX_SHARDS)
    ray_address: str | None = None
    shard_beat_seconds: Seconds = 5.0
    shard_lost_seconds: Seconds = 60.0
    shard_start_seconds: Seconds = 300.0
    shard_idle_seconds: Seconds = 3600.0
    shard_poll_seconds: Seconds = 2.0

    @property
    def patience(self) -> Patience:
        """How long a parent waits for what."""
        return Patience(
            poll_seconds=self.shard_poll_seconds,
            lost_seconds=self.shard_lost_seconds,
            start_seconds=self.shard_start_seconds,
            idle_seconds=self.shard_idle_seconds,
        )
