"""The runs that only Prefect's server knows, read from its REST API: no Prefect in this process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx

from flows.status import TAG, RunStatus
from registry.errors import SchedulerUnavailable

_NEXT = 3
_TIMEOUT = httpx.Timeout(3.0, connect=1.0)


class PrefectRest:
    """A Prefect server. May be used from any thread; `close` after use.

    Args:
        url: as `PREFECT_API_URL` has it.
        headers: who asks.
        client: for tests.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, client: httpx.Client | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._client = client or httpx.Client(timeout=_TIMEOUT, headers=headers)

    @classmethod
    def from_environment(cls) -> PrefectRest | None:
        """The server that Prefect's own variables name; None where they name none."""
        url = os.environ.get("PREFECT_API_URL", "").strip()
        if not url:
            return None
        key, login = os.environ.get("PREFECT_API_KEY"), os.environ.get("PREFECT_API_AUTH_STRING")
        if key:
            return cls(url, headers={"Authorization": f"Bearer {key}"})
        if login:
            basic = httpx.BasicAuth(*login.partition(":")[::2])
            return cls(url, client=httpx.Client(timeout=_TIMEOUT, auth=basic))
        return cls(url)

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def runs(self, *, last: int) -> list[RunStatus]:
        """The last runs of our deployments, and the next few. Raises SchedulerUnavailable."""
        ours = {"tags": {"all_": [TAG]}}
        flows = self._ask("/flows/filter", {"deployments": ours})
        names = {str(flow.get("id")): str(flow.get("name", "")) for flow in flows}
        coming = self._flow_runs(ours, {"any_": ["SCHEDULED"]}, "EXPECTED_START_TIME_ASC", _NEXT)
        begun = self._flow_runs(ours, {"not_any_": ["SCHEDULED"]}, "EXPECTED_START_TIME_DESC", last)
        return [_status(run, names.get(str(run.get("flow_id")), "")) for run in (*coming, *begun)]

    def _flow_runs(self, ours: Any, state: Any, sort: str, limit: int) -> list[dict[str, Any]]:
        chosen = {"deployments": ours, "flow_runs": {"state": {"type": state}}, "sort": sort, "limit": limit}
        return self._ask("/flow_runs/filter", chosen)

    def _ask(self, path: str, body: Any) -> list[dict[str, Any]]:
        try:
            answer = self._client.post(f"{self._url}{path}", json=body).raise_for_status().json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
            raise SchedulerUnavailable(
                f"Prefect's server does not answer ({type(problem).__name__})",
                remedy="What runs left in the store is shown without it; check PREFECT_API_URL.",
            ) from None
        return [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []


def _status(run: Mapping[str, Any], flow: str) -> RunStatus:
    state = run.get("state") or {}
    kind = str(state.get("type") or "PENDING")
    waits = kind == "SCHEDULED"
    began = run.get("start_time")
    return RunStatus(
        run="",
        flow=flow,
        flow_run_id=str(run.get("id", "")),
        # "Late" says more than "scheduled"; the names of ends are each flow's own.
        state=str((state.get("name") if waits else None) or kind).lower(),
        started_at=_time(began or run.get("expected_start_time")),
        seconds=round(float(run.get("total_run_time") or 0), 1) if began else None,
        counts={},
        reason="" if waits else str(state.get("message") or "").split("\n", maxsplit=1)[0],
    )


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None
