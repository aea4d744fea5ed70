"""What a client of the product API says and understands, without I/O: requests, answers, and when to try again.

`serving.client` sends. Nothing here knows the API key, so no error of it can say it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from registry.errors import InvalidInput
from registry.names import check_tenant
from serving.client.types import (
    Answer,
    ApiError,
    FieldProblem,
    InvalidRequest,
    NoModel,
    NotAuthenticated,
    NotPermitted,
    RateLimited,
    Suggestion,
    SuggestionRequest,
    TenantNotFound,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
)

Result = TypeVar("Result")

# 32 answers with explanations have some hundred kilobytes.
MAX_ANSWER_BYTES = 8 * 1024 * 1024
# Far more than a server takes (a minute), and what a socket can be told: it has no infinity.
_MOST_SECONDS = 86_400.0
_PROBLEM_JSON = "application/problem+json"
_PROBLEM = "urn:macrofleet:problem:"
_MOST_DETAIL = 1000
_LONGEST_SERVER_MS = 60_000
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SECONDS = re.compile(r"[0-9]{1,6}")
# 502 is a proxy's, whose server is being started again.
_PASSING = frozenset({429, 502, 503})
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0
# Of a wait that the server asked for: as much more by chance, so that many who were refused at once do not come back at once.
_SPREAD = 0.25

_KINDS: Mapping[str, type[ApiError]] = {
    "not-authenticated": NotAuthenticated,
    "not-permitted": NotPermitted,
    "tenant-not-found": TenantNotFound,
    "no-model": NoModel,
    "invalid-request": InvalidRequest,
    "too-large": InvalidRequest,
    "throttled": RateLimited,
    "deadline-exceeded": TimedOut,
}
# For answers of proxies, which have no problem, and for kinds that are not known yet.
_STATUSES: Mapping[int, type[ApiError]] = {
    401: NotAuthenticated,
    403: NotPermitted,
    413: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: TimedOut,
}


@dataclass(frozen=True, slots=True)
class Request(Generic[Result]):
    """One request of the API.

    Attributes:
        path: below the base URL.
        body: JSON.
        success: the status of one.
        read: makes its answer of a success's body; raises ValueError or TypeError where it is none.
    """

    path: str
    body: bytes
    success: int
    read: Callable[[bytes], Result]


@dataclass(frozen=True, slots=True)
class _BatchAnswer:
    status: int
    suggestion: Suggestion | None = None
    problem: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _BatchAnswers:
    answers: tuple[_BatchAnswer, ...]


@dataclass(frozen=True, slots=True)
class _Receipt:
    feedback_id: str


_SUGGESTION = TypeAdapter(Suggestion)
_BATCH = TypeAdapter(_BatchAnswers)
_RECEIPT = TypeAdapter(_Receipt)
_FIELDS = TypeAdapter(tuple[FieldProblem, ...])
_OBJECT = TypeAdapter(dict[str, Any])


def check_seconds(timeout: float) -> float:
    """A timeout as it is. Raises InvalidInput."""
    if not 0 < timeout <= _MOST_SECONDS:
        raise InvalidInput(
            "a timeout must be above 0 seconds, and a day at most", remedy="Give a finite number of seconds, 10 say."
        )
    return timeout


def suggestions_of(tenant: str, asked: SuggestionRequest) -> Request[Suggestion]:
    """`POST …/suggestions`.

    Raises:
        InvalidInput: it cannot be written as JSON, or the tenant's name is none.
    """

    def read(body: bytes) -> Suggestion:
        return replace(_SUGGESTION.validate_json(body), ticket_id=asked.ticket.id)

    return Request(f"/v1/tenants/{check_tenant(tenant)}/suggestions", _json(_said(asked)), 200, read)


def batch_of(tenant: str, asked: Sequence[SuggestionRequest]) -> Request[tuple[Answer, ...]]:
    """`POST …/suggestions/batch`. Raises what `suggestions_of` raises."""

    def read(body: bytes) -> tuple[Answer, ...]:
        answers = _BATCH.validate_json(body).answers
        return tuple(_answer(one, answer) for one, answer in zip(asked, answers, strict=True))

    body = _json({"requests": [_said(one) for one in asked]})
    return Request(f"/v1/tenants/{check_tenant(tenant)}/suggestions/batch", body, 200, read)


def feedback_of(
    tenant: str,
    suggestion: Suggestion | str,
    *,
    applied: str | None,
    shown: Sequence[str] | None,
    ticket_id: str | None,
    model_version: str | None,
    event_id: str | None,
) -> Request[str]:
    """`POST …/feedback`; what is not said is taken of the suggestion. Raises what `suggestions_of` raises."""
    if isinstance(suggestion, Suggestion):
        shown = [macro.id for macro in suggestion.macros] if shown is None else shown
        ticket_id = suggestion.ticket_id if ticket_id is None else ticket_id
        model_version = suggestion.model_version if model_version is None else model_version
        suggestion = suggestion.suggestion_id
    more = {"shown": shown, "ticket_id": ticket_id, "model_version": model_version, "event_id": event_id}
    said = {"suggestion_id": suggestion, "applied": applied, **{k: v for k, v in more.items() if v is not None}}
    path = f"/v1/tenants/{check_tenant(tenant)}/feedback"
    return Request(path, _json(said), 202, lambda body: _RECEIPT.validate_json(body).feedback_id)


def _said(asked: SuggestionRequest) -> dict[str, Any]:
    return {name: value for name, value in asdict(asked).items() if value is not None}


def _json(said: dict[str, Any]) -> bytes:
    try:
        return to_json(said)
    except (PydanticSerializationError, UnicodeError):
        # Their words, and what they hold, would be some of the ticket's.
        raise InvalidInput(
            "the request cannot be written as JSON",
            remedy="Look for values of other types, and for halves of characters.",
        ) from None


def _answer(asked: SuggestionRequest, answer: _BatchAnswer) -> Answer:
    if answer.suggestion is not None:
        return replace(answer.suggestion, ticket_id=asked.ticket.id)
    return _error(answer.status, answer.problem or {}, request_id="", retry_after=None)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of whatever answered. `body` is None where it was too long."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class NoReply:
    """There was no (whole) answer.

    Attributes:
        what: happened, as one clause; neither key nor ticket.
        may_pass: whether another attempt may do better.
        timed_out: whether time ran out.
    """

    what: str
    may_pass: bool = True
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """How to send a request now: the time that is left, in seconds, and headers beside the client's own."""

    seconds: float
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """What came of a request."""

    result: Result


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again after so many seconds."""

    seconds: float


class Exchange(Generic[Result]):
    """A request from its first attempt to its result. Every request of the API may be sent again: suggestions change
    nothing, and feedback counts once.

    Args:
        request: what is asked.
        timeout_seconds: for all of it, waits included.
        attempts: how many at most.
        now: by a clock that never goes back, in seconds, as everywhere here.
        chance: between 0 and 1.
    """

    def __init__(
        self,
        request: Request[Result],
        *,
        timeout_seconds: float,
        attempts: int,
        now: float,
        chance: Callable[[], float],
    ) -> None:
        check_seconds(timeout_seconds)
        self._request = request
        self._timeout_seconds = timeout_seconds
        self._ends = now + timeout_seconds
        self._left = attempts
        self._wait_seconds = _FIRST_WAIT_SECONDS
        self._chance = chance
        self._request_id = secrets.token_hex(16)

    def attempt(self, now: float) -> Attempt:
        """The next one.

        Raises:
            TimedOut: no time is left.
        """
        left = self._ends - now
        if left <= 0:
            raise self._timed_out()
        self._left -= 1
        milliseconds = min(max(int(left * 1000), 1), _LONGEST_SERVER_MS)
        headers = {"X-Request-Id": self._request_id, "X-Request-Timeout-Ms": str(milliseconds)}
        return Attempt(left, headers)

    def hear(self, heard: Reply | NoReply, now: float) -> Done[Result] | Wait:
        """What follows from what came of an attempt.

        Raises:
            ApiError: nothing better will come.
        """
        if isinstance(heard, NoReply):
            error: ApiError = self._timed_out() if heard.timed_out else self._unavailable(heard)
            may_pass = heard.may_pass
        elif heard.status == self._request.success:
            return Done(self._result(heard))
        else:
            error = _error_of(heard, self._request_id)
            may_pass = heard.status in _PASSING
        wait = self._wait(error.retry_after_seconds)
        if not may_pass or self._left <= 0 or now + wait >= self._ends:
            raise error
        return Wait(wait)

    def _wait(self, asked_for: float | None) -> float:
        if asked_for is not None:
            return asked_for + self._chance() * max(asked_for * _SPREAD, _FIRST_WAIT_SECONDS)
        wait = self._wait_seconds * (0.5 + self._chance() / 2)
        self._wait_seconds = min(self._wait_seconds * 2, _LONGEST_WAIT_SECONDS)
        return wait

    def _result(self, reply: Reply) -> Result:
        try:
            if reply.body is None:
                raise ValueError
            return self._request.read(reply.body)
        except (ValidationError, ValueError, TypeError):
            # Without its cause: that quotes the answer, which may have words of the ticket.
            raise UnexpectedAnswer(
                f"the answer with status {reply.status} is none of a macrofleet server's",
                status=reply.status,
                request_id=_request_id(reply, self._request_id),
                remedy="Is the base URL that of its product API?",
            ) from None

    def _timed_out(self) -> TimedOut:
        return TimedOut(
            f"there was no answer within {self._timeout_seconds:g} seconds (request {self._request_id})",
            request_id=self._request_id,
        )

    def _unavailable(self, heard: NoReply) -> Unavailable:
        return Unavailable(f"{heard.what} (request {self._request_id})", request_id=self._request_id)


def _error_of(reply: Reply, request_id: str) -> ApiError:
    problem: dict[str, Any] = {}
    if reply.body is not None and reply.headers.get("content-type", "").startswith(_PROBLEM_JSON):
        try:
            problem = _OBJECT.validate_json(reply.body)
        except ValidationError:
            problem = {}
    retry_after = reply.headers.get("retry-after", "").strip()
    seconds = float(retry_after) if _SECONDS.fullmatch(retry_after) else None
    return _error(reply.status, problem, request_id=_request_id(reply, request_id), retry_after=seconds)


def _error(status: int, problem: Mapping[str, Any], *, request_id: str, retry_after: float | None) -> ApiError:
    """The error of an answer. Words of anybody but a macrofleet server are not repeated."""
    kind = _text(problem, "type")
    if not kind.startswith(_PROBLEM):
        kind, problem = "", {}
    title, detail = _text(problem, "title"), _text(problem, "detail")
    error = _KINDS.get(kind.removeprefix(_PROBLEM)) or _STATUSES.get(status, UnexpectedAnswer)
    said = _text(problem, "request_id")
    request_id = said if _REQUEST_ID.fullmatch(said) else request_id
    return error(
        f"{detail.rstrip('.') or _without_problem(status)} (status {status}, request {request_id})",
        status=status,
        type=kind,
        title=title,
        detail=detail,
        request_id=request_id,
        fields=_fields(problem.get("fields")),
        retry_after_seconds=retry_after,
    )


def _without_problem(status: int) -> str:
    if 300 <= status < 400:
        return "the server redirects, which is not followed, because the API key would go with it"
    return "the answer is no problem of a macrofleet server, but of something before it"


def _text(problem: Mapping[str, Any], name: str) -> str:
    value = problem.get(name)
    return value[:_MOST_DETAIL] if isinstance(value, str) else ""


def _fields(found: object) -> tuple[FieldProblem, ...]:
    try:
        return _FIELDS.validate_python(found or ())
    except ValidationError:
        return ()


def _request_id(reply: Reply, sent: str) -> str:
    said = reply.headers.get("x-request-id", "")
    return said if _REQUEST_ID.fullmatch(said) else sent
