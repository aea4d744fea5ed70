"""`POST /v1/tenants/{tenant}/feedback`: what an agent did after a suggestion."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.feedback.records import feedback_id
from registry.model.bundle import MacroId
from serving.answering import Answering
from serving.errors import PROBLEM_JSON, ProblemDetails
from serving.faces.guard import GuardedRoute, needs
from serving.faces.product import SECURITY_SCHEME
from serving.feedback.log import FeedbackLog
from serving.outcomes import Outcomes

_ROUTE = "/v1/tenants/{tenant:path}/feedback"
# Events, of some 150 bytes each: those of minutes on a busy server.
_REMEMBERED = 10_000
_SUGGESTION = r"^[A-Za-z0-9_-]{1,64}$"
_PROBLEMS = {
    401: "There is no API key, or none that is valid.",
    403: "The key lacks the scope.",
    404: "No such tenant, or none that the caller may know of.",
    413: "The body is too large.",
    422: "The request is not one.",
    429: "The tenant asks for more than its share.",
    503: "Feedback cannot be kept now, and nothing of it was; see Retry-After.",
}


class FeedbackRequest(BaseModel):
    """What became of one suggestion. Sending it again, here or to another server, changes nothing.

    Attributes:
        suggestion_id: of the answer that it is about.
        applied: the macro that the agent applied, suggested or not; null for none. It must be said.
        shown: the macros that the agent saw; may be left out.
        ticket_id: as in the request for suggestions, and as the import of tickets has it: training joins by it.
        model_version: of the answer that it is about; may be left out.
        event_id: the caller's own name for the event, at most once a suggestion; by default what it says is its name.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "suggestion_id": "0hTzZ0mJm3m8c7n1yq8jV5Zk",
                    "applied": "m12",
                    "shown": ["m12", "m7"],
                    "ticket_id": "4711",
                    "model_version": "9f2b6c1d4e5a7788",
                    "event_id": "4711-2",
                }
            ]
        },
    )

    suggestion_id: Annotated[str, Field(pattern=_SUGGESTION)]
    applied: MacroId | None
    shown: Annotated[tuple[MacroId, ...], Field(max_length=10)] | None = None
    ticket_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    model_version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    event_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None


class FeedbackResponse(BaseModel):
    """The feedback is on the server's disk.

    Attributes:
        feedback_id: the same however often the event is sent.
    """

    feedback_id: str


class Once:
    """Tells of an event whether it is new, by the names of those that came last.

    Args:
        most: how many are remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: OrderedDict[str, None] = OrderedDict()

    def is_new(self, name: str) -> bool:
        """Whether it was not asked for before, as far as that is remembered; the next time it was."""
        if name in self._seen:
            self._seen.move_to_end(name)
            return False
        self._seen[name] = None
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        return True


def make_feedback_router(answering: Answering, outcomes: Outcomes, log: FeedbackLog) -> APIRouter:
    """The route."""
    router = APIRouter(route_class=GuardedRoute)
    heard = Once(_REMEMBERED)

    @router.post(
        _ROUTE,
        status_code=202,
        response_model=FeedbackResponse,
        responses={
            status: {"description": text, "content": {PROBLEM_JSON: {"schema": _reference(ProblemDetails)}}}
            for status, text in _PROBLEMS.items()
        },
        openapi_extra={
            "security": [{SECURITY_SCHEME: []}],
            "requestBody": {"required": True, "content": {"application/json": {"schema": _reference(FeedbackRequest)}}},
        },
        summary="Say what became of a suggestion",
    )
    @needs("feedback")
    async def feedback(tenant: str, request: Request) -> FeedbackResponse:
        """Accepted once it is on the server's disk; it reaches reports and training within minutes to an hour."""
        answering.ask(tenant)
        told = _parse(await request.body())
        name = feedback_id(
            tenant,
            told.suggestion_id,
            told.event_id,
            applied=told.applied,
            shown=told.shown,
            ticket_id=told.ticket_id,
        )
        record = {
            "tenant": tenant,
            "kind": "feedback",
            "at": time.time(),
            "id": name,
            "suggestion_id": told.suggestion_id,
            "model_version": told.model_version,
            "ticket_id": told.ticket_id,
            "shown": told.shown,
            "applied": told.applied,
        }
        await log.keep(record)
        # A caller whose answer was lost sends it again, and a trial of a version must not count it twice.
        if heard.is_new(name) and told.model_version is not None and told.shown:
            outcomes.hear(tenant, told.model_version, accepted=told.applied in told.shown)
        return FeedbackResponse(feedback_id=name)

    return router


def _parse(body: bytes) -> FeedbackRequest:
    try:
        return FeedbackRequest.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(found) from None


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
