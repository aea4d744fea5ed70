"""Importers: files from outside into examples, whole or not at all.

CSV (with a header) and JSON lines carry the same fields. Needed: the text (`text`, `body` or `description`, or the
ticket's `comments`: a list of `{"author": "customer" or "agent", "body", "public", "created_at"}`, in a CSV as JSON) and
the label (`label` or `macro_id`). Optional: `ticket_id`, `subject`, `channel`, `locale`, `applied_at` or `created_at`
(ISO 8601), `split` (train, val, test), `macro_title`, `domain`. Texts are taken as they came in, HTML and all: what a
model reads of them is `registry.text.ticket`'s affair, in training as in serving. Only personal data are masked
(`registry.text.masking`), unless that is switched off. A mapping (`training.mapping`) says which columns of a file with names of
its own these are.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry.errors import InvalidInput
from registry.text.masking import masked
from registry.text.ticket import customer_messages
from training.examples import SPLITS, Example
from training.mapping import ColumnMapping

# The serving face refuses more than this (413), so a model never sees more in production either.
MAX_TEXT_BYTES = 64 * 1024
OUT_OF_SCOPE = frozenset({"oos", "NO_NODES_DETECTED", "outofdomain"})
_TEXT = ("text", "body", "description")
_LABEL = ("label", "macro_id")
_COMMENTS = "comments"
_USED = ("subject", "ticket_id", "channel", "locale", "split", "macro_title", "domain", _COMMENTS, *_TEXT, *_LABEL)
# These become names: ids in catalogues, keys and logs.
_NAMES = ("ticket_id", "macro_title", "domain", *_LABEL)
_FEW_SHOT = "few_shot"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHOWN_NAME = re.compile(r"[\w.:#/-]{1,64}")
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
    label_separator: str | None = None,
    few_shot: int | None = None,
    skip_invalid: bool = False,
    mapping: ColumnMapping | None = None,
    mask: bool = True,
) -> Imported:
    """Read labelled tickets from a file. A ticket to which several macros were applied may stand in as many rows.

    Args:
        file_format: "csv" or "jsonl"; None takes it from the file's name.
        where: keep only rows whose column has this value; a column that the file does not have does not filter.
        out_of_scope: labels that are no macros: nothing fits these tickets.
        label_separator: what stands between the labels of one row where it has several.
        few_shot: of the training rows keep only so many examples a label: those whose column `few_shot` is this number or
            a smaller one.
        skip_invalid: leave out rows that cannot be used, and say which.
        mapping: which columns are which fields.
        mask: replace personal data in subjects and messages. Ids that are made of a row's content stay the same.

    Raises:
        InvalidInput: the file cannot be read, or rows cannot be used; names the first of them and why.
    """
    chosen = file_format or path.suffix.lstrip(".").lower()
    if chosen not in _READERS:
        raise InvalidInput(f"{path} has the format {chosen!r}", remedy="Use --format csv or --format jsonl.")
    if mapping is not None and label_separator is None:
        label_separator = mapping.label_separator
    reading = _Reading(out_of_scope, label_separator, mask=mask)
    found = reading.found
    try:
        for number, row, problem_of_row in _READERS[chosen](path, mapping):
            if where and any(column in row and row[column] != value for column, value in where.items()):
                continue
            if few_shot is not None and not _in_sample(path, row, few_shot):
                continue
            try:
                if problem_of_row:
                    raise _BadRow(problem_of_row)
                reading.take(row, number)
            except _BadRow as problem:
                found.problems.append(f"row {number}: {problem}")
    except UnicodeDecodeError as problem:
        raise InvalidInput(
            f"{path} is not {problem.encoding.upper()} (byte {problem.start} of a block of it)",
            remedy="Save it as UTF-8, or name its encoding in a mapping file (--mapping).",
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


def _in_sample(path: Path, row: Mapping[str, str], few_shot: int) -> bool:
    """Whether a row belongs to a few-shot experiment: it is not for training, or in the sample."""
    if _FEW_SHOT not in row:
        raise InvalidInput(f"{path} has no column {_FEW_SHOT}", remedy="Leave out --few-shot.")
    mark = row[_FEW_SHOT].strip()
    return row.get("split", "").strip().lower() not in {"", "train"} or (mark.isdecimal() and int(mark) <= few_shot)


class _BadRow(Exception):
    """One row cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comment:
    """A message of a ticket, as `registry.text.ticket.Message` has it."""

    author: str
    body: str
    public: bool
    created_at: datetime | None


