"""What a client of the product API sends, gets and raises. No I/O, and no HTTP library.

A ticket's words are in no `repr` and in no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from registry.errors import MacrofleetError


@dataclass(frozen=True, slots=True)
class Comment:
    """One message of a ticket; only the customer's public ones are read.

    Attributes:
        created_at: with a time zone; may be left out.
    """

    author: Literal["customer", "agent"]
    body: str = field(repr=False)
    public: bool = True
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket as it is when a suggestion is wanted; it needs a subject or a public comment of the customer."""

    id: str
    subject: str | None = field(default=None, repr=False)
    comments: Sequence[Comment] = field(default=(), repr=False)
    revision: int = 0
    channel: str | None = None
    locale: str | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """Who asks. Macros that are restricted to groups are suggested to whoever names one of theirs."""

    id: str
    groups: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class SuggestionRequest:
    """One of a batch; `Client.suggest` says what the fields are."""

    ticket: Ticket
    agent: Agent | None = None
    limit: int = 3
    exclude: Sequence[str] = ()
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Contribution:
    """Words of the ticket, and what the macro's log-odds lose without them."""

    text: str = field(repr=False)
    contribution: float


@dataclass(frozen=True, slots=True)
class SuggestedMacro:
    """A suggested macro, its title of today and the model's probability for it; with `explain`, what drove it."""

    id: str
    title: str
    score: float
    explanation: tuple[Contribution, ...] = ()


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Macros to show, best first.

    Attributes:
        abstained: there is nothing good enough to show; `reason` says why.
        held_back: there is something, and for this ticket nothing is shown, so that it is known what agents do unprompted.
        ticket_id: of the ticket that it is for; feedback names it.
    """

    suggestion_id: str
    model_version: str
    abstained: bool
    reason: str | None
    macros: tuple[SuggestedMacro, ...]
    held_back: bool = False
    ticket_id: str | None = None


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field of a request that cannot be used."""

    field: str
    message: str


class ApiError(MacrofleetError):
    """A request came to nothing.

    Attributes:
        status: of the answer; None where there was none.
        type: the problem's `urn:macrofleet:problem:…`; empty where the answer was no problem of a macrofleet server.
        title, detail: the problem's.
        request_id: in the server's log, if the request came that far.
        fields: which fields of the request cannot be used.
        retry_after_seconds: when the server thinks that it may do better; None where it did not say.
    """

    def __init__(
        self,
        what: str,
        *,
        status: int | None = None,
        type: str = "",  # as the problem has it
        title: str = "",
        detail: str = "",
        request_id: str = "",
        fields: tuple[FieldProblem, ...] = (),
        retry_after_seconds: float | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(what, remedy=remedy)
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.request_id = request_id
        self.fields = fields
        self.retry_after_seconds = retry_after_seconds


class NotAuthenticated(ApiError):
    """The API key is none, or none that is valid any more (401)."""


class NotPermitted(ApiError):
    """The API key lacks the scope (403)."""


class TenantNotFound(ApiError):
    """There is no such tenant, or it is not the key's (404)."""


class NoModel(ApiError):
    """The tenant has no model yet; `detail` says why (409)."""


class InvalidRequest(ApiError):
    """The request cannot be used, or is too large (422, 413)."""


class RateLimited(ApiError):
    """The tenant asks for more than its share (429), and did to the last attempt."""


class Unavailable(ApiError):
    """The server cannot answer now (503, 502) or cannot be reached, and could not to the last attempt."""


class TimedOut(ApiError):
    """There was no answer within the time that the request had (504, or by the client's own clock)."""


class UnexpectedAnswer(ApiError):
    """An answer that the API does not have: a failure of the server (500), a redirect, or somebody else's."""


Answer = Suggestion | ApiError
