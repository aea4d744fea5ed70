"""What settings of training cannot be is a sentence with the variable's name, before anything begins."""

from __future__ import annotations

import pytest
from pydantic_settings import BaseSettings

from flows.rollout_settings import RolloutSettings
from flows.settings import FlowSettings
from flows.shard_settings import ShardSettings
from registry.errors import InvalidInput
from registry.settings import read_settings
from serving.settings import ServingSettings

# No number can be any of these.
NEVER = ("-1", "inf", "-inf", "nan", "abc", "1e99", "9" * 40)
NUMBERS: dict[type[BaseSettings], tuple[str, ...]] = {
    FlowSettings: (
        "TRAINING_PROCESSES", "TRAINING_SECONDS", "TRAINING_MEMORY_BYTES", "LEASE_SECONDS", "LEASE_LONGEST_SECONDS",
        "LATENCY_BUDGET_MILLISECONDS", "LEAST_TICKETS", "LEAST_MACROS", "MONTHS", "KEEP_MONTHS", "RETRAIN_AFTER_DAYS",
        "PRECISION", "LEAST_ACCEPTANCE",
    ),
    ShardSettings: (
        "SHARDS", "SHARD_BEAT_SECONDS", "SHARD_LOST_SECONDS", "SHARD_START_SECONDS", "SHARD_IDLE_SECONDS",
        "SHARD_POLL_SECONDS",
    ),
    RolloutSettings: ("CANARY_SHARE", "CANARY_SECONDS"),
    ServingSettings: ("FLEET_POLL_SECONDS", "CATALOGUE_SECONDS", "ACCESS_POLL_SECONDS", "REQUEST_TIMEOUT_MS"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NUMBERS)
def test_what_is_no_such_number_is_a_sentence(kind: type[BaseSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    read_settings(kind)
    for name in NUMBERS[kind]:
        for value in NEVER:
            with monkeypatch.context() as set_there:
                set_there.setenv(f"MACROFLEET_{name}", value)
                with pytest.raises(InvalidInput, match=rf"^the setting MACROFLEET_{name} cannot be used: "):
                    read_settings(kind)


def test_no_processes_at_all_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROFLEET_TRAINING_PROCESSES", "0")
    assert read_settings(FlowSettings).training_processes == 0
