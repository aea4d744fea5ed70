"""What a training process works with, without TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import cast

from flows.pool import Told
from flows.retraining import Outcome, Retraining
from flows.training_processes import TrainTenant, train_one
from tests.flows import pool_work


class FakeRetraining:
    """Trains nobody; a tenant's name is what shall happen."""

    def train(self, tenant: str, *, progress: Told, **_: object) -> Outcome:
        progress(0.5)
        if tenant == "dies":
            pool_work.work("die", progress)
        if tenant == "hangs":
            pool_work.work("hang", progress)
        if tenant == "trips":
            pool_work.work("raise", progress)
        return Outcome(tenant=tenant, state="not_eligible", reason="it has nothing to train on")


def open_fake_trainer(_programs: Sequence[str]) -> TrainTenant:
    return functools.partial(train_one, cast("Retraining", FakeRetraining()))
