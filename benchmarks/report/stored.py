"""Results at rest: what benches printed with `--json`, runs of the comparison with other servers, and why a mark was missed."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.results import PeerRun, parse_run
from registry.errors import InvalidInput

WHY = "why.toml"
_NEEDED = ("bench", "command", "began")
#: Before a bench began; above, other work was on the machine.
BUSY_LOAD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one bench printed.

    Attributes:
        name: of its file, without `.json`.
        report: as it was printed.
    """

    name: str
    report: Mapping[str, Any]

    @property
    def bench(self) -> str:
        """Which bench it is of."""
        return str(self.report["bench"])

    @property
    def busy(self) -> bool | None:
        """Whether other work was on the machine when it began; None where it does not say."""
        before = self.report.get("load_average_before")
        return None if before is None else bool(before > BUSY_LOAD)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What it is computed from and says little, with why."""
        sources = self.report.get("measured", ())
        return tuple(rests_on(source) for source in sources if doubts_of(source))


def rests_on(source: Mapping[str, Any]) -> str:
    """What to say of something computed from a measurement that says little; see `doubts_of`."""
    return f"it rests on `{source['command']}` ({'; '.join(doubts_of(source))})"


def doubts_of(source: Mapping[str, Any]) -> list[str]:
    """Why a measurement says little: it was void, or the machine was busy.

    Args:
        source: a bench's report, or as much of it as what is computed from it keeps.
    """
    busy = busyness(source.get("load_average_before"))
    return [*source.get("void", ()), *([busy] if busy else [])]


def busyness(load: float | None) -> str | None:
    """What to say of a load average before something was measured; None where the machine was quiet, or nobody knows."""
    return None if load is None or load <= BUSY_LOAD else f"other work was on the machine (load {load:g} before)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that is stored, in the order of files' names.

    Attributes:
        benches: of benches.
        peers: of the comparison with other servers, by their files' names.
        folder: where they are.
        why: a sentence for each figure that misses its bound, by its bench (or "marks") and its name.
    """

    folder: Path
    benches: tuple[Result, ...]
    peers: Mapping[str, PeerRun]
    why: Mapping[str, Mapping[str, str]]

    def reason(self, bench: str, figure: str) -> str | None:
        """Why a figure misses its bound, if somebody wrote it down."""
        return self.why.get(bench, {}).get(figure)

    def of(self, bench: str) -> Iterator[Result]:
        """The results of one bench."""
        return (result for result in self.benches if result.bench == bench)

    def last(self, bench: str) -> Result | None:
        """The latest result of a bench."""
        return max(self.of(bench), key=lambda result: (str(result.report["began"]), result.name), default=None)


def read_results(folder: Path) -> Results:
    """Read every `*.json` of a folder, and `why.toml`.

    Raises:
        InvalidInput: a file is neither a bench's report nor a run of the comparison; names it.
    """
    benches: list[Result] = []
    peers: dict[str, PeerRun] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(data, dict) and "cells" in data:
                peers[path.stem] = parse_run(data)
                continue
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidInput(f"{path} cannot be read as a result: {error}") from None
        if not isinstance(data, dict) or not all(isinstance(data.get(name), str) for name in _NEEDED):
            raise InvalidInput(
                f"{path} is no report of a bench", remedy=f"A report has {', '.join(_NEEDED)}: keep what --json prints."
            )
        benches.append(Result(name=path.stem, report=data))
    return Results(folder=folder, benches=tuple(benches), peers=peers, why=_read_why(folder / WHY))


def _read_why(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is no TOML: {error}") from None
    parts = [part.values() if isinstance(part, dict) else [None] for part in found.values()]
    if not all(isinstance(text, str) for part in parts for text in part):
        raise InvalidInput(f"{path} has something that is no sentence", remedy='Write figure = "why" under [bench].')
    return found
