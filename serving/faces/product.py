"""The product API: suggestions for a ticket, and health."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from fastapi.exceptions import RequestValidationError
from pydantic import AwareDatetime, BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.responses import Response

from registry.errors import InvalidInput, MacrofleetError, NotPermitted
from registry.model.bundle import MacroId
from registry.text.ticket import customer_messages
from serving.access import Grant
from serving.answering import Answering
from serving.data_plane import DataPlane
from serving.errors import (
    PROBLEM_JSON,
    PROBLEMS,
    TOO_LARGE,
    FieldProblem,
    ProblemDetails,
    domain_problem,
    invalid_problem,
    problem_details,
)
from serving.faces.edge import MAX_BODY_BYTES
from serving.faces.guard import GuardedRoute, grant_if_any, grant_of, needs
from serving.suggestions.choice import Reason, is_blank
from serving.suggestions.reading import TicketReader
from serving.suggestions.views import Views

_PREFIX, _SUFFIX = "/v1/tenants/", "/suggestions"
_ROUTE = f"{_PREFIX}{{tenant}}{_SUFFIX}"
# A body of 10,000 bytes or more is taken for a long ticket before it is read.
_DIGITS_OF_LONG = 5
_TIMEOUT = TypeAdapter(Annotated[int, Field(ge=1, le=60_000)])
_COMPONENT = "#/components/schemas/{model}"
SECURITY_SCHEME = "apiKey"
_PROBLEMS = {
    401: "There is no API key, or none that is valid.",
    403: "The key lacks the scope, or explanations are asked for by somebody who is no administrator.",
    404: "There is no such tenant, or none that the caller may know of.",
    409: "The tenant has no model yet; the detail says why.",
    413: "The body is over {size}.",
    422: "The request is malformed; `fields` says where.",
    429: "The tenant is over its rate or its concurrency; see Retry-After.",
    503: "Too busy, starting, or the model cannot be loaded; see Retry-After.",
    504: "No answer within the deadline.",
}
# What the error itself says in the examples, for the problems that have no sentence of their own.
_DETAILS = {
    401: "this needs a valid API key. Send it as `Authorization: Bearer mf_…`.",
    403: "explanations are for administrators",
    404: "there is no such tenant",
    409: "tenant acme has no model to serve: too few examples",
    413: "A request's body may have {size} bytes.",
    422: "ticket.id: Field required",
    429: "tenant acme asks more than 50 times a second",
}
# Problems that only the operator's faces, SageMaker's, and feedback can have.
_OF_OTHER_FACES = {"already-loaded", "out-of-resources", "feedback-unavailable"}
# Tenants whose model is not on disk, of a fleet that may have lost its store.
_MOST_LISTED = 100
Name = Annotated[str, Field(min_length=1, max_length=128)]


# Of a row the first wrong element is told, and nothing is looked at behind it (`FailFast`): saying of each of 20,000 what is
# wrong with it took the event loop 100 ms.
class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Comment(_Strict):
    """One message of a ticket; only the customer's public ones are read by a model."""

    author: Literal["customer", "agent"]
    body: str
    public: bool = True
    created_at: AwareDatetime | None = None


class Ticket(_Strict):
    """A ticket as it is when a suggestion is wanted."""

    id: Name
    revision: Annotated[int, Field(ge=0, le=2**53)] = 0
    subject: str | None = None
    comments: Annotated[tuple[Comment, ...], FailFast()] = ()
    channel: Annotated[str, Field(max_length=64)] | None = None
    locale: Annotated[str, Field(max_length=64)] | None = None

    def said(self) -> tuple[str, list[str]]:
        """The subject and the customer's public messages, of which `serving.suggestions.reading` makes what a model reads."""
        return self.subject or "", customer_messages(self.comments)


class Agent(_Strict):
    """Who asks. Macros that are restricted to groups are suggested to whoever names one of theirs."""

    id: Name
    groups: Annotated[tuple[Name, ...], Field(max_length=500), FailFast()] = ()


