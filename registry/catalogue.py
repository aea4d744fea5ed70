"""A tenant's live macro catalogue: what may be suggested today, whatever the model was trained on."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError

from registry.conditional import put_over
from registry.documents import Document
from registry.errors import InvalidInput, MacrofleetError, ObjectNotFound
from registry.layout import catalogue_key
from registry.model.bundle import MacroId, Title
from registry.store import ObjectStore
from registry.text.ticket import clean_message

MAX_CATALOGUE_BYTES = 16 * 1024 * 1024
_LANGUAGE = re.compile(r"([A-Za-z]{2,8})(?:[-_].*)?", re.DOTALL)
_REPLIES = ("reply_body", "comment_body", "body", "text")
_PLACEHOLDER = re.compile(r"\{\{[^{}]*+\}\}|\{%[^{}%]*+%\}")


class Macro(Document):
    """A predefined reply or action.

    A field of a later release is refused, since it might say who may not see the macro; `Catalogue.parse` passes over one
    that says nothing.

    Attributes:
        id: the help desk's id.
        title: what agents see; `::` separates categories.
        active: a macro switched off is not suggested.
        restriction: who may use it, as the help desk says it; None for everybody.
        actions: what applying it does, as the help desk says it.
        locale: of what it says, `en-GB` say; None where it fits every ticket.
    """

    id: MacroId
    title: Title
    active: bool = True
    restriction: dict[str, Any] | None = None
    actions: Annotated[tuple[dict[str, Any], ...], Field(max_length=200)] = ()
    locale: Annotated[str, Field(max_length=64)] | None = None

    @property
    def groups(self) -> frozenset[str] | None:
        """The groups whose members may use it, by id; None is everybody, and none at all is nobody that we know of.

        Known is Zendesk's restriction by group, `{"type": "Group", "id": 1, "ids": [1, 2]}`. Every other restriction,
        personal macros' and those that nobody has heard of, lets nobody use it.
        """
        if self.restriction is None:
            return None
        if str(self.restriction.get("type", "")).lower() != "group":
            return frozenset()
        ids = self.restriction.get("ids")
        found = [*(ids if isinstance(ids, list) else ()), self.restriction.get("id")]
        # Numbers in the help desk's own answers, strings in requests; True is an int, and no id.
        return frozenset(
            str(one) for one in found if isinstance(one, int | str) and not isinstance(one, bool) and one != ""
        )

    @property
    def personal(self) -> bool:
        """Whether it is one agent's own (`{"type": "User", …}`, as Zendesk says it), and not shared with others."""
        return self.restriction is not None and str(self.restriction.get("type", "")).lower() == "user"

    @property
    def shared(self) -> bool:
        """Whether it is in use and not one agent's own: what a model may learn, and what counts for eligibility."""
        return self.active and not self.personal

    @property
    def reply(self) -> str:
        """What applying it says to the customer, as text without the help desk's placeholders; empty where nothing.

        Known are Zendesk's actions (`{"field": "comment_value", "value": …}`) and those that have their text under a name
        of its own (`reply_body`, `comment_body`, `body`, `text`).
        """
        parts = []
        for action in self.actions:
            told = str(action.get("field", "")).startswith("comment_value")
            found = action.get("value") if told else next((action[name] for name in _REPLIES if name in action), None)
            if isinstance(found, list) and found:
                found = found[-1]  # Zendesk's ["channel:all", "text"]
            if isinstance(found, str):
                parts.append(_PLACEHOLDER.sub(" ", found))
        return clean_message("\n".join(parts))


class Catalogue(Document):
    """All macros of one tenant."""

    macros: tuple[Macro, ...]

    @classmethod
    def parse(cls, data: bytes, *, what: str, error: type[MacrofleetError]) -> Self:
        """See `Document`. A field of a macro that is not known here and says nothing (null) is passed over, so that a
        server reads what a later release writes as long as nobody uses what is new.
        """
        try:
            # A validator of each macro's own would be called a hundred times, and takes three times as long in all.
            return cls.model_validate_json(data)
        except ValidationError:
            return super().parse(_without_nothing(data), what=what, error=error)

    def suggestible(self) -> dict[str, Macro]:
        """The macros that anybody may be shown, by id: active and not restricted."""
        return {macro.id: macro for macro in self.macros if macro.active and macro.restriction is None}


def _without_nothing(data: bytes) -> bytes:
    """A catalogue without the fields of macros that are not known and null; as it came where it is none."""
    try:
        value = json.loads(data)
        for macro in value["macros"]:
            for name in [name for name, one in macro.items() if one is None and name not in Macro.model_fields]:
                del macro[name]
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return data
    return json.dumps(value).encode()


def base_language(locale: str | None) -> str | None:
    """The language of a locale: `pt` of `pt-BR` and `PT_br`; None where there is none, or it is no locale."""
    found = None if locale is None else _LANGUAGE.fullmatch(locale.strip())
    return found[1].lower() if found else None


def make_catalogue(macros: Iterable[Macro]) -> Catalogue:
    """A catalogue in id order. Raises InvalidInput when an id stands twice."""
    ordered = sorted(macros, key=lambda macro: macro.id)
    for one, other in itertools.pairwise(ordered):
        if one.id == other.id:
            raise InvalidInput(
                f"macro id {one.id!r} stands twice in the catalogue", remedy="Give every macro its own id."
            )
    return Catalogue(macros=tuple(ordered))


def parse_catalogue(data: bytes, *, what: str) -> Catalogue:
    """Read a catalogue. Raises InvalidInput."""
    return make_catalogue(Catalogue.parse(data, what=what, error=InvalidInput).macros)


def read_catalogue(store: ObjectStore, tenant: str) -> tuple[Catalogue, str] | None:
    """A tenant's catalogue with its entity tag, or None where there is none yet."""
    key = catalogue_key(tenant)
    try:
        found = store.get(key, max_bytes=MAX_CATALOGUE_BYTES)
    except ObjectNotFound:
        return None
    return parse_catalogue(found.data, what=f"{store.url}/{key}"), found.etag


def write_catalogue(store: ObjectStore, tenant: str, catalogue: Catalogue, *, etag: str | None) -> str:
    """Write a catalogue over the one with `etag` (None: where none is) and return its entity tag.

    Finding the same content there is success: one's own retry, or a writer who wanted the same.

    Raises:
        PreconditionFailed: another writer changed it meanwhile.
    """
    return put_over(store, catalogue_key(tenant), catalogue.to_bytes(), etag=etag)
