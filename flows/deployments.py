"""The deployments: which flows a schedule, an API call or an event can start, as `prefect.yaml` has them, too."""

from __future__ import annotations

from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prefect import Flow
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from flows.retrain_fleet import retrain_fleet
from flows.retrain_shard import retrain_shard
from flows.single_flows import (
    RETRAIN_EVENT,
    TENANT_RESOURCE,
    collect_garbage,
    copy_region,
    delete_tenant,
    import_tickets,
    retrain_tenant,
    rollback,
    tidy_lake,
    verify_fleet,
)
from flows.status import TAG
from flows.timetable import NIGHTLY, Timetable
from registry.errors import InvalidInput

# A deployment is named after its flow. Without concurrency limits: a run under one dies where Prefect's server is away
# for some minutes (it renews a lease there), and a tenant's own lease already keeps two runs from one tenant.
FLOWS: tuple[Flow[..., Any], ...] = (
    retrain_fleet,
    retrain_tenant,
    retrain_shard,
    rollback,
    import_tickets,
    collect_garbage,
    tidy_lake,
    copy_region,
    delete_tenant,
    verify_fleet,
)
SHARD_TAG = "macrofleet-shard"


def make_deployments(timetable: Timetable, *, job_variables: dict[str, Any] | None = None) -> list[RunnerDeployment]:
    """All deployments, not yet known to any server.

    Workers import the flows from the installed package, so nothing is pulled from anywhere.

    Args:
        job_variables: of the work pool's, such as `image`.

    Raises:
        InvalidInput: the timetable is none.
    """
    scheduled = {retrain_fleet.name: [schedule_of(timetable)]}
    triggered = {retrain_tenant.name: [_on_request()]}
    return [
        RunnerDeployment.from_flow(
            flow,
            name=flow.name,
            schedules=scheduled.get(flow.name),
            triggers=cast("list[Any]", triggered.get(flow.name)),
            description=(flow.description or "").split("\n", maxsplit=1)[0],
            tags=[SHARD_TAG if flow is retrain_shard else TAG],
            job_variables=job_variables,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for flow in FLOWS
    ]


def schedule_of(timetable: Timetable) -> Schedule:
    """Prefect's form of a timetable; "never" is a schedule that is switched off, in place of any before.

    Raises:
        InvalidInput: it is no such expression or no such time zone.
    """
    cron, active = timetable.cron or NIGHTLY, timetable.cron is not None
    try:
        ZoneInfo(timetable.timezone)
        return Cron(cron, timezone=timetable.timezone, active=active, slug="macrofleet")
    # OSError: half a name, Europe say, which is a folder of them.
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise InvalidInput(
            f"{cron!r} in the time zone {timetable.timezone!r} is no schedule",
            remedy="Write five fields as a crontab has them, or never, and a time zone like Europe/Berlin.",
        ) from None


def _on_request() -> DeploymentEventTrigger:
    return DeploymentEventTrigger(
        name="retrain a tenant on request",
        expect={RETRAIN_EVENT},
        match={"prefect.resource.id": f"{TENANT_RESOURCE}.*"},
        # Each tenant's requests by themselves: two tenants within a moment are two runs.
        for_each={"prefect.resource.id"},
        parameters={"tenant": "{{ event.resource['" + TENANT_RESOURCE + "'] }}"},
    )
