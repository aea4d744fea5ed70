"""A tenant's traces in Prefect: pages of runs, and runs that were asked for it or tell of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterTextSearch,
    TaskRunFilter,
    TaskRunFilterName,
)
from prefect.client.schemas.sorting import FlowRunSort, LogSort, TaskRunSort
from prefect.exceptions import ObjectNotFound

from flows.prefect_answers import asking_prefect
from registry.names import mentions

if TYPE_CHECKING:
    from prefect.client.schemas.objects import Artifact, FlowRun, TaskRun

_PAGE = 200
_PATIENCE_SECONDS = 20.0
# Prefect's client sends the lines of a log every two seconds.
_LATE_SECONDS = 5.0
_POLL_SECONDS = 0.2
_GOES_ON = frozenset({"RUNNING", "PENDING", "CANCELLING"})
Item = TypeVar("Item")


class PrefectPlace:
    """What Prefect's server holds of a tenant: the one that the environment names, or the one that flows without it use.

    A run that names the tenant in its parameters, its state, its tasks or its log goes as a whole, with all of these:
    Prefect takes no line out of a log. What it came to for the others is in the store (`runs/…`). A page loses the
    tenant's lines. A run that goes on is left, and said to be.

    Args:
        flows: names of the flows whose runs and pages are looked at; a server may have others, of other people.
        own: the id of the flow run that does this, if there is one. It is not looked at: it cannot remove itself, and its
            parameter stays in Prefect, as the record of who had what deleted, until Prefect forgets the run.
    """

    name = "prefect"
    remedy = "When the runs are over, or cancelled, run this again; pages were written meanwhile."
    certain = True

    def __init__(self, flows: Sequence[str], *, own: str | None = None) -> None:
        self._flows = list(flows)
        self._own = UUID(own) if own else None

    def remove(self, tenant: str) -> int:
        """Delete runs that are over, and the tenant's lines of pages; how many runs and pages there were."""
        with _client() as client:
            runs = [run for run in self._runs(client, tenant) if not _goes_on(run)]
            _let_logs_arrive(runs)
            for run in runs:
                with suppress(ObjectNotFound):
                    client.delete_flow_run(run.id)
            gone = {run.id for run in runs}
            pages = list(self._pages(client, tenant))
            for page in pages:
                update = ArtifactUpdate(
                    data=_without(str(page.data or ""), tenant), description=_without(page.description or "", tenant)
                )
                with suppress(ObjectNotFound):
                    client.update_artifact(page.id, update)
            # Prefect deletes a run's log some time after it said that the run is gone.
            until = time.monotonic() + _PATIENCE_SECONDS
            while self._orphans(client, tenant) and time.monotonic() < until:
                for task in _tasks(client, tenant):
                    if task.flow_run_id in gone:
                        with suppress(ObjectNotFound):
                            client.delete_task_run(task.id)
                time.sleep(_POLL_SECONDS)
        return len(runs) + len(pages)

    def find(self, tenant: str) -> list[str]:
        """Runs and pages that name the tenant, and logs without a run."""
        with _client() as client:
            found = [f"flow run {run.id} ({run.name}, {_state(run)})" for run in self._runs(client, tenant)]
            found += [f"artifact {page.id} ({page.key})" for page in self._pages(client, tenant)]
            return found + [f"log of flow run {one}, which is gone" for one in self._orphans(client, tenant)]

    def _runs(self, client: SyncPrefectClient, tenant: str) -> list[FlowRun]:
        """Runs that name the tenant anywhere."""
        told_of = _told_of(client, tenant)
        flows = FlowFilter(name=FlowFilterName(any_=self._flows))
        runs = _paged(
            lambda offset: client.read_flow_runs(
                flow_filter=flows, sort=FlowRunSort.START_TIME_ASC, limit=_PAGE, offset=offset
            )
        )
        return [run for run in runs if run.id != self._own and (run.id in told_of or _is_about(run, tenant))]

    def _orphans(self, client: SyncPrefectClient, tenant: str) -> list[UUID]:
        """Runs that are gone, and have left tasks or logs that name the tenant."""
        told_of = sorted(_told_of(client, tenant))
        there: set[UUID] = set()
        for start in range(0, len(told_of), _PAGE):
            ids = FlowRunFilter(id=FlowRunFilterId(any_=told_of[start : start + _PAGE]))
            there |= {run.id for run in client.read_flow_runs(flow_run_filter=ids, limit=_PAGE)}
        return [one for one in told_of if one not in there]

    def _pages(self, client: SyncPrefectClient, tenant: str) -> Iterator[Artifact]:
        keys = [key for name in self._flows for key in (page_key(name), f"{page_key(name)}-progress")]
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=keys))
        for page in _paged(lambda offset: client.read_artifacts(artifact_filter=wanted, limit=_PAGE, offset=offset)):
            said = (str(page.data or ""), page.description or "")
            if any(_without(text, tenant) != text for text in said):
                yield page


