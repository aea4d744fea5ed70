"""Which fan a run's tenants are trained by, as its settings say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.fan import Fan, HereFan, TrainHere
from flows.prefect_shards import PrefectShards
from flows.run_book import RunBook
from flows.runs import RunPlan, Told, keep_plan, shards_for
from flows.shard_fan import ShardFan, ShardRunner
from flows.shard_settings import ShardSettings
from registry.errors import InvalidInput
from registry.store import ObjectStore


def open_plan(
    store: ObjectStore, book: RunBook, tenants: Sequence[str], options: Mapping[str, Any], settings: ShardSettings
) -> RunPlan:
    """Write down what the run is for, and begin it. A run that was begun before keeps the plan that it had."""
    wanted = RunPlan(tenants=tuple(tenants), shards=shards_for(len(tenants), settings.shards), options=dict(options))
    plan = keep_plan(store, book.run, wanted)
    book.begin(len(plan.tenants))
    return plan


def open_fan(store: ObjectStore, book: RunBook, settings: ShardSettings, train_here: TrainHere, *, told: Told) -> Fan:
    """The fan for these settings.

    Raises:
        InvalidInput: there is nobody to take shards: no Prefect server is named, or no Ray cluster answers.
    """
    if settings.shards == 0:
        return HereFan(store, book.run, train_here, told=told, beat_seconds=settings.shard_beat_seconds)
    runner = _ray(settings.ray_address) if settings.ray_address else PrefectShards()
    return ShardFan(store, book.run, runner, patience=settings.patience, told=told, say=book.say)


def _ray(address: str) -> ShardRunner:
    try:
        from flows.ray_shards import RayShards
    except ModuleNotFoundError as problem:
        if problem.name != "ray":
            raise
        raise InvalidInput(
            "Ray is not installed", remedy="Install the extra `ray`, or unset MACROFLEET_RAY_ADDRESS."
        ) from None
    return RayShards(address)