class _Reading:
    """A file while it is read."""

    def __init__(self, out_of_scope: frozenset[str], label_separator: str | None, *, mask: bool) -> None:
        self.found = Imported()
        self._out_of_scope = out_of_scope
        self._separator = label_separator
        self._hidden = masked if mask else str
        self._rows: dict[str, tuple[int, int]] = {}  # by ticket id: its row, and its place among the examples
        self._repeats: Counter[str] = Counter()

    def take(self, row: Mapping[str, str], number: int) -> None:
        """Raises _BadRow where the row cannot be used."""
        for name in _USED:
            _check_field(name, row.get(name, ""))
        applied_at = _time(row, "applied_at") or _time(row, "created_at")
        body, latest = _messages(row, applied_at)
        subject = row.get("subject", "").strip()
        _check_text(body, latest, subject)
        labels = self._labels(row)
        split = row.get("split", "").strip().lower()
        # Another split (folds, say) is the data's own affair: such rows are cut like rows without one.
        split = {"validation": "val", "dev": "val", "valid": "val"}.get(split, split)
        domain = row.get("domain", "").strip()
        example = Example(
            ticket_id=row.get("ticket_id", "").strip() or self._made_id(row, domain, subject, body, labels, split),
            subject=self._hidden(subject),
            body=self._hidden(body),
            latest=self._hidden(latest),
            macro_id=labels[0] if labels else None,
            also=labels[1:],
            channel=row.get("channel", "").strip(),
            locale=row.get("locale", "").strip(),
            applied_at=applied_at,
            split=split if split in SPLITS else None,
        )
        if example.ticket_id in self._rows:
            self._add_labels(example, number)
        else:
            self._rows[example.ticket_id] = number, len(self.found.examples)
            self.found.examples.append(example)
        if domain:
            self.found.domains[example.ticket_id] = domain
        if row.get("macro_title", "").strip() and len(labels) == 1:
            self.found.titles.setdefault(labels[0], row["macro_title"].strip()[:512])

    def _labels(self, row: Mapping[str, str]) -> tuple[str, ...]:
        """The macros of a row, each once; none where nothing fits."""
        said = _first(row, _LABEL)
        labels = [label.strip() for label in said.split(self._separator)] if self._separator else [said]
        labels = list(dict.fromkeys(filter(None, labels)))
        if not labels:
            raise _BadRow("the label is empty")
        if any(len(label) > 128 for label in labels):
            raise _BadRow("the label is longer than 128 characters")
        return tuple(label for label in labels if label not in self._out_of_scope)

    def _made_id(
        self, row: Mapping[str, str], domain: str, subject: str, body: str, labels: tuple[str, ...], split: str
    ) -> str:
        """The same row gives the same id on every import; equal rows are told apart by how often they occurred."""
        said = _first(row, _LABEL) if len(labels) < 2 else "|".join(labels)
        content = hashlib.sha256(json.dumps([domain, subject, body, said, split]).encode()).hexdigest()[:16]
        self._repeats[content] += 1
        return f"{content}-{self._repeats[content]}"

    def _add_labels(self, example: Example, number: int) -> None:
        """A further row of a ticket: another macro was applied to it."""
        first_row, place = self._rows[example.ticket_id]
        before = self.found.examples[place]
        if (before.subject, before.body) != (example.subject, example.body):
            raise _BadRow(
                f"ticket id {named([example.ticket_id])!r} stands in row {first_row} already, with another text"
            )
        if not example.macro_ids or not before.macro_ids:
            raise _BadRow(
                f"ticket id {named([example.ticket_id])!r} stands in row {first_row} already; nothing fits, or a macro"
            )
        if repeated := set(example.macro_ids) & set(before.macro_ids):
            raise _BadRow(
                f"ticket id {named([example.ticket_id])!r} stands in row {first_row} already with the label "
                f"{named([min(repeated)])!r}"
            )
        self.found.examples[place] = replace(before, also=(*before.also, *example.macro_ids))
        self._rows[example.ticket_id] = number, place


def _messages(row: Mapping[str, str], applied_at: datetime | None) -> tuple[str, str]:
    """The customer's first message, and the latest before the macro was applied where it is another."""
    body = _first(row, _TEXT)
    if body or not row.get(_COMMENTS, "").strip():
        return body, ""
    comments = _comments(row[_COMMENTS])
    if applied_at is not None:
        # What came afterwards nobody knew who chose the macro; it may be the answer to it.
        comments = [one for one in comments if one.created_at is None or one.created_at <= applied_at]
    said = [message.strip() for message in customer_messages(comments)]
    return (said[0], said[-1] if len(said) > 1 else "") if said else ("", "")