class SuggestionRequest(_Strict):
    """A ticket to suggest macros for. `explain` is for administrators: each macro then says what drove it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ticket": {
                        "id": "4711",
                        "revision": 2,
                        "subject": "Parcel not here",
                        "comments": [
                            {
                                "author": "customer",
                                "public": True,
                                "body": "My parcel should have arrived on Monday. Where is it?",
                                "created_at": "2026-11-03T09:12:00Z",
                            }
                        ],
                        "channel": "email",
                        "locale": "en-GB",
                    },
                    "agent": {"id": "a-17", "groups": ["support"]},
                    "limit": 3,
                    "exclude": [],
                    "explain": False,
                }
            ]
        }
    )

    ticket: Ticket
    agent: Agent | None = None
    limit: Annotated[int, Field(ge=1, le=3)] = 3
    exclude: Annotated[tuple[MacroId, ...], Field(max_length=1000), FailFast()] = ()
    explain: bool = False


class MacroOut(BaseModel):
    """A suggested macro, its title of today and the model's probability for it."""

    id: str
    title: str
    score: float


class ContributionOut(BaseModel):
    """Words of the ticket, and what the macro's log-odds lose without them."""

    text: str
    contribution: float


class ExplainedMacroOut(MacroOut):
    """A suggested macro and what drove it, from what spoke for it most to what spoke against it."""

    explanation: list[ContributionOut]


