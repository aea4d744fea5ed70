"""Trying again what failed for the moment: one policy for the adapters' edges, carried out by stamina.

Only an error of the domain is tried again, made before it gets here: it is logged, and a vendor's may quote an address
with its password.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from registry.errors import MacrofleetError

_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")


def _say(details: RetryDetails) -> None:
    problem = details.caused_by
    what = problem.what if isinstance(problem, MacrofleetError) else type(problem).__name__
    _LOG.warning("%s; it is tried again in %.1f s", what, details.wait_for)


# Instead of stamina's own, which say `stamina.retry_scheduled` and count for Prometheus where nobody reads it.
set_on_retry_hooks([_say])


def patiently(
    work: Callable[[], Result],
    *,
    on: type[MacrofleetError],
    attempts: int,
    first_wait_seconds: float = 0.5,
    longest_wait_seconds: float = 5.0,
    longest_seconds: float = 60.0,
) -> Result:
    """What `work` returns, tried again while it raises `on`; its last error in the end.

    Waits double from the first to the longest, each with up to as much as the first on top, so that many who failed at
    once do not come back at once.

    Args:
        longest_seconds: after which no further attempt begins.
    """
    for attempt in stamina.retry_context(
        on=on,
        attempts=attempts,
        timeout=longest_seconds,
        wait_initial=first_wait_seconds,
        wait_max=longest_wait_seconds,
        wait_jitter=first_wait_seconds,
    ):
        with attempt:
            return work()
    raise AssertionError("the last attempt raises what it fails with")