def _comments(text: str) -> list[_Comment]:
    try:
        rows = json.loads(text)
        comments = [
            _Comment(
                author=_string(row["author"]),
                body=_string(row["body"]),
                public=row.get("public", True) is True,
                created_at=_time(row, "created_at"),
            )
            for row in rows
        ]
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        raise _BadRow('comments is not a list of {"author", "body", "public", "created_at"}') from None
    for comment in comments:
        _check_field(_COMMENTS, comment.body)
    return comments


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _check_text(body: str, latest: str, subject: str) -> None:
    if not body and not subject:
        raise _BadRow("the text is empty")
    if len(body.encode()) + len(latest.encode()) + len(subject.encode()) > MAX_TEXT_BYTES:
        raise _BadRow(f"the text is longer than {MAX_TEXT_BYTES} bytes; cut it to what the customer wrote")
    if "\x00" in body or "\x00" in latest or "\x00" in subject:
        raise _BadRow("the text holds a NUL character")


def _check_field(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _BadRow(f"{name} holds half a Unicode character (a lone surrogate)") from None
    if name in _NAMES and _CONTROL.search(value.strip()):
        raise _BadRow(f"{name} holds a control character or a line break")


def _first(row: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((row[name].strip() for name in names if row.get(name, "").strip()), "")


def _time(row: Mapping[str, Any], name: str) -> datetime | None:
    """A field that is a time; None where it is empty."""
    text = (row.get(name) or "").strip()
    if not text:
        return None
    with suppress(ValueError, OverflowError):
        when = datetime.fromisoformat(text)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    raise _BadRow(f"{name} is not a time; write it like 2026-03-01T09:30:00Z")


def named(found: Iterable[str]) -> str:
    """What a file calls things, for a message: only what looks like a name, since a ticket may stand in its place."""
    return ", ".join(name if _SHOWN_NAME.fullmatch(name) else "…" for name in found)[:200] or "none"


# Line number, fields by name, and what is wrong with the row as a whole.
_Rows = Iterator[tuple[int, dict[str, str], str]]


def _csv_rows(path: Path, mapping: ColumnMapping | None) -> _Rows:
    # The module's own limit (128 KiB a field) would name a parser's problem where the row's is meant.
    csv.field_size_limit(64 * 1024 * 1024)
    with path.open(encoding=_encoding(mapping), newline="") as file:
        rows = csv.reader(file, strict=True, delimiter=mapping.delimiter if mapping else ",")
        try:
            header = [name.strip() for name in next(rows, [])]
            _check_columns(path, header, mapping)
            for row in rows:
                if row:
                    # A row with too many or too few fields is shifted: better no example than a wrong one.
                    fits = len(row) == len(header)
                    problem = "" if fits else f"it has {len(row)} fields, the header has {len(header)}"
                    found = dict(zip(header, row, strict=False))
                    yield rows.line_num, mapping.renamed(found) if mapping else found, problem
        except csv.Error as problem_of_file:
            raise InvalidInput(
                f"{path} line {rows.line_num} is not CSV: {problem_of_file}", remedy="Check the quotation marks."
            ) from None


def _encoding(mapping: ColumnMapping | None) -> str:
    return "utf-8-sig" if mapping is None or mapping.encoding == "utf-8" else mapping.encoding


def _check_columns(path: Path, header: list[str], mapping: ColumnMapping | None) -> None:
    if mapping is not None:
        if missing := mapping.missing(header):
            raise InvalidInput(
                f"{path} has no column {missing[0]!r}, which the mapping names; it has {named(header)}",
                remedy="Mend the mapping, or its delimiter.",
            )
    elif not set(header) & {*_TEXT, "subject", _COMMENTS} or not set(header) & set(_LABEL):
        raise InvalidInput(
            f"{path} has the columns {named(header)}",
            remedy="It needs a text column (text or body) and a label column (label or macro_id).",
        )
    if len(set(header)) < len(header):
        raise InvalidInput(f"{path} names a column twice: {named(header)}", remedy="Rename one of them.")


def _jsonl_rows(path: Path, mapping: ColumnMapping | None) -> _Rows:
    with path.open(encoding=_encoding(mapping)) as file:
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
            if mapping is not None:
                value = mapping.renamed(value)
            yield number, {key: _plain(key, field) for key, field in value.items()}, ""


def _plain(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if name == _COMMENTS:
        return json.dumps(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


_READERS: dict[str, Callable[[Path, ColumnMapping | None], _Rows]] = {"csv": _csv_rows, "jsonl": _jsonl_rows}
