"""What the data plane is asked about a ticket, and what it answers. No I/O."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from serving.suggestions.answers import answer_key
from serving.suggestions.choice import Suggestions
from serving.suggestions.policy import Audience, Policy
from serving.suggestions.suggestion_id import suggestion_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a tenant's model says to a ticket."""

    suggestion_id: str
    model_version: str
    suggestions: Suggestions

    @property
    def nbytes(self) -> int:
        """What it takes in memory, by estimate and rather too much: its titles are the catalogue's as well."""
        return 300 + sum(250 + len(macro.id) + 2 * len(macro.title) for macro in self.suggestions.macros)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The arguments of `Answering.answer`.

    Attributes:
        seconds: until the caller stops waiting.
    """

    tenant: str
    text: str
    ticket: str | None
    revision: int
    limit: int
    exclude: Collection[str]
    groups: Collection[str]
    locale: str | None
    seconds: float

    def key(self, audience: Audience) -> bytes:
        """What its answer is remembered by; of a ticket with an id."""
        assert self.ticket is not None
        return answer_key(
            tenant=self.tenant,
            ticket=self.ticket,
            revision=self.revision,
            text=self.text,
            groups=audience.groups,
            language=audience.language,
            limit=self.limit,
            exclude=self.exclude,
        )

    def answer(self, signing_key: bytes, policy: Policy, version: str, suggestions: Suggestions) -> Answer:
        """The answer that a version gives, under a policy."""
        made = suggestion_id(
            signing_key,
            tenant=self.tenant,
            ticket=self.ticket,
            text=self.text,
            revision=self.revision,
            version=version,
            policy=policy.version,
            macros=[macro.id for macro in suggestions.macros],
        )
        return Answer(suggestion_id=made, model_version=version, suggestions=suggestions)