class SuggestionResponse(BaseModel):
    """Up to `limit` macros, best first, or none and the reason.

    `held_back`: there are macros, and they are not shown, as for a few per cent of tickets, so that it is known what agents
    do without suggestions.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "suggestion_id": "s1_0hTzZ0mJm3m8c7n1yq8jVw",
                    "model_version": "9f2b6c1d4e5a7788",
                    "abstained": False,
                    "held_back": False,
                    "reason": None,
                    "macros": [{"id": "m12", "title": "Shipping::Where is my parcel", "score": 0.83}],
                }
            ]
        }
    )

    suggestion_id: str
    model_version: str
    abstained: bool
    held_back: bool = False
    reason: Reason | None
    macros: list[ExplainedMacroOut | MacroOut]


class SuggestionFace:
    """`POST /v1/tenants/{tenant}/suggestions`, from the body's bytes to the answer's.

    `serving.faces.edge` calls it straight: FastAPI's routing, dependencies and wrappers took more of a request than all of ours
    together. The route is in the router as well, for its documentation.

    Administrators may ask for explanations.
    """

    path = _ROUTE

    def __init__(self, answering: Answering, views: Views, reader: TicketReader) -> None:
        self._answering = answering
        self._reader = reader
        self._views = views

    @staticmethod
    def tenant_of(path: str) -> str | None:
        """The tenant that a path names, whatever it is; None for a path of something else."""
        if (
            path.startswith(_PREFIX)
            and path.endswith(_SUFFIX)
            and len(path) >= len(_PREFIX + _SUFFIX)
            and path.isprintable()
        ):
            return path[len(_PREFIX) : -len(_SUFFIX)]
        return None

    def refusal(self, tenant: str, path: str, grant: Grant, length: str) -> Response | None:
        """The answer to a request that is refused before anything is read of it; None lets it in."""
        try:
            grant.check("suggest", tenant)
            self._answering.ask(tenant)
            if len(length) >= _DIGITS_OF_LONG:
                self._reader.check(tenant)
        except MacrofleetError as error:
            return domain_problem(error, path=path, tenant=tenant)
        return None

    async def respond(self, tenant: str, path: str, timeout: str | None, body: bytes, grant: Grant) -> Response | bytes:
        """The body of a success, or whatever else there is to answer. After `refusal`.

        Args:
            timeout: the header X-Request-Timeout-Ms.
        """
        try:
            return await self.answer_asked(tenant, body, None if timeout is None else _parse_timeout(timeout), grant)
        except MacrofleetError as error:
            return domain_problem(error, path=path, tenant=tenant)
        except RequestValidationError as error:
            return invalid_problem(error, path=path)

    async def answer(self, tenant: str, body: bytes, timeout_ms: int | None, grant: Grant) -> bytes:
        """The body of a success, for who has not asked for a `refusal`, and has checked the grant.

        Raises:
            RequestValidationError: the body is no request.
            MacrofleetError: what `Answering.ask`, `TicketReader.read` and `Answering.answer` raise.
        """
        self.ask(tenant)
        return await self.answer_asked(tenant, body, timeout_ms, grant)

    def ask(self, tenant: str) -> None:
        """Count a request against its tenant's limits. Raises what `Answering.ask` raises."""
        self._answering.ask(tenant)

    async def answer_asked(self, tenant: str, body: bytes, timeout_ms: int | None, grant: Grant) -> bytes:
        """What `answer` gives, for who has asked already."""
        asked = _parse(body)
        if asked.explain and not grant.has("tenant-admin"):
            raise NotPermitted(
                "explanations are for administrators", remedy="Ask with a key that has the scope tenant-admin."
            )
        text, timeout_seconds = await self._reader.read(
            tenant, *asked.ticket.said(), timeout_seconds=None if timeout_ms is None else timeout_ms / 1000
        )
        if is_blank(text):
            raise InvalidInput("the ticket has no text", remedy="Send a subject, or a public comment of the customer.")
        answer = await self._answering.answer(
            tenant,
            text,
            ticket=asked.ticket.id,
            revision=asked.ticket.revision,
            limit=asked.limit,
            exclude=asked.exclude,
            groups=asked.agent.groups if asked.agent else (),
            locale=asked.ticket.locale,
            timeout_seconds=timeout_seconds,
        )
        # Explanations are for administrators, who look at the model and not at a ticket of theirs.
        held_back = self._views.see(tenant, asked.ticket.id, answer, eligible=not asked.explain)
        suggested = () if held_back else answer.suggestions.macros
        macros: list[dict[str, Any]] = [
            {"id": macro.id, "title": macro.title, "score": macro.score} for macro in suggested
        ]
        if asked.explain:
            explained = await self._answering.explain(tenant, text, answer, timeout_seconds=timeout_seconds)
            for macro, explanation in zip(macros, explained, strict=True):
                macro["explanation"] = [{"text": one.text, "contribution": one.contribution} for one in explanation]
        # A SuggestionResponse, which a test holds this to; validating what we made ourselves takes five times as long.
        return to_json(
            {
                "suggestion_id": answer.suggestion_id,
                "model_version": answer.model_version,
                "abstained": not answer.suggestions.macros,
                "held_back": held_back,
                "reason": answer.suggestions.reason,
                "macros": macros,
            }
        )


def make_router(face: SuggestionFace) -> APIRouter:
    """The routes of the product API."""
    router = APIRouter(route_class=GuardedRoute)

    # `:path`, so that a name with a slash in it, escaped or not, is an unknown tenant like any other.
    @router.post(
        _ROUTE.replace("{tenant}", "{tenant:path}"),
        response_model=SuggestionResponse,
        responses=problem_responses(_ROUTE),
        openapi_extra={
            "security": [{SECURITY_SCHEME: []}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": reference(SuggestionRequest)}},
            },
        },
        summary="Suggest macros for a ticket",
    )
    @needs("suggest")
    async def suggestions(
        tenant: str,
        request: Request,
        x_request_timeout_ms: Annotated[int | None, Header(ge=1, le=60_000)] = None,
    ) -> Response:
        """Up to three of the tenant's macros, best first; none when no macro is good enough."""
        body = await face.answer(tenant, await request.body(), x_request_timeout_ms, grant_of(request))
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})

    return router


