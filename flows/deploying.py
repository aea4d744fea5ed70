"""Making the deployments known to Prefect, and working off their runs in this process: `macrofleet flows serve|deploy`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import prefect
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from flows.deployments import make_deployments
from flows.identities import Pools
from flows.prefect_answers import asking_prefect
from flows.prefect_server import PrefectServer
from flows.timetable import Timetable
from registry.errors import InvalidInput

Say = Callable[[str], None]


def serve_deployments(timetable: Timetable, *, port: int, ui: bool, limit: int | None, say: Say) -> None:
    """Work off the runs of all deployments, each in a process of its own, until SIGTERM or Ctrl-C.

    Args:
        port: for a Prefect server of its own, where the environment and Prefect's profile name none.
        ui: whether that one serves Prefect's pages.
        limit: how many runs at once; None is for Prefect's settings.
        say: told what goes on, in sentences.

    Raises:
        InvalidInput: the timetable is none.
        NotReady: the server of its own does not come up.
    """
    deployments = make_deployments(timetable)
    for deployment in deployments:
        # Said, not left out: one that was deployed to a work pool before is no more its workers'.
        deployment.work_pool_name = deployment.work_queue_name = None
    with _server(port, ui=ui, say=say) as api_url:
        names = ", ".join(deployment.name for deployment in deployments)
        when = f"retrain_fleet at {timetable.cron} {timetable.timezone}" if timetable.cron else "nothing by itself"
        say(f"serving {names}; {when}; Prefect: {api_url}")
        prefect.serve(*deployments, limit=limit, print_starting_message=False)


def deploy_deployments(timetable: Timetable, *, pools: Pools, job_variables: dict[str, Any], say: Say) -> None:
    """Make the deployments known to Prefect's server, for the workers of work pools.

    Args:
        pools: one that is not there is made, for workers that start processes.
        job_variables: what the pool's kind takes: `image`, say.

    Raises:
        InvalidInput: the timetable is none, or no server is named.
        SchedulerUnavailable: the server does not answer, or refuses these credentials.
    """
    if get_current_settings().api.url is None:
        raise InvalidInput(
            "deploying needs a Prefect server", remedy="Set PREFECT_API_URL; `macrofleet flows serve` needs none."
        )
    deployments = make_deployments(timetable, job_variables=job_variables)
    with asking_prefect():
        with get_client(sync_client=True) as client:
            for pool in pools.names:
                try:
                    client.read_work_pool(pool)
                except ObjectNotFound:
                    client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
                    say(f"made the work pool {pool}, for workers that start processes")
        for deployment in deployments:
            pool = pools.of(deployment.name)
            deployment.apply(work_pool_name=pool)
            say(f"deployed {deployment.full_name} for the workers of {pool}")


@contextmanager
def _server(port: int, *, ui: bool, say: Say) -> Iterator[str]:
    """The address of the server that is named, or of one that lives as long as the context."""
    named = get_current_settings().api.url
    if named is not None:
        yield named
        return
    home = Path(get_current_settings().home)
    home.mkdir(parents=True, exist_ok=True)
    say(f"starting a Prefect server; its log is {home / 'macrofleet-server.log'}")
    with PrefectServer(home / "macrofleet-server.log", port=port, ui=ui) as server:
        os.environ["PREFECT_API_URL"] = server.api_url
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            yield server.api_url
