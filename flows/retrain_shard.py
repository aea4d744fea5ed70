"""The flow `retrain_shard`: one part of a run of `retrain_fleet`, on whatever machine a worker took it."""

from __future__ import annotations

from collections.abc import Callable

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.fan import TrainHere, work_shard
from flows.retrain_fleet import train_here
from flows.retraining import Retraining
from flows.run_report import tenant_line
from flows.runs import RunPlan, read_plan
from flows.shard_book import ShardBook
from flows.shard_settings import ShardSettings
from registry.errors import ShardTaken
from registry.settings import StoreSettings, read_settings
from registry.store import open_store


@flow(name="retrain_shard", validate_parameters=False)
def retrain_shard(run: str, shard: int, attempt: int) -> State[None]:
    """Train the tenants of one shard; what became of them goes to the store, where the run that gave it out finds it.

    Args:
        run: the name of the run of `retrain_fleet`.
        shard: which part of its plan.
        attempt: which time of giving it out. One that has been given out again since is left alone.

    Raises:
        InvalidInput: the store of this machine has no such run.
        MacrofleetError: what concerns the whole shard; the run gives it out again.
    """
    return take_shard(run, shard, attempt, lambda plan: train_here(Retraining.from_environment(), plan))


def take_shard(run: str, shard: int, attempt: int, open_trainer: Callable[[RunPlan], TrainHere]) -> State[None]:
    """Claim a shard and work on it; its flow's whole body.

    Args:
        open_trainer: what trains a plan's tenants; called once the shard is claimed, since that takes seconds.
    """
    log = get_run_logger()
    store = open_store(read_settings(StoreSettings))
    plan = read_plan(store, run)
    tenants = plan.cut().get(shard, ())
    beat = read_settings(ShardSettings).shard_beat_seconds
    try:
        with ShardBook(store, run, shard, attempt=attempt, beat_seconds=beat) as book:
            work_shard(
                book, tenants, open_trainer(plan), told=lambda outcome: log.info("%s", tenant_line(run, outcome))
            )
    except ShardTaken as problem:
        return Completed(name="Superseded", message=str(problem))
    return Completed(message=f"{len(tenants)} tenants of run {run}")