def make_health_router(data_plane: DataPlane) -> APIRouter:
    """Liveness and readiness, which both faces of a server have, and which are open to everybody."""
    router = APIRouter(route_class=GuardedRoute)

    @router.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", summary="Whether requests may be sent here; shows the progress of preloading")
    async def readyz(request: Request, response: Response) -> dict[str, Any]:
        """To an operator `failed` names the first hundred tenants whose model is not on disk; others are told how many."""
        state = data_plane.readiness()
        grant = grant_if_any(request)
        failed = state.progress.failed
        if not state.ready:
            response.status_code = 503
            response.headers["Retry-After"] = "1"
        return {
            "ready": state.ready,
            "draining": state.draining,
            "share_of": state.share_of,
            "fleet": {"generation": state.generation, "age_seconds": state.fleet_age_seconds},
            "models": {
                "total": state.progress.models,
                "on_disk": state.progress.on_disk,
                "skipped": state.progress.skipped,
                "failed": (
                    dict(sorted(failed.items())[:_MOST_LISTED])
                    if grant is not None and grant.has("operator")
                    else len(failed)
                ),
            },
        }

    return router


def _parse(body: bytes) -> SuggestionRequest:
    """Straight from bytes: strict UTF-8 and JSON, and half the time of parsing and validating in two steps."""
    try:
        return SuggestionRequest.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(found) from None


def _parse_timeout(value: str) -> int:
    try:
        return _TIMEOUT.validate_python(value)
    except ValidationError as error:
        (found,) = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**found, "loc": ("header", "x-request-timeout-ms")}]) from None


def problem_responses(
    path: str, *, without: Collection[int] = (), max_bytes: int = MAX_BODY_BYTES
) -> dict[int | str, dict[str, Any]]:
    """What a route of suggestions may answer beside a success, for its documentation.

    Args:
        path: its template.
        without: statuses that it does not have.
        max_bytes: of a body.
    """
    return {
        status: {
            "description": text.format(size=f"{max_bytes // 1024} KiB"),
            "content": {
                PROBLEM_JSON: {"schema": reference(ProblemDetails), "examples": _examples(status, path, max_bytes)}
            },
        }
        for status, text in _PROBLEMS.items()
        if status not in without
    }


def _examples(status: int, path: str, max_bytes: int) -> dict[str, Any]:
    """What a problem with this status looks like, by its kind."""
    fields = [FieldProblem(field="ticket.id", message="Field required")] if status == 422 else None
    examples = {}
    for problem in (*PROBLEMS.values(), TOO_LARGE):
        if problem.status == status and problem.kind not in _OF_OTHER_FACES:
            body = problem_details(
                problem,
                path=path.format(tenant="acme"),
                detail=_DETAILS.get(status, "").format(size=max_bytes),
                fields=fields,
                request_id="5f0c6a3b9d1e4c7fa2b8d03e61c94f75",
            )
            examples[problem.kind] = {"summary": problem.title, "value": body.model_dump(exclude_none=True)}
    return examples


def reference(model: type[BaseModel]) -> dict[str, str]:
    """Where an OpenAPI document has a model."""
    return {"$ref": _COMPONENT.format(model=model.__name__)}


def add_schemas(openapi: Mapping[str, Any], *models: type[BaseModel]) -> None:
    """Complete an OpenAPI document with what FastAPI cannot see: the requests, which we parse, and the problems."""
    described: tuple[type[BaseModel], ...] = (SuggestionRequest, ProblemDetails, *models)
    for model in described:
        schema = model.model_json_schema(ref_template=_COMPONENT)
        openapi["components"]["schemas"] |= {**schema.pop("$defs", {}), model.__name__: schema}
    openapi["components"]["securitySchemes"] = {
        SECURITY_SCHEME: {"type": "http", "scheme": "bearer", "bearerFormat": "mf_…"}
    }
