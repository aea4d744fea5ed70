"""The flow `retrain_shard` on a host of `tests.workers.hosts`, with a trainer that stops where the test says.

Everything is real but the fitting: leases, store, MLflow, fleet. Each training makes other numbers, so that a tenant that is
trained twice has two versions unless somebody sees to it that it has one. Files say who has begun what, and who may go on.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State

from flows import retraining
from flows.retrain_fleet import train_here
from flows.retrain_shard import take_shard
from flows.retraining import Retraining
from flows.trainers import Trainers
from tests.flows.killed_run import NoJudge, PerfectTrainer, WithoutTensorFlow
from training.choosing import TenantTrainer
from training.examples import Example
from training.settings import TrainingSettings
from training.trainer import Trained

# Where the files are, and which host this is.
SIGNS, HOST = "MACROFLEET_TEST_SIGNS", "MACROFLEET_TEST_HOST"
_POLL_SECONDS = 0.1


class HeldTrainer(PerfectTrainer):
    """Says when it has a model, and keeps it until it may hand it over."""

    def weight(self, digest: str) -> int:
        """Another one each time."""
        return 1 + secrets.randbelow(10_000)

    def train(self, tenant: str, examples: Sequence[Example], folder: Path, **options: object) -> Trained:
        """See `PerfectTrainer`."""
        trained = super().train(tenant, examples, folder, **options)
        signs, host = Path(os.environ[SIGNS]), os.environ[HOST]
        (signs / f"begun-{tenant}-{host}").write_text(str(os.getpid()))
        while not (signs / f"go-{tenant}-{host}").exists():
            time.sleep(_POLL_SECONDS)
        return trained


class HeldTrainers(Trainers):
    """Have `HeldTrainer` train everybody."""

    def of(self, settings: TrainingSettings) -> TenantTrainer:
        """See `Trainers.of`."""
        return HeldTrainer()


def held() -> Retraining:
    """What trains on a host."""
    vars(retraining).update(Trainers=HeldTrainers, Judge=NoJudge)
    return WithoutTensorFlow.from_environment()


@flow(name="retrain_shard", validate_parameters=False)
def retrain_shard(run: str, shard: int, attempt: int) -> State[None]:
    """See `flows.retrain_shard`."""
    return take_shard(run, shard, attempt, lambda plan: train_here(held(), plan))


def work_in_ray(run: str, shard: int, attempt: int) -> None:
    """What a Ray task does."""
    retrain_shard(run, shard, attempt)
