"""Running the flow from the command line: Prefect's own defaults first, then the import, then the run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from registry.names import check_tenant

if TYPE_CHECKING:
    from flows.retrain_fleet import Summary
    from registry.tenant_settings import ProgramChoice

# What a command line wants of Prefect and MLflow; whoever sets one of these keeps it.
_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def run_retrain_fleet(
    tenants: list[str] | None,
    step: Callable[[str, float], None],
    *,
    force: bool = False,
    retrain: bool = False,
    precision: float | None = None,
    program: ProgramChoice | None = None,
    processes: int | None = None,
) -> Summary:
    """Run `retrain_fleet` in this process, against the Prefect server of the environment or one of its own.

    Args:
        tenants: None for all.
        step: told what is going on and the finished share.
        force, retrain, precision, program: as `retrain_fleet` takes them.
        processes: how many train side by side; by default as the environment says.

    Raises:
        SchedulerUnavailable: the server of the environment does not answer, or refuses these credentials.
        MacrofleetError: see `retrain_fleet`.
    """
    # Before Prefect starts, which takes seconds.
    for tenant in tenants or ():
        check_tenant(tenant)
    set_defaults()
    if processes is not None:
        os.environ["MACROFLEET_TRAINING_PROCESSES"] = str(processes)
    step("starting the flow", 0.0)
    from flows.prefect_answers import asking_prefect
    from flows.progress import listener
    from flows.retrain_fleet import retrain_fleet

    def told(_tenant: str, done: int, total: int, share: float) -> None:
        step(f"training: {done} of {total} tenants done", share)

    listener.set(told)
    with asking_prefect():
        return retrain_fleet(tenants, force=force, retrain=retrain, precision=precision, program=program)


def set_defaults() -> None:
    """Set what a command line wants of Prefect, before it is imported."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
