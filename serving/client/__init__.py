"""A client of the product API: suggestions and feedback of one tenant. Needs `macrofleet[client]`.

    with Client("https://suggestions.example.com", tenant="acme") as client:
        suggestion = client.suggest(Ticket(id="4711", subject="Where is my parcel?"))
        client.feedback(suggestion, applied=suggestion.macros[0].id)

`AsyncClient` is the same with `await`. docs/client.md says what is tried again and which errors there are.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import httpx

from serving.client.core import (
    MAX_ANSWER_BYTES,
    Attempt,
    Done,
    NoReply,
    Reply,
    Request,
    batch_of,
    feedback_of,
    suggestions_of,
)
from serving.client.http import HttpSettings, no_reply
from serving.client.types import (
    Agent,
    Answer,
    ApiError,
    Comment,
    Contribution,
    FieldProblem,
    InvalidRequest,
    NoModel,
    NotAuthenticated,
    NotPermitted,
    RateLimited,
    SuggestedMacro,
    Suggestion,
    SuggestionRequest,
    TenantNotFound,
    Ticket,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
)

__all__ = [
    "Agent",
    "Answer",
    "ApiError",
    "AsyncClient",
    "Client",
    "Comment",
    "Contribution",
    "FieldProblem",
    "InvalidRequest",
    "NoModel",
    "NotAuthenticated",
    "NotPermitted",
    "RateLimited",
    "SuggestedMacro",
    "Suggestion",
    "SuggestionRequest",
    "TenantNotFound",
    "Ticket",
    "TimedOut",
    "Unavailable",
    "UnexpectedAnswer",
]

Result = TypeVar("Result")


class Client:
    """The product API for one tenant. One client serves many threads, over connections that it keeps.

    Args:
        base_url: of a server, or of the proxy before it; https, unless it is on this machine.
        tenant: whose suggestions.
        api_key: by default what MACROFLEET_API_KEY has.
        timeout_seconds: for a request, its waits and further attempts included, a day at most; the server is told what is left.
        connect_seconds: for a connection, of that.
        attempts: how often a request is sent at most, the first time included.
        insecure: plain HTTP to other machines, on a network that is itself trusted.
        transport: sends instead of the network.
        clock: seconds, never going back.
        sleep: waits before another attempt.

    Raises:
        InvalidInput: one of them cannot be used.
        InvalidTenant: the tenant's name is none.
    """

    def __init__(
        self,
        base_url: str,
        *,
        tenant: str,
        api_key: str | None = None,
        timeout_seconds: float = 10.0,
        connect_seconds: float = 2.0,
        attempts: int = 4,
        insecure: bool = False,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = HttpSettings(
            base_url,
            tenant=tenant,
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            connect_seconds=connect_seconds,
            attempts=attempts,
            insecure=insecure,
            clock=clock,
        )
        self._sleep = sleep
        self._http = httpx.Client(transport=transport, **self._settings.of_http())

    def __repr__(self) -> str:
        return f"Client({self._settings.base_url!r}, tenant={self._settings.tenant!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def suggest(
        self,
        ticket: Ticket,
        *,
        agent: Agent | None = None,
        limit: int = 3,
        exclude: Sequence[str] = (),
        explain: bool = False,
        timeout_seconds: float | None = None,
    ) -> Suggestion:
        """Up to `limit` macros, best first, or none and the reason.

        Args:
            ticket: to suggest for.
            agent: who asks; without one, only what everybody may use is suggested.
            limit: 1 to 3.
            exclude: ids of macros not to suggest.
            explain: have each macro say what drove it; for keys with the scope `tenant-admin`.
            timeout_seconds: by default the client's.

        Raises:
            ApiError: the server refuses it, or cannot be reached; see its subclasses.
            InvalidInput: the ticket cannot be written as JSON.
        """
        asked = SuggestionRequest(ticket, agent, limit, exclude, explain)
        return self._ask(suggestions_of(self._settings.tenant, asked), timeout_seconds)

    def suggest_batch(
        self, requests: Sequence[SuggestionRequest], *, timeout_seconds: float | None = None
    ) -> tuple[Answer, ...]:
        """A suggestion, or the error that it would have been, for each of 1 to 32 requests, in their order.

        What is refused within a batch is not tried again.

        Raises:
            ApiError: the batch as a whole was refused.
            InvalidInput: it cannot be written as JSON.
        """
        return self._ask(batch_of(self._settings.tenant, requests), timeout_seconds)

    def feedback(
        self,
        suggestion: Suggestion | str,
        *,
        applied: str | None,
        shown: Sequence[str] | None = None,
        ticket_id: str | None = None,
        model_version: str | None = None,
        event_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> str:
        """Say what the agent did; the id of the feedback, once it is on the server's disk.

        Sending it again changes nothing, so it is sent again where there was no answer.

        Args:
            suggestion: what it is about, or its id; of a whole one, the next three are known where they are not given.
            shown: ids of the macros that the agent saw.
            ticket_id: as in the request for suggestions; training joins by it.
            model_version: of the suggestion.
            applied: id of the macro that the agent applied, suggested or not; None for none.
            event_id: the caller's own name for the event, so that a later one of the same suggestion counts instead.
            timeout_seconds: by default the client's.

        Raises:
            ApiError: it was refused, or it is not known whether it was taken.
        """
        request = feedback_of(
            self._settings.tenant,
            suggestion,
            applied=applied,
            shown=shown,
            ticket_id=ticket_id,
            model_version=model_version,
            event_id=event_id,
        )
        return self._ask(request, timeout_seconds)

    def _ask(self, request: Request[Result], timeout_seconds: float | None) -> Result:
        clock = self._settings.clock
        exchange = self._settings.exchange(request, timeout_seconds)
        while True:
            heard = self._send(request, exchange.attempt(clock()))
            step = exchange.hear(heard, clock())
            if isinstance(step, Done):
                return step.result
            self._sleep(step.seconds)

    def _send(self, request: Request[Any], attempt: Attempt) -> Reply | NoReply:
        ends = self._settings.clock() + attempt.seconds
        body = bytearray()
        try:
            with self._http.stream(**self._settings.sending(request, attempt)) as answer:
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        return Reply(answer.status_code, answer.headers, None)
                    if self._settings.clock() >= ends:
                        return NoReply("the answer was not whole in time", timed_out=True)
        except (httpx.TransportError, httpx.DecodingError) as error:
            return no_reply(error)
        return Reply(answer.status_code, answer.headers, bytes(body))


class AsyncClient:
    """The same for asyncio and trio: one client serves many tasks. Arguments and errors are those of `Client`."""

    def __init__(
        self,
        base_url: str,
        *,
        tenant: str,
        api_key: str | None = None,
        timeout_seconds: float = 10.0,
        connect_seconds: float = 2.0,
        attempts: int = 4,
        insecure: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._settings = HttpSettings(
            base_url,
            tenant=tenant,
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            connect_seconds=connect_seconds,
            attempts=attempts,
            insecure=insecure,
            clock=clock,
        )
        self._sleep = sleep
        self._http = httpx.AsyncClient(transport=transport, **self._settings.of_http())

    def __repr__(self) -> str:
        return f"AsyncClient({self._settings.base_url!r}, tenant={self._settings.tenant!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def suggest(
        self,
        ticket: Ticket,
        *,
        agent: Agent | None = None,
        limit: int = 3,
        exclude: Sequence[str] = (),
        explain: bool = False,
        timeout_seconds: float | None = None,
    ) -> Suggestion:
        """See `Client.suggest`."""
        asked = SuggestionRequest(ticket, agent, limit, exclude, explain)
        return await self._ask(suggestions_of(self._settings.tenant, asked), timeout_seconds)

    async def suggest_batch(
        self, requests: Sequence[SuggestionRequest], *, timeout_seconds: float | None = None
    ) -> tuple[Answer, ...]:
        """See `Client.suggest_batch`."""
        return await self._ask(batch_of(self._settings.tenant, requests), timeout_seconds)

    async def feedback(
        self,
        suggestion: Suggestion | str,
        *,
        applied: str | None,
        shown: Sequence[str] | None = None,
        ticket_id: str | None = None,
        model_version: str | None = None,
        event_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> str:
        """See `Client.feedback`."""
        request = feedback_of(
            self._settings.tenant,
            suggestion,
            applied=applied,
            shown=shown,
            ticket_id=ticket_id,
            model_version=model_version,
            event_id=event_id,
        )
        return await self._ask(request, timeout_seconds)

    async def _ask(self, request: Request[Result], timeout_seconds: float | None) -> Result:
        clock = self._settings.clock
        exchange = self._settings.exchange(request, timeout_seconds)
        while True:
            heard = await self._send(request, exchange.attempt(clock()))
            step = exchange.hear(heard, clock())
            if isinstance(step, Done):
                return step.result
            await self._sleep(step.seconds)

    async def _send(self, request: Request[Any], attempt: Attempt) -> Reply | NoReply:
        body = bytearray()
        with anyio.move_on_after(attempt.seconds):
            try:
                async with self._http.stream(**self._settings.sending(request, attempt)) as answer:
                    async for chunk in answer.aiter_bytes():
                        body += chunk
                        if len(body) > MAX_ANSWER_BYTES:
                            return Reply(answer.status_code, answer.headers, None)
            except (httpx.TransportError, httpx.DecodingError) as error:
                return no_reply(error)
            return Reply(answer.status_code, answer.headers, bytes(body))
        return NoReply("the answer was not whole in time", timed_out=True)
