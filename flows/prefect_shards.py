"""Shards as runs of the deployment `retrain_shard`: whatever worker of its work pool is free takes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import get_current_settings
from prefect.states import Crashed

from flows.shard_fan import ShardState
from registry.errors import InvalidInput, SchedulerUnavailable
from registry.retrying import patiently

DEPLOYMENT = "retrain_shard/retrain_shard"
_ATTEMPTS = 6
_STATES: dict[StateType, ShardState] = {
    StateType.SCHEDULED: "waiting",
    StateType.PAUSED: "waiting",
    StateType.PENDING: "starting",
    StateType.RUNNING: "running",
    StateType.CANCELLING: "running",
}
Answer = TypeVar("Answer")


class PrefectShards:
    """Gives shards out through Prefect's server. See `flows.shard_fan.ShardRunner`.

    Args:
        deployment: whose runs they are.

    Raises:
        InvalidInput: there is no server that workers could ask for work.
    """

    def __init__(self, deployment: str = DEPLOYMENT) -> None:
        self._deployment = deployment
        if get_current_settings().api.url is None:
            raise InvalidInput(
                "shards need a Prefect server that workers take them from",
                remedy="Set PREFECT_API_URL to its address, or MACROFLEET_SHARDS to 0.",
            )

    def submit(self, run: str, shard: int, attempt: int) -> str:
        """See `ShardRunner.submit`.

        Raises:
            InvalidInput: nobody deployed `retrain_shard`.
            SchedulerUnavailable: Prefect did not answer, six times.
        """
        name = f"{run} shard {shard} attempt {attempt}"

        def create() -> FlowRun:
            # Its key makes trying again safe: the answer may have been lost, and not the run.
            made = run_deployment(
                self._deployment,
                parameters={"run": run, "shard": shard, "attempt": attempt},
                flow_run_name=name,
                idempotency_key=name,
                timeout=0,
            )
            return cast(FlowRun, made)

        try:
            made = patiently(lambda: _asked(create), on=SchedulerUnavailable, attempts=_ATTEMPTS)
        except ObjectNotFound:
            raise InvalidInput(
                f"Prefect has no deployment {self._deployment}",
                remedy="Make it with `macrofleet flows serve` or `macrofleet flows deploy`.",
            ) from None
        return str(made.id)

    def state(self, handle: str) -> ShardState:
        """See `ShardRunner.state`."""
        try:
            with get_client(sync_client=True) as client:
                state = _asked(lambda: client.read_flow_run(UUID(handle)).state)
        except SchedulerUnavailable:
            return "unknown"
        except ObjectNotFound:
            return "ended"
        return "waiting" if state is None else _STATES.get(state.type, "ended")

    def drop(self, handle: str, reason: str) -> None:
        """See `ShardRunner.drop`."""
        if self.state(handle) == "ended":
            return
        try:
            with get_client(sync_client=True) as client:
                _asked(lambda: client.set_flow_run_state(UUID(handle), Crashed(message=reason), force=True))
        except (SchedulerUnavailable, ObjectNotFound):
            # Its lists then show a run that is none; the shard itself is out of its hands.
            return


def _asked(ask: Callable[[], Answer]) -> Answer:
    """Prefect's answer. Raises SchedulerUnavailable, and ObjectNotFound as Prefect's client does."""
    try:
        return ask()
    except (httpx.TransportError, PrefectHTTPStatusError) as problem:
        raise SchedulerUnavailable(
            f"Prefect does not answer ({type(problem).__name__})",
            remedy="Check that its server runs at PREFECT_API_URL.",
        ) from None
