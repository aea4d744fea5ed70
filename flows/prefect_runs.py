"""The runs that Prefect's server knows, as `flows.status` shows them."""

from __future__ import annotations

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import get_current_settings
from prefect.states import Pending

from flows.prefect_answers import asking_prefect
from flows.status import TAG, RunStatus

# Of what is to come, the next few will do: a schedule is known for a hundred days.
_NEXT = 3
_OURS = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))


def known_runs(*, last: int) -> list[RunStatus]:
    """The last runs of our deployments, and the next few; none where no server is named.

    Raises:
        SchedulerUnavailable: the server does not answer, or refuses these credentials.
    """
    if get_current_settings().api.url is None:
        return []
    remedy = "What runs left in the store is shown without it; check PREFECT_API_URL."
    with asking_prefect(remedy), get_client(sync_client=True) as client:
        names = {flow.id: flow.name for flow in client.read_flows(deployment_filter=_OURS)}
        return [_status(run, names.get(run.flow_id, "")) for run in _read(client, last)]


def _read(client: SyncPrefectClient, last: int) -> list[FlowRun]:
    coming = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    begun = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=[StateType.SCHEDULED]))
    return [
        *client.read_flow_runs(
            deployment_filter=_OURS,
            flow_run_filter=FlowRunFilter(state=coming),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=_NEXT,
        ),
        *client.read_flow_runs(
            deployment_filter=_OURS,
            flow_run_filter=FlowRunFilter(state=begun),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=last,
        ),
    ]


def _status(run: FlowRun, flow: str) -> RunStatus:
    state = run.state or Pending()
    waits = state.type == StateType.SCHEDULED
    return RunStatus(
        run="",
        flow=flow,
        flow_run_id=str(run.id),
        # "Late" says more than "scheduled"; the names of ends are each flow's own.
        state=str((state.name if waits else None) or state.type.value).lower(),
        started_at=run.start_time or run.expected_start_time,
        seconds=round(run.total_run_time.total_seconds(), 1) if run.start_time else None,
        counts={},
        reason="" if waits else (state.message or "").split("\n", maxsplit=1)[0],
    )
