"""Suggestions for several tickets in one request; what is wrong with one of them is said in its place."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json
from starlette.responses import Response

from registry.errors import DeadlineExceeded, MacrofleetError
from serving.access import Grant
from serving.errors import INTERNAL, TOO_LARGE, ProblemDetails, domain_problem, invalid_problem, problem_response
from serving.faces.edge import MAX_BATCH_BYTES, MAX_BODY_BYTES, CallerWatch, is_batch
from serving.faces.guard import GuardedRoute, grant_of, needs
from serving.faces.product import (
    SECURITY_SCHEME,
    SuggestionFace,
    SuggestionRequest,
    SuggestionResponse,
    problem_responses,
    reference,
)

MAX_REQUESTS = 32
# Under way at once, of one batch: enough to fill the program's batches, and a part of what a tenant may have.
_AT_ONCE = 8
_LONG_BYTES = 32 * 1024
_ROUTE = "/v1/tenants/{tenant:path}/suggestions/batch"
_PATH = "/v1/tenants/{tenant}/suggestions/batch"
_LOG = logging.getLogger(__name__)
assert is_batch(_PATH)


class BatchRequest(BaseModel):
    """Requests for suggestions, each what `POST …/suggestions` takes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    requests: Annotated[list[SuggestionRequest], Field(min_length=1, max_length=MAX_REQUESTS)]


class BatchAnswer(BaseModel):
    """What a request alone would have been answered: a status, and a suggestion or a problem."""

    status: int
    suggestion: SuggestionResponse | None = None
    problem: ProblemDetails | None = None


class BatchResponse(BaseModel):
    """The answers, in the order of the requests."""

    answers: list[BatchAnswer]


class _Envelope(BaseModel):
    """The request as it is read: what is within is looked at one by one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    requests: Annotated[list[Any], Field(min_length=1, max_length=MAX_REQUESTS)]


def make_batch_router(face: SuggestionFace) -> APIRouter:
    """The route of batches."""
    router = APIRouter(route_class=GuardedRoute)

    @router.post(
        _ROUTE,
        response_model=BatchResponse,
        responses=problem_responses(
            _PATH,
            without=(409, 504),
            max_bytes=MAX_BATCH_BYTES,
        ),
        openapi_extra={
            "security": [{SECURITY_SCHEME: []}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": reference(BatchRequest)}},
            },
        },
        summary="Suggest macros for several tickets",
    )
    @needs("suggest")
    async def suggestions_batch(
        tenant: str,
        request: Request,
        x_request_timeout_ms: Annotated[int | None, Header(ge=1, le=60_000)] = None,
    ) -> Response:
        """Up to 32 requests of 64 KiB each at most, answered in order. Each counts against the tenant's limits.

        The status is 200 as soon as the batch can be read and the tenant is known; each answer has the status that its
        request alone would have had.
        """
        body = await request.body()
        asked = _parse(body)
        with CallerWatch(request.receive):
            answers = await _Batch(face, tenant, request.url.path, grant_of(request), x_request_timeout_ms).answer(
                asked, one_a_turn=len(body) > _LONG_BYTES
            )
        body = b'{"answers":[' + b",".join(answers) + b"]}"
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})

    return router


class _Batch:
    def __init__(self, face: SuggestionFace, tenant: str, path: str, grant: Grant, timeout_ms: int | None) -> None:
        self._face = face
        self._tenant = tenant
        self._path = path
        self._grant = grant
        self._ends = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def answer(self, requests: list[Any], *, one_a_turn: bool) -> list[bytes]:
        """An answer for each, whatever becomes of the others.

        Args:
            one_a_turn: begin with one in each turn of the event loop, so that others have theirs: of 64 KiB parsing and
                checking alone take up to 5 ms.

        Raises:
            MacrofleetError: the tenant is not known here, or the first request is over its limits: then all are.
        """
        self._face.ask(self._tenant)
        tasks = []
        async with asyncio.TaskGroup() as group:
            for place, request in enumerate(requests):
                tasks.append(group.create_task(self._one(request, is_asked=place == 0)))
                if one_a_turn:
                    await asyncio.sleep(0)
        return [task.result() for task in tasks]

    async def _one(self, request: Any, *, is_asked: bool) -> bytes:
        async with self._turn:
            problem = await self._tried(request, is_asked=is_asked)
        if isinstance(problem, bytes):
            return b'{"status":200,"suggestion":' + problem + b"}"
        return b'{"status":%d,"problem":' % problem.status_code + bytes(problem.body) + b"}"

    async def _tried(self, request: Any, *, is_asked: bool) -> bytes | Response:
        try:
            body = to_json(request)
            if len(body) > MAX_BODY_BYTES:
                detail = f"One request of a batch may have {MAX_BODY_BYTES} bytes."
                return problem_response(TOO_LARGE, path=self._path, detail=detail)
            left = self._milliseconds_left()
            if is_asked:
                return await self._face.answer_asked(self._tenant, body, left, self._grant)
            return await self._face.answer(self._tenant, body, left, self._grant)
        except MacrofleetError as error:
            return domain_problem(error, path=self._path, tenant=self._tenant)
        except RequestValidationError as error:
            return invalid_problem(error, path=self._path)
        except Exception:  # noqa: BLE001  # the others are answered all the same
            _LOG.exception("a request of a batch failed")
            return problem_response(INTERNAL, path=self._path)

    def _milliseconds_left(self) -> int | None:
        if self._ends is None:
            return None
        left = int((self._ends - time.monotonic()) * 1000)
        if left < 1:
            raise DeadlineExceeded("there was no answer within the batch's deadline")
        return left


def _parse(body: bytes) -> list[Any]:
    try:
        return _Envelope.model_validate(from_json(body, allow_inf_nan=False)).requests
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(found) from None
    except ValueError:
        # The parser's words would repeat some of the body.
        raise RequestValidationError([{"loc": (), "msg": "Invalid JSON", "type": "json_invalid"}]) from None
