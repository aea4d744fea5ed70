"""Pages from templates: everything that is put into one is escaped; figures and times are written the same way everywhere."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from flows.console.guard import csrf_of, session_if_any

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
# Where there is no figure.
NOTHING = "\u2013"
_UNITS = ("B", "kB", "MB", "GB", "TB")


class Pages:
    """Renders templates."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            percent=percent, count=count, ago=ago, when=when, size=size, seconds=seconds, words=words
        )
        # Browsers keep what they have until its address changes.
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in STATIC.iterdir()}
        self._environment.globals["asset"] = lambda name: f"/static/{name}?v={digests[name]}"

    def page(self, request: Request, template: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A whole page, with what was to be told since the last one."""
        session = session_if_any(request)
        return HTMLResponse(
            self._environment.get_template(template).render(
                signed_in=session,
                csrf=csrf_of(request),
                notices=session.told() if session is not None else (),
                path=request.url.path,
                **values,
            ),
            status_code=status,
        )

    def part(self, request: Request, template: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A part of a page, which a script puts in its place; without one it is a page by itself."""
        if request.headers.get("X-Part") == "1":
            text = self._environment.get_template(template).render(csrf=csrf_of(request), **values)
            return HTMLResponse(text, status_code=status)
        return self.page(request, "part.html", status=status, part=template, **values)


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction: `93.1 %`."""
    return NOTHING if value is None else f"{100 * value:.{digits}f} %"


def count(value: float | None) -> str:
    """A whole number with thin spaces between thousands."""
    return NOTHING if value is None else f"{round(value):,}".replace(",", "\u202f")


def ago(then: datetime | None, now: datetime | None = None) -> str:
    """How long ago: `3 h ago`."""
    if then is None:
        return NOTHING
    passed = ((now or datetime.now(UTC)) - then).total_seconds()
    if passed < 0:
        return f"in {_span(-passed)}"
    return "just now" if passed < 60 else f"{_span(passed)} ago"


def _span(passed: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if passed >= length:
            return f"{int(passed // length)} {unit}"
    return f"{int(passed)} s"


def when(then: datetime | None) -> str:
    """A time in UTC, to the minute."""
    return NOTHING if then is None else f"{then.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def seconds(value: float | None) -> str:
    """How long something took."""
    if value is None:
        return NOTHING
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def size(value: float) -> str:
    """Bytes, counted by 1000."""
    place = 0
    while value >= 1000 and place < len(_UNITS) - 1:
        value /= 1000
        place += 1
    return f"{value:.0f} {_UNITS[place]}" if place == 0 or value >= 100 else f"{value:.1f} {_UNITS[place]}"


def words(name: str) -> str:
    """A name of a setting or a state as people write it."""
    return name.replace("_", " ")
