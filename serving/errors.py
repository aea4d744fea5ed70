"""The one table from the domain's errors to HTTP, and the answers made of it.

They are problem details (RFC 9457), but for the Open Inference Protocol, which has a form of its own.
"""

from __future__ import annotations

import http
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from registry.errors import (
    AccessUnavailable,
    BundleCorrupt,
    CatalogueUnavailable,
    DeadlineExceeded,
    FeedbackUnavailable,
    InvalidInput,
    LoadBackingOff,
    MacrofleetError,
    ModelAlreadyLoaded,
    ModelNotFound,
    NotAuthenticated,
    NotPermitted,
    NotReady,
    OutOfResources,
    Overloaded,
    ProgramCorrupt,
    ProgramUntrusted,
    StoreError,
    TenantNotFound,
    TenantThrottled,
)
from serving.logs import REQUEST_ID

PROBLEM_JSON = "application/problem+json"
# For the proxy in front, which takes it away: nothing was done for the request, and another server may do better.
ELSEWHERE_HEADER, ELSEWHERE = "X-Macrofleet-Retry", "elsewhere"
_CONTENT_TYPE = (b"content-type", PROBLEM_JSON.encode("ascii"))
_LOG = logging.getLogger(__name__)
_FIELD_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_FIELDS = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """How one kind of failure looks from outside.

    Attributes:
        detail: what the caller reads; None says what the error says. Failures of ours have a sentence of their own,
            because the errors behind them name files and addresses.
        retry_after: seconds after which a retry may do better.
        challenge: the header WWW-Authenticate, which a 401 must have.
        elsewhere: it is this server's own, and nothing was done: a proxy may ask another server at once.
    """

    status: int
    kind: str
    title: str
    detail: str | None = None
    retry_after: int | None = None
    challenge: str | None = None
    elsewhere: bool = False


_MODEL = Problem(503, "model-unavailable", "Model unavailable", "The tenant's model cannot be loaded now.", 30)
_STORE = Problem(503, "store-unavailable", "Store unavailable", "What the answer needs cannot be read now.", 5)
INTERNAL = Problem(500, "internal", "Internal error", "The server failed; its log has the request id.")
TOO_LARGE = Problem(413, "too-large", "Request too large")

PROBLEMS: dict[type[MacrofleetError], Problem] = {
    InvalidInput: Problem(422, "invalid-request", "Malformed request"),
    NotAuthenticated: Problem(401, "not-authenticated", "No valid API key", challenge="Bearer"),
    AccessUnavailable: Problem(503, "access-unavailable", "Keys unavailable", "The API keys cannot be read now.", 5),
    NotPermitted: Problem(403, "not-permitted", "Not permitted"),
    TenantNotFound: Problem(404, "tenant-not-found", "Unknown tenant"),
    ModelNotFound: Problem(409, "no-model", "Tenant has no model yet"),
    CatalogueUnavailable: Problem(
        503, "catalogue-unavailable", "Catalogue unavailable", "The tenant's macro catalogue cannot be read.", 30
    ),
    BundleCorrupt: _MODEL,
    ProgramCorrupt: _MODEL,
    ProgramUntrusted: _MODEL,
    StoreError: _STORE,
    LoadBackingOff: _MODEL,
    ModelAlreadyLoaded: Problem(409, "already-loaded", "Model already loaded"),
    OutOfResources: Problem(507, "out-of-resources", "Out of resources", "The model does not fit into what is left."),
    TenantThrottled: Problem(429, "throttled", "Too many requests of this tenant", retry_after=1),
    Overloaded: Problem(503, "overloaded", "Overloaded", "More requests are waiting than may wait.", 1),
    FeedbackUnavailable: Problem(
        503,
        "feedback-unavailable",
        "Feedback cannot be kept",
        "Feedback cannot be kept now; nothing of it was.",
        10,
        elsewhere=True,
    ),
    NotReady: Problem(503, "not-ready", "Not ready", "The server is starting or stopping.", 5, elsewhere=True),
    DeadlineExceeded: Problem(504, "deadline-exceeded", "Deadline exceeded", "No answer within the deadline."),
}


class FieldProblem(BaseModel):
    """One field of a request that cannot be used."""

    field: str
    message: str


class ProblemDetails(BaseModel):
    """The body of every answer that is not a success."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    fields: list[FieldProblem] | None = None


def problem_for(error: MacrofleetError) -> Problem:
    """The table's line for an error: that of its class, or of the nearest class above it."""
    return next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), INTERNAL)


