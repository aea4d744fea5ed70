"""What arrives when: a trace is a value that is made from a seed, saved, read by eye, and replayed.

Arrivals are a Poisson process whose rate changes: by the hour (a sine), in bursts, and with a cold tail of tenants that
ask once. They are drawn by thinning (Lewis and Shedler 1979, "Simulation of nonhomogeneous Poisson processes by
thinning"), tenants by Zipf. A trace of one's own traffic is the same kind of file, made from an access log.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmarks.load import Floats, Integers, interleaved, zipf_shares
from registry.errors import InvalidInput

_FORMAT = "macrofleet-trace/1"
_COLUMNS = ["at", "tenant"]
# Of a trace that is made, not of one that is read.
_MOST_ARRIVALS = 50_000_000


class TraceSpec(BaseModel):
    """What a made-up trace looks like; the same values give the same trace.

    `rate` is that of a quiet time: over whole days the mean is the same, bursts and the tail come on top.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float = Field(60.0, gt=0, description="length")
    rate: float = Field(100.0, gt=0, description="requests a second")
    tenants: int = Field(1000, ge=1, le=1_000_000, description="tenants that share the rate")
    zipf: float = Field(1.0, ge=0, description="exponent of their shares; 0 for equal ones")
    day: float = Field(0.0, ge=0, description="seconds of a day's up and down; 0 for none")
    swing: float = Field(0.5, ge=0, le=1, description="how far the rate swings in a day, as a share of it")
    bursts: float = Field(0.0, ge=0, description="mean seconds from one burst to the next; 0 for none")
    burst_seconds: float = Field(1.0, gt=0, description="length of a burst")
    burst_factor: float = Field(5.0, ge=1, description="the rate in a burst, as a multiple")
    tail: int = Field(0, ge=0, le=1_000_000, description="further tenants, each of whom asks once")
    seed: int = Field(1, ge=0, description="of everything drawn")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name=value,name=value`. Raises InvalidInput."""
        given: dict[str, str] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = part.partition("=")
            if not equals or name in given:
                raise InvalidInput(
                    f"{part!r} in the trace {text!r} is no name=value, or there twice", remedy=spec_help()
                )
            given[name] = value
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(place) for place in first["loc"])
            raise InvalidInput(f"{name} in the trace {text!r}: {first['msg']}", remedy=spec_help()) from None


def spec_help() -> str:
    """One sentence on the fields of a `TraceSpec`."""
    fields = (f"{name} ({field.description}; {field.default:g})" for name, field in TraceSpec.model_fields.items())
    return f"A trace is a file, or name=value,… of: {', '.join(fields)}."


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Arrivals, one after the other.

    Attributes:
        tenants: names; arrivals refer to them by place. Some may have no arrival; a saved trace leaves those out.
        at: when, in seconds after the start, rising; whole microseconds, so that a saved trace is the same.
        places: whose request it is.
        seconds: length, until after the last arrival.
        made: what it was made from; empty for one that was not made here.
    """

    tenants: Sequence[str]
    at: Floats = field(repr=False)
    places: Integers = field(repr=False)
    seconds: float
    made: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the trace as it is saved: what was replayed, in one line of a report."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()

    @cached_property
    def first(self) -> NDArray[np.bool_]:
        """Which arrivals are their tenant's first in the trace."""
        found = np.zeros(len(self.at), bool)
        found[np.unique(self.places, return_index=True)[1]] = True
        return found

    def to_text(self) -> str:
        """A line of JSON after `#`, and CSV with a header: seconds, tenant."""
        about = json.dumps({"format": _FORMAT, "seconds": self.seconds, "made": dict(self.made)}, sort_keys=True)
        names = self.tenants
        rows = (f"{at:.6f},{names[place]}\n" for at, place in zip(self.at.tolist(), self.places.tolist(), strict=True))
        return f"# {about}\n{','.join(_COLUMNS)}\n{''.join(rows)}"

    def save(self, path: Path) -> None:
        """Write it to a file, over what is there."""
        path.write_text(self.to_text(), encoding="utf-8")

    def with_names(self, names: Sequence[str]) -> Trace:
        """The same arrivals of other tenants, the busiest first. Raises InvalidInput: there are too few names."""
        if len(names) < len(self.tenants):
            raise InvalidInput(
                f"the trace has {len(self.tenants)} tenants, and there are {len(names)} names",
                remedy="Name more of them, or ask for fewer tenants in the trace.",
            )
        return Trace(
            tenants=tuple(names[: len(self.tenants)]),
            at=self.at,
            places=self.places,
            seconds=self.seconds,
            made=self.made,
        )

    def describe(self) -> dict[str, Any]:
        """For a report."""
        return {
            "sha256": self.digest,
            "arrivals": len(self.at),
            "seconds": self.seconds,
            "tenants": int(self.first.sum()),
            "made": dict(self.made),
        }