def page_key(flow: str) -> str:
    """The key of the page that a flow's runs leave: Prefect takes no `_` there."""
    return flow.replace("_", "-")


def _without(text: str, tenant: str) -> str:
    """A page without the tenant's lines: its row in a table, and any sentence with its name.

    The first line counts states, and the head of a table names columns; a tenant may be called like one of them.
    """
    lines = text.split("\n")
    return "\n".join(line for at, line in enumerate(lines) if not _tells_of(line, tenant, first=at == 0))


def _tells_of(line: str, tenant: str, *, first: bool) -> bool:
    if line.startswith("|"):
        name, *others = (cell.strip() for cell in line.strip("|").split("|"))
        return name == tenant and not (tenant == "tenant" and others[:1] == ["state"])
    return not first and mentions(tenant, line)


def _told_of(client: SyncPrefectClient, tenant: str) -> set[UUID]:
    """The runs whose tasks or logs name the tenant, as ours do; whosever they are."""
    words = f"tenant {tenant}"
    saying = LogFilter(text=LogFilterTextSearch(query=f'"{words}"'))
    lines = _paged(
        lambda offset: client.read_logs(log_filter=saying, sort=LogSort.TIMESTAMP_ASC, limit=_PAGE, offset=offset)
    )
    return {task.flow_run_id for task in _tasks(client, tenant) if task.flow_run_id} | {
        line.flow_run_id for line in lines if line.flow_run_id and mentions(words, line.message)
    }


def _tasks(client: SyncPrefectClient, tenant: str) -> Iterator[TaskRun]:
    named = TaskRunFilter(name=TaskRunFilterName(any_=[f"train {tenant}"]))
    return _paged(
        lambda offset: client.read_task_runs(
            task_run_filter=named, sort=TaskRunSort.END_TIME_DESC, limit=_PAGE, offset=offset
        )
    )


def _let_logs_arrive(runs: Iterable[FlowRun]) -> None:
    """Wait where a run is over since a moment: the end of its log is on its way, and would stay when the run is gone."""
    now = datetime.now(UTC)
    ago = [(now - run.end_time).total_seconds() for run in runs if run.end_time]
    # By two clocks, so never longer than this.
    wait = _LATE_SECONDS - min(ago, default=_LATE_SECONDS)
    if wait > 0:
        time.sleep(min(wait, _LATE_SECONDS))


def _is_about(run: FlowRun, tenant: str) -> bool:
    """Whether a run was asked for the tenant, or says something of it in the end."""
    message = run.state.message if run.state else None
    return tenant in _texts(run.parameters) or mentions(tenant, message or "")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for inner in value.values() for text in _texts(inner))
    elif isinstance(value, Sequence):
        yield from (text for inner in value for text in _texts(inner))


def _paged(read: Callable[[int], Sequence[Item]]) -> Iterator[Item]:
    offset = 0
    while page := read(offset):
        yield from page
        offset += len(page)


def _goes_on(run: FlowRun) -> bool:
    return run.state is not None and run.state.type.value in _GOES_ON


def _state(run: FlowRun) -> str:
    return run.state.name.lower() if run.state and run.state.name else "unknown"


@contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    with asking_prefect(), get_client(sync_client=True) as client:
        yield client