def problem_details(
    problem: Problem, *, path: str, detail: str, fields: list[FieldProblem] | None, request_id: str
) -> ProblemDetails:
    """The body of an answer that tells of a problem; see `problem_response`."""
    return ProblemDetails(
        type=f"urn:macrofleet:problem:{problem.kind}",
        title=problem.title,
        status=problem.status,
        detail=problem.detail or detail or problem.title,
        instance=quote(path),
        request_id=request_id,
        fields=fields,
    )


def problem_response(
    problem: Problem,
    *,
    path: str,
    detail: str = "",
    fields: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer that tells of a problem. `detail` is used where the problem has no sentence of its own."""
    # A ProblemDetails, which a test holds this to; a tenant over its limits is refused thousands of times a second.
    body: dict[str, Any] = {
        "type": f"urn:macrofleet:problem:{problem.kind}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail or detail or problem.title,
        "instance": quote(path),
        "request_id": REQUEST_ID.get(),
    }
    if fields is not None:
        body["fields"] = [field.model_dump() for field in fields]
    return _ProblemResponse(problem.status, to_json(body), {**problem_headers(problem), **(headers or {})})


def problem_headers(problem: Problem) -> dict[str, str]:
    """What a problem's answer has beside its body, whatever the form of that."""
    headers = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
    if problem.challenge is not None:
        headers["WWW-Authenticate"] = problem.challenge
    if problem.elsewhere:
        headers[ELSEWHERE_HEADER] = ELSEWHERE
    return headers


class _ProblemResponse(Response):
    """What `Response` makes of the same arguments, in a third of the time."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [(name.lower().encode("latin-1"), headers[name].encode("latin-1")) for name in headers]
        self.raw_headers += [(b"content-length", b"%d" % len(body)), _CONTENT_TYPE]


def inference_error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as the Open Inference Protocol has it."""
    return JSONResponse({"error": message}, status_code=status, headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Answer domain errors, refused requests and unknown routes with problem details.

    What nobody expected is `serving.faces.edge`'s, which stands further out.
    """
    app.add_exception_handler(MacrofleetError, _domain_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)


async def _domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MacrofleetError)
    return domain_problem(error, path=request.url.path, tenant=request.path_params.get("tenant"))


def domain_answer(error: MacrofleetError, *, path: str) -> Response:
    """The answer to a domain error before a route was found, in the form of the face that the path belongs to."""
    if path != "/v2" and not path.startswith("/v2/"):
        return domain_problem(error, path=path, tenant=None)
    problem = problem_for(error)
    return inference_error(problem.status, problem.detail or str(error), problem_headers(problem))


def domain_problem(error: MacrofleetError, *, path: str, tenant: str | None) -> Response:
    """The answer to a domain error; the log has what it leaves out."""
    problem = problem_for(error)
    if problem.status >= 500:
        extra = {"tenant": tenant, "status": problem.status}
        _LOG.warning(problem.title, extra=extra, exc_info=error)
    return problem_response(problem, path=path, detail=str(error), headers=retry_headers(error))


def retry_headers(error: MacrofleetError) -> dict[str, str]:
    """Retry-After, in whole seconds, where the error itself knows when a retry may do better."""
    seconds = getattr(error, "retry_after_seconds", None)
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return invalid_problem(error, path=request.url.path)


def invalid_problem(error: RequestValidationError, *, path: str) -> Response:
    """The answer to a request that cannot be used."""
    fields = [_field_problem(found) for found in error.errors()[:_MAX_FIELDS]]
    detail = "; ".join(f"{field.field}: {field.message}" for field in fields)
    return problem_response(PROBLEMS[InvalidInput], path=path, detail=detail, fields=fields)


def _field_problem(found: Mapping[str, Any]) -> FieldProblem:
    """Where and why, never what: the value is somebody's ticket, and a name that is no name may be as well."""
    place: Sequence[Any] = found["loc"]
    names = [str(part) if _FIELD_NAME.fullmatch(str(part)) else "?" for part in place]
    return FieldProblem(field=".".join(names) or "body", message=found["msg"].removeprefix("Value error, "))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = http.HTTPStatus(error.status_code).phrase
    problem = Problem(error.status_code, phrase.lower().replace(" ", "-"), phrase)
    detail = f"{request.method} {quote(request.url.path)} is not served here."
    return problem_response(problem, path=request.url.path, detail=detail, headers=error.headers)
