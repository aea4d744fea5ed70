"""A mapping file: which column of somebody's export is which field of a ticket."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, StringConstraints

from registry.documents import Document
from registry.errors import InvalidInput
from registry.files import read_whole

FieldName = Literal[
    "text",
    "subject",
    "comments",
    "label",
    "ticket_id",
    "channel",
    "locale",
    "applied_at",
    "split",
    "macro_title",
    "domain",
]
_Column = Annotated[str, StringConstraints(min_length=1, max_length=512)]
_MOST_BYTES = 256 * 1024
_EXAMPLE = 'Write a table [fields] with lines such as text = "Description" and label = "Macro".'
# What the importer reads under names of its own.
OWN_NAMES = frozenset(FieldName.__args__) | {"body", "description", "macro_id", "created_at"}  # type: ignore[attr-defined]


class ColumnMapping(Document):
    """How a file is to be read.

    Attributes:
        fields: field to column; in JSON lines a dotted path (`ticket.requester.locale`). At least a text (`text`, `comments`
            or `subject`) and `label`. Columns with names of the importer's own that are not mapped are not read.
        constants: fields that are the same for every row, such as `channel`.
        delimiter: of a CSV.
        encoding: of the file.
        time_format: of `applied_at`, as Python's `strptime` has it; None for ISO 8601.
        time_zone: of times that say none.
        label_separator: what stands between the labels of one row, where it has several.
    """

    fields: Annotated[dict[FieldName, _Column], Field(min_length=1)]
    constants: dict[FieldName, str] = Field(default_factory=dict)
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "utf-16", "latin-1", "cp1252", "shift_jis"] = "utf-8"
    time_format: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    time_zone: str = "UTC"
    label_separator: Annotated[str, StringConstraints(min_length=1, max_length=8)] | None = None

    def missing(self, columns: Mapping[str, object] | list[str]) -> list[str]:
        """Columns that are mapped and that a CSV's header does not have."""
        return [column for column in self.fields.values() if column not in columns]

    def renamed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row under the importer's names; other columns stay, to be filtered by."""
        others = {column: value for column, value in row.items() if column not in OWN_NAMES}
        mapped = {name: _at(row, column) for name, column in self.fields.items()}
        found: dict[str, Any] = dict(others)
        found.update((str(name), value) for name, value in self.constants.items())
        found.update((name, value) for name, value in mapped.items() if value is not None)
        if isinstance(found.get("applied_at"), str):
            found["applied_at"] = self._iso(found["applied_at"])
        return found

    def _iso(self, text: str) -> str:
        """A time as the importer reads it; one that does not fit stays, and is complained of there."""
        if not text.strip():
            return ""
        with suppress(ValueError, OverflowError):
            read = (
                datetime.strptime(text.strip(), self.time_format)
                if self.time_format
                else datetime.fromisoformat(text.strip())
            )
            return (read if read.tzinfo else read.replace(tzinfo=ZoneInfo(self.time_zone))).astimezone(UTC).isoformat()
        return text


def read_mapping(path: Path) -> ColumnMapping:
    """A mapping from a TOML file, or a JSON file by its name.

    Raises:
        InvalidInput: it cannot be read, is not such a document, or maps too little.
    """
    data = read_whole(path, _MOST_BYTES, error=InvalidInput)
    try:
        value = json.loads(data) if path.suffix.lower() == ".json" else tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        raise InvalidInput(f"{path} is neither TOML nor, as .json, JSON", remedy=_EXAMPLE) from None
    found = ColumnMapping.parse(json.dumps(value, default=str).encode(), what=str(path), error=InvalidInput)
    if not {"text", "comments", "subject"} & found.fields.keys() or "label" not in {*found.fields, *found.constants}:
        raise InvalidInput(f"{path} maps no text, or no label", remedy=_EXAMPLE)
    try:
        ZoneInfo(found.time_zone)
    except (ValueError, OSError, ZoneInfoNotFoundError):  # OSError: half a name, which is a folder of them
        raise InvalidInput(
            f"{path} names no time zone: {found.time_zone[:64]!r}", remedy="Write one like Europe/Berlin."
        ) from None
    return found


def _at(row: Mapping[str, Any], path: str) -> Any:
    """A column, or what lies at a dotted path."""
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
