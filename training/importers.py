"""Importers: files from outside into examples, whole or not at all.

CSV (with a header) and JSON lines carry the same fields. Needed: the text (`text`, `body` or `description`) and the
label (`label` or `macro_id`). Optional: `ticket_id`, `subject`, `channel`, `locale`, `applied_at` or `created_at`
(ISO 8601), `split` (train, val, test), `macro_title`, `domain`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry.errors import InvalidInput
from training.examples import SPLITS, Example

# The serving face refuses more than this (413), so a model never sees more in production either.
MAX_TEXT_BYTES = 64 * 1024
OUT_OF_SCOPE = frozenset({"oos", "NO_NODES_DETECTED", "outofdomain"})
_TEXT = ("text", "body", "description")
_LABEL = ("label", "macro_id")
_USED = ("subject", "ticket_id", "channel", "locale", "split", "macro_title", "domain", *_TEXT, *_LABEL)
# These become names: ids in catalogues, keys and logs.
_NAMES = ("ticket_id", "macro_title", "domain", *_LABEL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHOWN = 5


@dataclass(slots=True)
class Imported:
    """What a file held.

    Attributes:
        examples: in file order.
        titles: macro id to title, where the file gives titles.
        domains: ticket id to domain, where the file has that column.
        problems: the rows that were left out, each with its reason (only where leaving out was asked for).
    """

    examples: list[Example] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    domains: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_tickets(
    path: Path,
    *,
    file_format: str | None = None,
    where: Mapping[str, str] | None = None,
    out_of_scope: frozenset[str] = OUT_OF_SCOPE,
    skip_invalid: bool = False,
) -> Imported:
    """Read labelled tickets from a file.

    Args:
        file_format: "csv" or "jsonl"; None takes it from the file's name.
        where: keep only rows whose column has this value; a column that the file does not have does not filter.
        out_of_scope: labels that are no macros: nothing fits these tickets.
        skip_invalid: leave out rows that cannot be used, and say which.

    Raises:
        InvalidInput: the file cannot be read, or rows cannot be used; names the first of them and why.
    """
    chosen = file_format or path.suffix.lstrip(".").lower()
    if chosen not in _READERS:
        raise InvalidInput(f"{path} has the format {chosen!r}", remedy="Use --format csv or --format jsonl.")
    found = Imported()
    seen: dict[str, int] = {}
    repeats: Counter[str] = Counter()
    try:
        for number, row, problem_of_row in _READERS[chosen](path):
            if where and any(column in row and row[column] != value for column, value in where.items()):
                continue
            try:
                if problem_of_row:
                    raise _BadRow(problem_of_row)
                _take(found, row, number, seen, repeats, out_of_scope)
            except _BadRow as problem:
                found.problems.append(f"row {number}: {problem}")
    except UnicodeDecodeError as problem:
        raise InvalidInput(
            f"{path} is not UTF-8 (byte {problem.start} of a block of it)",
            remedy="Save it as UTF-8, or convert it: iconv -f latin1 -t utf-8.",
        ) from None
    except OSError as problem:
        raise InvalidInput(f"{path} cannot be read ({problem.strerror})", remedy="Check the path.") from None
    if found.problems and not skip_invalid:
        shown = "; ".join(found.problems[:_SHOWN])
        more = f"; and {len(found.problems) - _SHOWN} more" if len(found.problems) > _SHOWN else ""
        raise InvalidInput(
            f"{path}: {len(found.problems)} rows cannot be used: {shown}{more}",
            remedy="Nothing was imported. Mend them, or leave them out with --skip-invalid.",
        )
    if not found.examples:
        raise InvalidInput(f"{path} holds no usable rows", remedy="Check the file and --where.")
    return found


class _BadRow(Exception):
    """One row cannot be used; the message says why."""


def _take(
    found: Imported,
    row: Mapping[str, str],
    number: int,
    seen: dict[str, int],
    repeats: Counter[str],
    out_of_scope: frozenset[str],
) -> None:
    for name in _USED:
        _check_field(name, row.get(name, ""))
    body, subject = _first(row, _TEXT), row.get("subject", "").strip()
    if not body and not subject:
        raise _BadRow("the text is empty")
    if len(body.encode()) + len(subject.encode()) > MAX_TEXT_BYTES:
        raise _BadRow(f"the text is longer than {MAX_TEXT_BYTES} bytes; cut it to what the customer wrote")
    if "\x00" in body or "\x00" in subject:
        raise _BadRow("the text holds a NUL character")
    label = _first(row, _LABEL)
    if not label:
        raise _BadRow("the label is empty")
    if len(label) > 128:
        raise _BadRow("the label is longer than 128 characters")
    split = row.get("split", "").strip().lower()
    # Another split (folds, say) is the data's own affair: such rows are cut like rows without one.
    split = {"validation": "val", "dev": "val", "valid": "val"}.get(split, split)
    ticket_id = row.get("ticket_id", "").strip()
    if not ticket_id:
        # The same row gives the same id on every import; equal rows are told apart by how often they occurred.
        content = hashlib.sha256(json.dumps([row.get("domain", ""), subject, body, label, split]).encode()).hexdigest()[
            :16
        ]
        repeats[content] += 1
        ticket_id = f"{content}-{repeats[content]}"
    if ticket_id in seen:
        raise _BadRow(f"ticket id {ticket_id!r} stands in row {seen[ticket_id]} already; a ticket is labelled once")
    seen[ticket_id] = number
    example = Example(
        ticket_id=ticket_id,
        subject=subject,
        body=body,
        macro_id=None if label in out_of_scope else label,
        channel=row.get("channel", "").strip(),
        locale=row.get("locale", "").strip(),
        applied_at=_time(row.get("applied_at", "") or row.get("created_at", "")),
        split=split if split in SPLITS else None,
    )
    found.examples.append(example)
    if row.get("domain", "").strip():
        found.domains[ticket_id] = row["domain"].strip()
    if row.get("macro_title", "").strip() and example.macro_id is not None:
        found.titles.setdefault(example.macro_id, row["macro_title"].strip()[:512])


def _check_field(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _BadRow(f"{name} holds half a Unicode character (a lone surrogate)") from None
    if name in _NAMES and _CONTROL.search(value.strip()):
        raise _BadRow(f"{name} holds a control character or a line break")


def _first(row: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((row[name].strip() for name in names if row.get(name, "").strip()), "")


def _time(text: str) -> datetime | None:
    if not text.strip():
        return None
    with suppress(ValueError, OverflowError):
        when = datetime.fromisoformat(text.strip())
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    raise _BadRow(f"{text[:40]!r} is not a time; write it like 2026-03-01T09:30:00Z")


# Line number, fields by name, and what is wrong with the row as a whole.
_Rows = Iterator[tuple[int, dict[str, str], str]]


def _csv_rows(path: Path) -> _Rows:
    # The module's own limit (128 KiB a field) would name a parser's problem where the row's is meant.
    csv.field_size_limit(64 * 1024 * 1024)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(rows, [])]
            _check_columns(path, header)
            for row in rows:
                if row:
                    # A row with too many or too few fields is shifted: better no example than a wrong one.
                    fits = len(row) == len(header)
                    problem = "" if fits else f"it has {len(row)} fields, the header has {len(header)}"
                    yield rows.line_num, dict(zip(header, row, strict=False)), problem
        except csv.Error as problem_of_file:
            raise InvalidInput(
                f"{path} line {rows.line_num} is not CSV: {problem_of_file}", remedy="Check the quotation marks."
            ) from None


def _check_columns(path: Path, header: list[str]) -> None:
    if not set(header) & {*_TEXT, "subject"} or not set(header) & set(_LABEL):
        raise InvalidInput(
            f"{path} has the columns {', '.join(header)[:200] or 'none'}",
            remedy="It needs a text column (text or body) and a label column (label or macro_id).",
        )
    if len(set(header)) < len(header):
        raise InvalidInput(f"{path} names a column twice: {', '.join(header)[:200]}", remedy="Rename one of them.")


def _jsonl_rows(path: Path) -> _Rows:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value: Any = json.loads(line)
            except (ValueError, RecursionError):
                raise InvalidInput(
                    f"{path} line {number} is not JSON", remedy="Write one JSON object a line."
                ) from None
            if not isinstance(value, dict):
                raise InvalidInput(f"{path} line {number} is not a JSON object", remedy="Write one JSON object a line.")
            yield number, {key: field if isinstance(field, str) else _plain(field) for key, field in value.items()}, ""


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


_READERS: dict[str, Callable[[Path], _Rows]] = {"csv": _csv_rows, "jsonl": _jsonl_rows}
