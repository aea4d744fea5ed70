"""How much is measured, and of which server: pure, so that it can be said beforehand what a run will do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.known import PEERS
from benchmarks.peers.results import OURS, Cell, Step, Text
from benchmarks.peers.server import Peer

TEXTS: tuple[Text, ...] = ("short", "50 words")
ECHO = "echo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes and lengths of a run.

    Attributes:
        tenants: how many are served, in rising order.
        clients: connections of the closed loops.
        few_clients: the same, where a server serves more tenants than it keeps loaded.
        seconds: of one closed loop.
        cold: first answers of each kind, page cache warm and dropped.
        cold_seconds: after which no more first answers are waited for, of each kind.
        load_seconds: after which no more models are loaded for a step.
        swap_seconds: least length of the load beside a swap.
        zipf_tenants, zipf_most: of the row in which a server keeps fewer models than it serves.
        zipf_rate: requests a second of that row's open loop: what the slowest can still take.
        zipf_seconds: its length; a 99th percentile of 600 requests is the seventh worst.
        most: models that other servers may keep loaded: what fits below the bound at 51 MB each and what loading takes on top.
        memory_bytes: bound of every server's processes together, page cache included.
    """

    tenants: tuple[int, ...] = (10, 100, 500, 1000, 2000)
    clients: tuple[int, ...] = (1, 8, 32)
    few_clients: tuple[int, ...] = (8,)
    seconds: float = 3.0
    cold: int = 15
    cold_seconds: float = 15.0
    load_seconds: float = 180.0
    swap_seconds: float = 5.0
    zipf_tenants: int = 1000
    zipf_most: int = 300
    zipf_rate: float = 10.0
    zipf_seconds: float = 60.0
    most: int = 300
    memory_bytes: int = 20 * 1024**3

    @property
    def world_tenants(self) -> int:
        """How many tenants the world must have."""
        return max(*self.tenants, self.zipf_tenants)

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return dataclasses.asdict(self)


#: For trying out: minutes, and figures that say little.
QUICK = Sizes(
    tenants=(10,),
    seconds=1.0,
    cold=3,
    cold_seconds=10.0,
    swap_seconds=3.0,
    zipf_tenants=30,
    zipf_most=10,
    zipf_seconds=5.0,
    most=10,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One start of a server, and what is measured on it.

    Attributes:
        most: models it may keep loaded; None for as many as fit below the memory bound (ours, whose models have a size).
        cells: in order; every `warm` one stands behind the `memory` one of its tenants.
    """

    peer: str
    most: int | None
    cells: tuple[Cell, ...]


def sessions(peers: Sequence[str], sizes: Sizes) -> Iterator[Session]:
    """What a run does, in order."""
    for name in peers:
        kind = PEERS[name]
        if name == ECHO:
            texts = [Cell(peer=name, step="warm", tenants=1, clients=count, text=text) for count, text in _loops(sizes)]
            yield Session(peer=name, most=None, cells=(Cell(peer=name, step="ready", tenants=1), *texts))
            continue
        start, *groups = _groups(kind, sizes)
        zipf = [] if kind.variant else [Cell(peer=name, step="zipf", tenants=sizes.zipf_tenants)]
        if name == OURS:
            yield Session(peer=name, most=None, cells=_joined(start, *groups))
            yield Session(peer=name, most=sizes.zipf_most, cells=tuple(zipf))
        elif not kind.evicts:
            # While it lives: it may not survive the last of its other steps.
            yield Session(peer=name, most=sizes.most, cells=_joined(start, zipf, *groups))
        elif sizes.most != sizes.zipf_most:
            yield Session(peer=name, most=sizes.most, cells=_joined(start, *groups))
            yield Session(peer=name, most=sizes.zipf_most, cells=tuple(zipf))
        else:
            # As soon as it keeps all that it may: what comes after that may end it.
            full = next(
                (place for place, group in enumerate(groups) if group[0].tenants >= sizes.most), len(groups) - 1
            )
            yield Session(
                peer=name, most=sizes.most, cells=_joined(start, *groups[: full + 1], zipf, *groups[full + 1 :])
            )


def _joined(*groups: Sequence[Cell]) -> tuple[Cell, ...]:
    return tuple(cell for group in groups for cell in group)


def _groups(kind: type[Peer], sizes: Sizes) -> Iterator[list[Cell]]:
    """What comes first, and then what is done with each number of tenants."""
    name = kind.name
    least = sizes.tenants[0]
    steps: tuple[Step, ...] = ("ready", "same", "cold")
    yield [Cell(peer=name, step=step, tenants=least) for step in steps]
    more = () if kind.also_with is None or kind.also_with > sizes.tenants[-1] else (kind.also_with,)
    for tenants in sorted({*sizes.tenants, *more}):
        group = [Cell(peer=name, step="memory", tenants=tenants)]
        if tenants <= kind.most_tenants:
            few = kind.evicts and name != OURS and tenants > sizes.most
            group += [
                Cell(peer=name, step="warm", tenants=tenants, clients=clients, text=text)
                for clients, text in _loops(sizes, few=few)
            ]
        if tenants == least and not kind.variant:
            group.append(Cell(peer=name, step="swap", tenants=tenants))
        yield group


def _loops(sizes: Sizes, *, few: bool = False) -> list[tuple[int, Text]]:
    return [(clients, text) for clients in (sizes.few_clients if few else sizes.clients) for text in TEXTS]
