"""JSON documents at rest: strict when read, canonical when written, so that equal content has an equal digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from registry.errors import MacrofleetError


def canonical_json(value: Any) -> bytes:
    """`value` as JSON with sorted keys, no spaces and a closing newline; NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def sha256(data: bytes) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _newer_format(kind: type[BaseModel], data: bytes) -> tuple[int, int] | None:
    """The format of a document that a later release wrote, and the last one that is known here; None for any other."""
    field = kind.model_fields.get("format")
    if field is None or not isinstance(field.default, int):
        return None
    try:
        given = json.loads(data).get("format")
    except (ValueError, AttributeError, RecursionError):
        return None
    # What is written is the last that is known: it is the field's default.
    return (given, field.default) if type(given) is int and given > field.default else None


class Document(BaseModel):
    """Base of every document at rest. Unknown fields are refused unless a subclass keeps them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """The canonical form; what digests are taken over."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))

    @classmethod
    def parse(cls, data: bytes, *, what: str, error: type[MacrofleetError]) -> Self:
        """Read a document.

        Args:
            data: JSON from outside.
            what: where it came from, for the message.
            error: what to raise when it is not such a document.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as problem:
            if (newer := _newer_format(cls, data)) is not None:
                given, known = newer
                raise error(
                    f"{what} has format {given}, and this release of macrofleet reads up to {known}",
                    remedy="A later release wrote it: use that one here, too.",
                ) from None
            first = problem.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "document"
            raise error(f"{what} is not valid: {place}: {first['msg']}") from None
