"""Settings of training and its flows, from the environment (`MACROFLEET_…`), read once where a process is composed."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from registry.leases import LEASE_SECONDS, LONGEST_SECONDS, MOST_LEASE_SECONDS
from registry.settings import TrackingSettings, user_cache
from training.choosing import LATENCY_BUDGET_MILLISECONDS
from training.settings import TrainingSettings

# A month: more is a slip of the hand, and infinity is more than what waits can be told.
_MOST_SECONDS = 30 * 86_400.0


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


class FlowSettings(TrackingSettings, TrainingSettings):
    """What a training process needs beside the object store; those of `TrainingSettings` a tenant may have of its own.

    Attributes:
        disk_folder: programs and bundles on their way.
        latency_budget_milliseconds: what one ticket may take, for the program `auto`.
        lease_seconds: how long a tenant's lease holds without being renewed: how soon a run that died is replaced.
        lease_longest_seconds: how long it is renewed; work on one tenant that takes longer is taken to hang.
        training_processes: how many train side by side; by default one for each core that this process may use. 0 trains
            in this process, without limits.
        training_seconds: what one tenant may take.
        training_memory_bytes: what a process that trains may hold in memory, TensorFlow's half a gigabyte included.
    """

    model_config = TrackingSettings.model_config  # the two bases differ

    disk_folder: Path = Field(default_factory=user_cache)
    latency_budget_milliseconds: float = Field(default=LATENCY_BUDGET_MILLISECONDS, gt=0, le=60_000)
    lease_seconds: float = Field(default=LEASE_SECONDS, gt=0, le=MOST_LEASE_SECONDS)
    lease_longest_seconds: float = Field(default=LONGEST_SECONDS, gt=0, le=_MOST_SECONDS)
    training_processes: int = Field(default_factory=_cores, ge=0, le=256)
    training_seconds: float = Field(default=900, gt=0, le=_MOST_SECONDS)
    training_memory_bytes: int = Field(default=4 * 1024**3, ge=1024**3, le=1024**5)
