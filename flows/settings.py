"""Settings of training and its flows, from the environment (`MACROFLEET_…`), read once where a process is composed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from registry.leases import LEASE_SECONDS, LONGEST_SECONDS, MOST_LEASE_SECONDS
from registry.settings import user_cache
from training.choosing import LATENCY_BUDGET_MILLISECONDS, ProgramChoice


class FlowSettings(BaseSettings):
    """What a training process needs beside the object store.

    Attributes:
        tracking_uri: MLflow's; a file of SQLite by default.
        artifact_location: where MLflow keeps its (small) artifacts; None puts them beside the SQLite file.
        experiment: MLflow's name for the runs.
        disk_folder: programs and bundles on their way.
        program: the program that new models are fitted for; `auto` takes the one that does best on a tenant's validation
            rows within the budget.
        programs: by tenant, where one has a program of its own (JSON in the environment).
        latency_budget_milliseconds: what one ticket may take, for `auto`.
        lease_seconds: how long a tenant's lease holds without being renewed: how soon a run that died is replaced.
        lease_longest_seconds: how long it is renewed; work on one tenant that takes longer is taken to hang.
        precision: how often one of the three macros shown shall be right, for tenants without a precision of their own.
    """

    model_config = SettingsConfigDict(env_prefix="MACROFLEET_", frozen=True, extra="ignore")

    tracking_uri: str = "sqlite:///macrofleet-data/mlflow.db"
    artifact_location: str | None = None
    experiment: str = "macrofleet"
    disk_folder: Path = Field(default_factory=user_cache)
    program: ProgramChoice = "bag"
    programs: dict[str, ProgramChoice] = Field(default_factory=dict)
    latency_budget_milliseconds: float = Field(default=LATENCY_BUDGET_MILLISECONDS, gt=0)
    lease_seconds: float = Field(default=LEASE_SECONDS, gt=0, le=MOST_LEASE_SECONDS)
    lease_longest_seconds: float = Field(default=LONGEST_SECONDS, gt=0)
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.8
