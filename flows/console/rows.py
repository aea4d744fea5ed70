"""The fleet as a table: what a row says, and which rows a page shows. Pure: searched, sorted and cut here, not in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

SIZES = (50, 100, 200)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRow:
    """One tenant.

    Attributes:
        version: that it serves; None where it serves none.
        reason: why it serves none.
        trained: what the last training came to, as its record says; empty where there is no record.
        trained_at: when that was.
        trained_reason: of that state.
        top1, top3: on the rows that it was tested on; None where there were none.
        stage: "canary" or "halted" of a staged roll-out.
        candidate, shadow: versions that wait, or are compared.
    """

    tenant: str
    version: str | None = None
    reason: str = ""
    trained: str = ""
    trained_at: datetime | None = None
    trained_reason: str = ""
    top1: float | None = None
    top3: float | None = None
    examples: int | None = None
    macros: int | None = None
    pinned: bool = False
    held: bool = False
    stage: str = ""
    candidate: str | None = None
    shadow: str | None = None

    @property
    def needs(self) -> str:
        """What somebody should look at; empty where nothing."""
        if self.trained == "failed":
            return "its last training failed"
        if self.trained == "not_promoted":
            return "its new model did not pass the gate"
        if self.stage == "halted":
            return "its roll-out was halted"
        return "a version waits to be promoted" if self.candidate else ""


SHOWS: Final[Mapping[str, tuple[str, Callable[[TenantRow], bool]]]] = {
    "all": ("All", lambda _: True),
    "attention": ("Needs a look", lambda row: bool(row.needs)),
    "serving": ("Serving", lambda row: row.version is not None),
    "without": ("No model", lambda row: row.version is None),
    "trial": ("Shadow or canary", lambda row: row.shadow is not None or row.stage == "canary"),
    "pinned": ("Pinned", lambda row: row.pinned),
    "held": ("Held", lambda row: row.held),
}
SORTS: Final[Mapping[str, Callable[[TenantRow], Any]]] = {
    "tenant": lambda row: row.tenant,
    "trained": lambda row: row.trained_at,
    "top1": lambda row: row.top1,
    "top3": lambda row: row.top3,
    "examples": lambda row: row.examples,
    "macros": lambda row: row.macros,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowQuery:
    """Which rows: read from an address, where what cannot be is what is shown by default."""

    text: str = ""
    show: str = "all"
    sort: str = "tenant"
    descending: bool = False
    page: int = 1
    size: int = SIZES[0]

    @classmethod
    def read(cls, given: Mapping[str, str]) -> RowQuery:
        """From the parameters of an address."""
        return cls(
            text=given.get("q", "").strip().lower()[:63],
            show=given.get("show", "") if given.get("show") in SHOWS else "all",
            sort=given.get("sort", "") if given.get("sort") in SORTS else "tenant",
            descending=given.get("dir") == "desc",
            page=number(given.get("page"), 1),
            size=size if (size := number(given.get("size"), 0)) in SIZES else SIZES[0],
        )

    def href(self, **changes: Any) -> str:
        """The address of this page with some of it changed; another choice of rows begins at page 1."""
        values = {name: getattr(self, name) for name in RowQuery.__slots__} | {"page": 1} | changes
        default = RowQuery()
        names = {"text": "q", "show": "show", "sort": "sort", "page": "page", "size": "size"}
        given = {short: values[name] for name, short in names.items() if values[name] != getattr(default, name)}
        if values["descending"]:
            given["dir"] = "desc"
        return f"/?{urlencode(given)}" if given else "/"

    def sorted_by(self, column: str) -> str:
        """The address of these rows by a column: figures best first, and the other way round at the second time."""
        first = column != "tenant"
        return self.href(sort=column, descending=(not self.descending) if self.sort == column else first)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPage:
    """A page of rows.

    Attributes:
        total: rows that were found on all pages.
        counts: of every choice in `SHOWS`, how many rows the search finds.
    """

    rows: Sequence[TenantRow]
    total: int
    page: int
    pages: int
    first: int
    counts: Mapping[str, int]


def select(rows: Iterable[TenantRow], query: RowQuery) -> RowPage:
    """The page that a query asks for; the last one where it asks for one beyond. What a row does not know comes last."""
    found = [row for row in rows if query.text in row.tenant]
    counts = {name: sum(map(chosen, found)) for name, (_, chosen) in SHOWS.items()}
    wanted = [row for row in found if SHOWS[query.show][1](row)]
    key = SORTS[query.sort]
    known = [row for row in wanted if key(row) is not None]
    known.sort(key=lambda row: row.tenant)
    known.sort(key=key, reverse=query.descending)
    unknown = sorted((row for row in wanted if key(row) is None), key=lambda row: row.tenant)
    ordered = known + unknown
    page, pages, first = place(len(ordered), query.page, query.size)
    return RowPage(
        rows=ordered[first : first + query.size],
        total=len(ordered),
        page=page,
        pages=pages,
        first=first,
        counts=counts,
    )


def place(total: int, page: int, size: int) -> tuple[int, int, int]:
    """The page that there is, how many there are, and where its first row is."""
    pages = max(1, -(-total // size))
    page = min(max(page, 1), pages)
    return page, pages, (page - 1) * size


def number(text: str | None, default: int) -> int:
    """A whole number of an address; `default` for what is none."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 9 else default