def make_trace(spec: TraceSpec) -> Trace:
    """Draw a trace. Raises InvalidInput: it would be too long."""
    peak = spec.rate * (1 + (spec.swing if spec.day else 0)) * (spec.burst_factor if spec.bursts else 1)
    if peak * spec.seconds + spec.tail > _MOST_ARRIVALS:
        raise InvalidInput(
            f"the trace would have up to {peak * spec.seconds:.3g} arrivals",
            remedy=f"At most {_MOST_ARRIVALS:,} are drawn: ask for less rate or fewer seconds.",
        )
    # A stream for each part: a longer tail or another day does not change the rest.
    arriving, thinning, choosing, bursting, trailing = np.random.default_rng(spec.seed).spawn(5)
    count = arriving.poisson(peak * spec.seconds)
    at = np.sort(arriving.uniform(0, spec.seconds, count))
    at = at[thinning.uniform(0, peak, count) < _rates(spec, at, bursting)]
    places = choosing.choice(spec.tenants, len(at), p=zipf_shares(spec.tenants, spec.zipf))
    tail_at = np.sort(trailing.uniform(0, spec.seconds, spec.tail))
    tail_places = spec.tenants + trailing.permutation(spec.tail)
    at, (places,) = interleaved([at, tail_at], [[places, tail_places]])
    return Trace(
        tenants=(*_names("tenant", spec.tenants), *_names("tail", spec.tail)),
        at=np.floor(at * 1e6) / 1e6,
        places=places,
        seconds=spec.seconds,
        made=spec.model_dump(),
    )


def _names(kind: str, count: int) -> list[str]:
    return [f"{kind}-{number:05d}" for number in range(count)]


def _rates(spec: TraceSpec, at: Floats, rng: np.random.Generator) -> Floats:
    """The rate at each of these moments."""
    rates = np.full(len(at), spec.rate)
    if spec.day:
        rates *= 1 - spec.swing * np.cos(2 * np.pi * at / spec.day)  # a day begins at its quietest
    if spec.bursts:
        starts = np.sort(rng.uniform(0, spec.seconds, rng.poisson(spec.seconds / spec.bursts)))
        since = at - np.concatenate([[-np.inf], starts])[np.searchsorted(starts, at, side="right")]
        rates[since < spec.burst_seconds] *= spec.burst_factor
    return rates


def read_trace(path: Path) -> Trace:
    """Read a saved trace, or a plain CSV with the columns `at` (seconds, from any start) and `tenant`.

    Raises:
        InvalidInput: there is no such file, or it is no trace; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the trace {path} cannot be read: {error}", remedy=spec_help()) from None
    about = _about(path, lines)
    skipped = 1 if about else 0
    if lines[skipped : skipped + 1] != [",".join(_COLUMNS)]:
        raise InvalidInput(f"{path}:{skipped + 1} is not the header {','.join(_COLUMNS)}", remedy=spec_help())
    at: list[float] = []
    places: list[int] = []
    known: dict[str, int] = {}
    for number, row in enumerate(csv.reader(lines[skipped + 1 :]), skipped + 2):
        try:
            moment, tenant = row
            at.append(float(moment))
        except ValueError:
            raise InvalidInput(f"{path}:{number} is not seconds,tenant") from None
        places.append(known.setdefault(tenant, len(known)))
    return _assembled(path, about, np.array(at, np.float64), np.array(places, np.int64), list(known))


def _about(path: Path, lines: Sequence[str]) -> dict[str, Any]:
    if not lines or not lines[0].startswith("#"):
        return {}
    try:
        about = json.loads(lines[0][1:])
        if about["format"] != _FORMAT:
            raise ValueError(about["format"])
        return {"seconds": float(about["seconds"]), "made": dict(about["made"])}
    except (ValueError, KeyError, TypeError):
        raise InvalidInput(f"{path}:1 does not begin a trace of the format {_FORMAT}") from None


def _assembled(path: Path, about: Mapping[str, Any], at: Floats, places: Integers, tenants: list[str]) -> Trace:
    if not np.isfinite(at).all() or (len(at) and (np.diff(at) < 0).any()):
        raise InvalidInput(f"the times of the trace {path} do not rise, or are no numbers", remedy="Sort it by time.")
    if not about:  # an access log: it begins with its first line
        at = np.floor((at - (at[0] if len(at) else 0)) * 1e6) / 1e6
        return Trace(tenants=tuple(tenants), at=at, places=places, seconds=float(at[-1]) if len(at) else 0.0)
    if len(at) and not 0 <= at[0] <= at[-1] <= about["seconds"]:
        raise InvalidInput(f"the times of the trace {path} are not within its {about['seconds']:g} seconds")
    return Trace(tenants=tuple(tenants), at=at, places=places, seconds=about["seconds"], made=about["made"])


def trace_of(text: str) -> Trace:
    """A trace from what a command was given: the name of a file that exists, or a `TraceSpec`. Raises InvalidInput."""
    if Path(text).exists():
        return read_trace(Path(text))
    if "=" not in text and text:
        raise InvalidInput(f"there is no trace {text}", remedy=spec_help())
    return make_trace(TraceSpec.parse(text))
