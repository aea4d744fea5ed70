"""A run of `macrofleet bench peers` at rest: one JSON file, written anew after every step, so that a rerun goes on.

Who reads it (the report, the marks) needs this module and nothing else of the bench.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from registry.errors import InvalidInput

FORMAT = 1
#: The peer's name that is ours.
OURS = "macrofleet"

#: What is measured. `ready`: from the start of the server until it takes requests; `cold`: first answers of tenants that
#: were never loaded; `memory`: what more tenants cost; `warm`: a closed loop of so many clients over loaded tenants;
#: `swap`: a new version under load; `zipf`: more tenants than fit; `same`: whether it answers what the runtime answers.
Step = Literal["ready", "same", "cold", "memory", "warm", "swap", "zipf"]
#: `measured`: it did it. `failed`: it could not, and `error` is its own message. `skipped`: the bench did not try, and
#: `error` says why.
Outcome = Literal["measured", "failed", "skipped"]
Text = Literal["short", "50 words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One step of one peer.

    Attributes:
        peer: its name, a key of `PeerRun.peers`.
        tenants: how many it serves in this step.
        clients: connections of the closed loop (`warm`), else None.
        text: what the requests ask about, where one kind only was asked.
        error: see `Outcome`; also set for a measured step in which requests failed, with the first failure's message.
        figures: by name; names end with their unit (`_ms`, `_seconds`, `_bytes`, `_rps`), counts have none. A figure
            that could not be measured is None.
        seconds: how long the step took.
        date: when it ended, ISO 8601 in UTC.
    """

    peer: str
    step: Step
    tenants: int
    clients: int | None = None
    text: Text | None = None
    outcome: Outcome = "measured"
    error: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    date: str = ""

    @property
    def key(self) -> tuple[str, str, int, int | None, str | None]:
        """What it is the result of: a run has one cell for each."""
        return (self.peer, self.step, self.tenants, self.clients, self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """A server that was measured.

    Attributes:
        title: for people.
        versions: of its packages, by name.
        settings: what was set on it, by name, as it takes it.
        documentation: addresses of the pages that the settings come from.
        notes: what else a reader must know to judge it.
    """

    title: str
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    documentation: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRun:
    """One run, whole or as far as it has come.

    Attributes:
        date: when it began, ISO 8601 in UTC.
        command: what was typed.
        machine: `benchmarks.machine.describe_machine`.
        settings: of the bench: sizes, lengths, the memory bound and how memory was measured.
        peers: by name, in the order in which they ran.
        cells: in the order in which they were done.
        void: reasons why the run says nothing, whatever its figures.
    """

    date: str
    command: str
    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    peers: Mapping[str, PeerInfo] = field(default_factory=dict)
    cells: tuple[Cell, ...] = ()
    void: tuple[str, ...] = ()
    format: int = FORMAT

    def done(self, wanted: Cell) -> Cell | None:
        """The result of the same step, if it is there."""
        return next((cell for cell in self.cells if cell.key == wanted.key), None)

    def with_cell(self, cell: Cell) -> PeerRun:
        """This run with one more result; one of the same step is replaced."""
        return dataclasses.replace(self, cells=(*(old for old in self.cells if old.key != cell.key), cell))

    def with_peer(self, name: str, peer: PeerInfo) -> PeerRun:
        """This run with what is known of a peer."""
        return dataclasses.replace(self, peers={**self.peers, name: peer})

    def select(self, **wanted: object) -> Iterator[Cell]:
        """Cells whose attributes are these."""
        return (cell for cell in self.cells if all(getattr(cell, name) == value for name, value in wanted.items()))

    def figure(self, name: str, **wanted: object) -> float | None:
        """A figure of the only cell that `wanted` names; None without one, or where it was not measured."""
        cells = [cell for cell in self.select(**wanted) if cell.outcome == "measured"]
        if len(cells) != 1:
            return None
        value = cells[0].figures.get(name)
        return None if value is None else float(value)

    def as_source(self) -> dict[str, Any]:
        """What a figure that is computed from it says of it."""
        busy = self.machine.get("load_average")
        return {"command": self.command, "began": self.date, "load_average_before": busy, "void": list(self.void)}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def write_run(path: Path, run: PeerRun) -> None:
    """Write a run; whoever reads meanwhile, or after a crash, finds the old one or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(run.as_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(path)


def read_run(path: Path) -> PeerRun:
    """Read a run. Raises InvalidInput: it cannot be read, or it is not one of this format."""
    try:
        return parse_run(json.loads(path.read_text(encoding="utf-8")))
    except OSError as problem:
        raise InvalidInput(f"{path} cannot be read ({problem.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise InvalidInput(
            f"{path} is no run of `macrofleet bench peers` ({problem})",
            remedy="Name another file, or move it away and run the bench again.",
        ) from None


def parse_run(data: Mapping[str, Any]) -> PeerRun:
    """A run out of what `as_dict` made. Raises ValueError, TypeError or KeyError: it is none."""
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']!r}, not {FORMAT}")
    peers = {
        name: PeerInfo(**{**peer, "documentation": tuple(peer["documentation"]), "notes": tuple(peer["notes"])})
        for name, peer in data["peers"].items()
    }
    cells = tuple(_checked(Cell(**cell)) for cell in data["cells"])
    return PeerRun(**{**data, "peers": peers, "cells": cells, "void": tuple(data["void"])})


def runs_in(paths: Iterable[Path]) -> list[PeerRun]:
    """Several runs, the earliest first. Raises as `read_run`."""
    return sorted((read_run(path) for path in paths), key=lambda run: run.date)


def _checked(cell: Cell) -> Cell:
    for value, allowed in ((cell.step, Step), (cell.outcome, Outcome)):
        if value not in get_args(allowed):
            raise ValueError(f"{value!r} is none of {', '.join(get_args(allowed))}")
    return cell
