"""Shards as tasks of a Ray cluster: for one large run on machines that Ray keeps.

A task is the flow `retrain_shard` in a process of Ray's, so that it is the same work with the same log; where, Ray
decides. Ray's own retries stay off: which attempt has a shard is for the parent to say. Nodes have the settings of
macrofleet in their environment; nothing is sent along, since what goes with a task can be read in Ray's lists.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import RayError

from flows.shard_fan import ShardState
from registry.errors import InvalidInput, SchedulerUnavailable

Work = Callable[[str, int, int], object]
_KNOCK_SECONDS = 5.0


def work_on_shard(run: str, shard: int, attempt: int) -> None:
    """What a task does; its outcomes go to the store."""
    # A task has one core of its node; several share the node.
    os.environ.setdefault("MACROFLEET_TRAINING_PROCESSES", "1")
    from flows.retrain_shard import retrain_shard

    retrain_shard(run, shard, attempt)


class RayShards:
    """Gives shards out as Ray tasks of one core each. See `flows.shard_fan.ShardRunner`.

    Args:
        address: the cluster's: `head:6379` from one of its nodes, `ray://head:10001` from elsewhere.
        work: what a task does.

    Raises:
        InvalidInput: no cluster is there.
    """

    def __init__(self, address: str, *, work: Work = work_on_shard) -> None:
        # Ray tries an address where nobody answers twenty times, forty seconds each.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "2")
        try:
            _knock(address)
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, configure_logging=False)
        except (OSError, RayError, RuntimeError, ValueError) as problem:
            raise InvalidInput(
                f"no Ray cluster is reached at {address!r} ({type(problem).__name__})",
                remedy="Check MACROFLEET_RAY_ADDRESS, and that Ray runs there in the same version.",
            ) from None
        self._task = ray.remote(max_retries=0, num_cpus=1)(work)
        self._tasks: dict[str, Any] = {}

    def submit(self, run: str, shard: int, attempt: int) -> str:
        """See `ShardRunner.submit`. Raises SchedulerUnavailable."""
        handle = f"{run} shard {shard} attempt {attempt}"
        if handle not in self._tasks:
            try:
                self._tasks[handle] = self._task.options(name=handle).remote(run, shard, attempt)
            except RayError as problem:
                raise SchedulerUnavailable(f"the Ray cluster does not answer ({type(problem).__name__})") from None
        return handle

    def state(self, handle: str) -> ShardState:
        """See `ShardRunner.state`. Ray does not say in passing whether a task has begun; its shard does."""
        try:
            ready, _ = ray.wait([self._tasks[handle]], timeout=0)
        except RayError:
            return "unknown"
        return "ended" if ready else "waiting"

    def drop(self, handle: str, reason: str) -> None:  # noqa: ARG002  # Ray has no place for a reason
        """See `ShardRunner.drop`. A process that still works on it is ended."""
        try:
            ray.cancel(self._tasks[handle], force=True)
        except (RayError, ValueError):
            # It is gone, or cannot be reached; the shard itself is out of its hands.
            return


def _knock(address: str) -> None:
    """See whether anybody listens at an address with a host and a port. Raises OSError, or ValueError for what is none."""
    parts = urlsplit(f"//{address.removeprefix('ray://')}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), _KNOCK_SECONDS).close()
