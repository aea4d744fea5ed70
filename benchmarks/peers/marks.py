"""What the comparison must come to, figure by figure; one that was not measured is not reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.results import OURS, Cell, PeerRun, Text
from benchmarks.verdicts import Bound

TEXTS: tuple[Text, ...] = ("short", "50 words")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One figure and what it is held to."""

    name: str
    value: float | None
    bound: Bound

    @property
    def passed(self) -> bool:
        """Whether it is reached."""
        return self.bound.holds(self.value)


def judge_marks(run: PeerRun) -> dict[str, Any]:
    """`figures`, `bounds` and `passed` by the marks' names, and `void`, for a report."""
    found = list(marks(run))
    return {
        "figures": {mark.name: mark.value for mark in found},
        "bounds": {mark.name: str(mark.bound) for mark in found},
        "passed": {mark.name: mark.passed for mark in found},
        "void": list(run.void),
    }


def marks(run: PeerRun) -> Iterator[Mark]:
    """All marks of a run."""
    yield from _against(run, "mms", cold=1000, memory=1 / 20, tenants=_most_held(run, "mms"))
    yield from _against(run, "fastapi", cold=100, memory=1 / 4, tenants=1000)
    peers = [name for name in run.peers if name != OURS]
    best = [value for name in peers if (value := run.figure("p99_ms", peer=name, step="zipf")) is not None]
    ours = run.figure("p99_ms", peer=OURS, step="zipf")
    yield Mark(name="zipf_p99_to_best_peers", value=_ratio(ours, min(best, default=None)), bound=Bound(at_most=1 / 10))
    yield Mark(name="zipf_failures", value=run.figure("failures", peer=OURS, step="zipf"), bound=Bound(at_most=0))
    largest = _largest(_memory_steps(run, OURS))
    threads = None if largest is None else largest.figures.get("threads_per_tenant")
    yield Mark(name="threads_per_tenant", value=threads, bound=Bound(at_most=0))
    for text in TEXTS:
        least = min((cell.tenants for cell in run.select(peer=OURS, step="warm")), default=0)
        ratio = _ratio(_most_rps(run, OURS, least, text), _most_rps(run, "echo", 1, text))
        yield Mark(name=f"rps_to_raw_echo_{_slug(text)}", value=ratio, bound=Bound(at_least=0.1))


def _against(run: PeerRun, peer: str, *, cold: float, memory: float, tenants: int) -> Iterator[Mark]:
    for kind in ("cached", "uncached"):
        names = {"step": "cold", "name": f"{kind}_p50_ms"}
        value = _ratio(_least(run.figure(**names, peer=form) for form in _forms(peer)), run.figure(**names, peer=OURS))
        yield Mark(name=f"{peer}_cold_{kind}", value=value, bound=Bound(at_least=cold))
    for kind in ("resident", "charged"):
        ratio = _ratio(bytes_per_tenant(run, OURS, kind), least_bytes_per_tenant(run, peer, kind))
        yield Mark(name=f"{peer}_memory_{kind}", value=ratio, bound=Bound(at_most=memory))
    for text in TEXTS:
        ratio = _ratio(_most_rps(run, OURS, _no_fewer(run, tenants), text), _most_rps(run, peer, tenants, text))
        yield Mark(name=f"{peer}_rps_{_slug(text)}", value=ratio, bound=Bound(at_least=3))


def least_bytes_per_tenant(run: PeerRun, peer: str, kind: str) -> float | None:
    """The least that a tenant costs a server, over the forms of SavedModels that it was given."""
    return _least(bytes_per_tenant(run, form, kind) for form in _forms(peer))


def bytes_per_tenant(run: PeerRun, peer: str, kind: str) -> float | None:
    """What a tenant costs a server: of the step that added most of them. PSS where there was no control group.

    Steps come first in which the memory bound was not met: there the kernel takes page cache back, and what a step adds is
    no longer what its tenants take.
    """
    steps = _memory_steps(run, peer)
    below = [cell for cell in steps if not cell.figures.get("bound_hits")]
    # Where some had to go again, what was added is less than what the step's tenants take.
    kept = [cell for cell in below if cell.figures.get("loaded", 0) >= cell.tenants]
    largest = _largest(kept or below or steps)
    if largest is None:
        return None
    value = largest.figures.get(f"{kind}_bytes_per_tenant")
    return float(largest.figures["pss_bytes_per_tenant"] if value is None else value)


def _memory_steps(run: PeerRun, peer: str) -> list[Cell]:
    return [cell for cell in run.select(peer=peer, step="memory", outcome="measured") if cell.figures.get("more")]


def _largest(steps: Sequence[Cell]) -> Cell | None:
    """The step that added most tenants: what a server does once is the least part of it."""
    return max(steps, key=lambda cell: (cell.figures["more"], -cell.tenants), default=None)


def _forms(peer: str) -> tuple[str, ...]:
    """A server under its own name, and over other files."""
    return (peer, f"{peer}-variables")


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _most_held(run: PeerRun, peer: str) -> int:
    """The most tenants with which a server was measured warm."""
    return max((cell.tenants for cell in run.select(peer=peer, step="warm", outcome="measured")), default=0)


def _no_fewer(run: PeerRun, tenants: int) -> int:
    """The number of tenants nearest to that, and no lower, with which ours was measured warm."""
    found = (cell.tenants for cell in run.select(peer=OURS, step="warm", outcome="measured"))
    return min((count for count in found if count >= tenants), default=tenants)


def _most_rps(run: PeerRun, peer: str, tenants: int, text: Text) -> float | None:
    """The most requests a second that it answered, over all numbers of clients."""
    cells = run.select(peer=peer, step="warm", tenants=tenants, text=text, outcome="measured")
    return max((float(cell.figures["rps"]) for cell in cells), default=None)


def _ratio(value: float | None, other: float | None) -> float | None:
    return round(value / other, 4) if value is not None and other else None


def _slug(text: Text) -> str:
    return text.replace(" ", "_")
