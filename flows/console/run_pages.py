"""The last runs, from what they left in the store, and what only Prefect knows; one run tenant by tenant."""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from flows.console.rows import number, place
from flows.console.world import World
from flows.status import describe_run, recent_runs, with_prefect
from registry.errors import InvalidInput, ObjectNotFound, SchedulerUnavailable
from registry.names import check_run

_LAST = 30
_SIZE = 100


def run_router(world: World) -> APIRouter:
    """`/runs` and `/runs/{run}`."""
    router = APIRouter(prefix="/runs")

    @router.get("")
    def last_runs(request: Request) -> Response:
        found, problem = recent_runs(world.store, last=_LAST), ""
        if world.prefect is not None:
            try:
                found = with_prefect(found, world.prefect.runs(last=_LAST))
            except SchedulerUnavailable as error:
                problem = str(error)
        return world.pages.page(request, "runs.html", runs=found, problem=problem, prefect=world.prefect is not None)

    @router.get("/{run}")
    def one_run(request: Request, run: str) -> Response:
        try:
            status, outcomes = describe_run(world.store, check_run(run))
        except InvalidInput as error:
            raise ObjectNotFound(error.what, remedy=error.remedy) from None
        given = request.query_params
        text, state = given.get("q", "").strip().lower()[:63], given.get("state", "")[:40]
        searched = [one for one in outcomes if text in str(one["tenant"])]
        counts = Counter(str(one["state"]) for one in searched)
        wanted = [one for one in searched if state in ("", one["state"])]
        page, pages, first = place(len(wanted), number(given.get("page"), 1), _SIZE)

        def href(**changes: str | int) -> str:
            values = {"q": text, "state": state, "page": 1} | changes
            used = {name: value for name, value in values.items() if value not in ("", 1)}
            return f"/runs/{run}?{urlencode(used)}" if used else f"/runs/{run}"

        return world.pages.page(
            request,
            "run.html",
            run=status,
            outcomes=wanted[first : first + _SIZE],
            total=len(wanted),
            first=first,
            page=page,
            pages=pages,
            counts=counts.most_common(),
            searched=len(searched),
            text=text,
            state=state,
            href=href,
        )

    return router
