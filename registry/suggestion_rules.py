"""What a tenant forbids to suggest, beside what its catalogue says: the part of its settings that servers follow."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import ConfigDict, Field, StringConstraints

from registry.documents import Document
from registry.errors import InvalidInput, ObjectNotFound
from registry.layout import tenant_settings_key
from registry.model.bundle import MacroId
from registry.store import ObjectStore

MAX_SETTINGS_BYTES = 1024 * 1024

GroupId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=128)]
ExcludedMacros: TypeAlias = Annotated[tuple[MacroId, ...], Field(max_length=1000)]
Groups: TypeAlias = Annotated[tuple[GroupId, ...], Field(max_length=500)]


class SuggestionRules(Document):
    """Read from a tenant's settings; what else those hold, perhaps of a later release, is not looked at.

    Attributes:
        exclude_macros: never suggested to anybody.
        off_groups: whoever is in one of these groups gets no suggestions.
    """

    model_config = ConfigDict(extra="ignore")

    exclude_macros: ExcludedMacros | None = None
    off_groups: Groups | None = None


def parse_rules(data: bytes, *, what: str) -> SuggestionRules:
    """The rules in a tenant's settings. Raises InvalidInput."""
    return SuggestionRules.parse(data, what=what, error=InvalidInput)


def read_rules(store: ObjectStore, tenant: str) -> SuggestionRules:
    """A tenant's rules; none where it has no settings. Raises InvalidInput where they cannot be read."""
    key = tenant_settings_key(tenant)
    try:
        found = store.get(key, max_bytes=MAX_SETTINGS_BYTES)
    except ObjectNotFound:
        return SuggestionRules()
    return parse_rules(found.data, what=f"{store.url}/{key}")
