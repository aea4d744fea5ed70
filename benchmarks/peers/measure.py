"""The steps of one server, one after the other, each with a result of its own, whatever becomes of it."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.client import Client
from benchmarks.load import Samples, describe, percentiles, running
from benchmarks.peers.answers import (
    SWAP_MOST_SECONDS,
    Figures,
    answers_right,
    as_figures,
    described,
    first_answer,
    first_failure,
    gone,
    until_right,
)
from benchmarks.peers.cgroup import memory_group
from benchmarks.peers.known import PEERS
from benchmarks.peers.requests import EACH, Load, ask, ask_on
from benchmarks.peers.results import Cell
from benchmarks.peers.server import Peer, PeerCannot, PeerFailed, Place
from benchmarks.peers.sizes import ECHO, TEXTS, Session, Sizes
from benchmarks.peers.tree import Footprint
from benchmarks.peers.world import REPLACED, World
from benchmarks.processes import drop_pages, read_whole
from benchmarks.stage import Cores

Save = Callable[[Cell], None]
Say = Callable[[str], None]

# What our server needs besides its models, below the bound.
_OWN_BYTES = 1.5 * 1024**3
_SWAP_CLIENTS = 8
_SWAP_LEAD_SECONDS = 1.0
_WARM_UP = 50


class Measurement:
    """One start of a server, and its steps.

    Args:
        save: is given each step's result as soon as there is one.
        say: is told what is done now.
    """

    def __init__(self, session: Session, world: World, sizes: Sizes, cores: Cores, *, save: Save, say: Say) -> None:
        self._session = session
        self._world = world
        self._sizes = sizes
        self._cores = cores
        self._save = save
        self._say = say
        self._loaded: list[str] = []
        self._beside = 0  # tenants loaded for their first answers
        self._short: str | None = None
        self._before: tuple[int, Footprint] | None = None

    def run(self, wanted: Sequence[Cell]) -> None:
        """Start the server and take the steps that are wanted; results go to `save`.

        What was done before is done again only as far as later steps stand on it. A server that does not start or ends
        leaves its words in the step, and the later ones are skipped.
        """
        kind = PEERS[self._session.peer]
        with self._placed() as place, self._out_of_the_way():
            peer = kind(place)
            peer.keep_to(self._all_cores)  # a start is not what the cores are shared for
            left = {cell.key for cell in wanted}
            over: str | None = None
            try:
                for cell in self._stood_on(left):
                    if over is None:
                        found = self._take(peer, cell)
                        if found.error is not None and found.outcome != "skipped" and (why := gone(peer, cell.step)):
                            over = f"{why} after: {cell.step}, {cell.tenants} tenants"
                    else:
                        found = replace(cell, outcome="skipped", error=over, date=_now())
                    if cell.key in left:
                        self._save(found)
            finally:
                peer.stop()

    def _stood_on(self, left: Collection[object]) -> list[Cell]:
        """The steps that are left, and those before them that they stand on: a started server and loaded models."""
        most = max(cell.tenants for cell in self._session.cells)
        start = Cell(peer=self._session.peer, step="ready", tenants=most)
        cells = [cell for cell in self._session.cells if cell.key in left or cell.step in {"ready", "memory"}]
        while cells and cells[-1].key not in left:
            cells.pop()
        return cells if cells[0].step == "ready" else [start, *cells]

    @contextmanager
    def _out_of_the_way(self) -> Iterator[None]:
        """This process, which asks one thing at a time, keeps to the generator's core."""
        self._all_cores = os.sched_getaffinity(0)
        if self._cores.load is not None:
            os.sched_setaffinity(0, {self._cores.load})
        try:
            yield
        finally:
            os.sched_setaffinity(0, self._all_cores)

    @contextmanager
    def _placed(self) -> Iterator[Place]:
        most = self._session.most
        if most is None:
            most = int((self._sizes.memory_bytes - _OWN_BYTES) // self._world.model_bytes)
        with (
            tempfile.TemporaryDirectory(prefix="macrofleet-peer-", ignore_cleanup_errors=True) as folder,
            memory_group(self._sizes.memory_bytes) as group,
        ):
            yield Place(folder=Path(folder), group=group, world=self._world, most=most)

    def _take(self, peer: Peer, cell: Cell) -> Cell:
        what = " ".join(filter(None, [cell.step, f"{cell.tenants} tenants", cell.text]))
        self._say(f"{peer.name}: {what}" + (f", {cell.clients} clients" if cell.clients else ""))
        began = time.monotonic()
        outcome, error, figures = "measured", None, {}
        try:
            if cell.tenants > peer.most_tenants and cell.step != "zipf":
                raise _Skipped(f"it is tried with {peer.most_tenants} tenants at most")
            figures = self._steps()[cell.step](peer, cell)
            error = figures.pop("error", None)
        except _Skipped as problem:
            outcome, error = "skipped", str(problem)
        except (PeerFailed, PeerCannot) as problem:
            outcome, error = "failed", str(problem)
            figures = getattr(problem, "figures", {})
        except Exception as problem:  # noqa: BLE001  # whatever it was: the other steps and servers are worth having
            outcome, error = "failed", f"{type(problem).__name__}: {problem}; {peer.last_words()}"
        return replace(
            cell,
            outcome=outcome,  # type: ignore[arg-type]  # one of three words
            error=error,
            figures=figures,
            seconds=round(time.monotonic() - began, 2),
            date=_now(),
        )

    def _steps(self) -> dict[str, Callable[[Peer, Cell], Figures]]:
        return {
            "ready": self._ready,
            "same": self._same,
            "cold": self._cold,
            "memory": self._memory,
            "warm": self._warm,
            "swap": self._swap,
            "zipf": self._zipf,
        }

    # Steps

    def _ready(self, peer: Peer, cell: Cell) -> Figures:  # noqa: ARG002  # a step
        most = max(cell.tenants for cell in self._session.cells)
        tenants = self._world.tenants[: min(most, peer.most_tenants)]
        for tenant in [*tenants, *self._world.spare]:
            for file in self._world.files(tenant):
                drop_pages(file)  # so that whoever reads it first is charged with it
        began = time.monotonic()
        peer.start(tenants)
        seconds = time.monotonic() - began
        self._keep_to_core(peer)
        return {"ready_seconds": round(seconds, 2), **as_figures(peer.tree.footprint())}

    def _same(self, peer: Peer, cell: Cell) -> Figures:  # noqa: ARG002  # a step
        rows = self._world.expected()
        self._have(peer, list(dict.fromkeys(row.tenant for row in rows)))
        wrong = [row for row in rows if not answers_right(peer, row)]
        if wrong:
            raise PeerFailed(
                f"{len(wrong)} of {len(rows)} answers are not the runtime's, the first {wrong[0].tenant}'s"
            )
        return {"compared": len(rows)}

    def _cold(self, peer: Peer, cell: Cell) -> Figures:  # noqa: ARG002  # a step
        half = len(self._world.spare) // 2
        figures: Figures = {}
        for place in range(_WARM_UP):  # what the server itself does for the first time is no tenant's
            ask(peer, REPLACED, place)
        for name, tenants in (("cached", self._world.spare[:half]), ("uncached", self._world.spare[half:])):
            found = []
            began = time.monotonic()
            for place, tenant in enumerate(tenants[: self._sizes.cold]):
                for file in self._world.files(tenant):
                    drop_pages(file)
                    if name == "cached":
                        read_whole(file)
                found.append(first_answer(peer, tenant, place))
                self._beside += 1
                if time.monotonic() - began > self._sizes.cold_seconds:
                    break
            figures |= {f"{name}_{key}": value for key, value in percentiles(np.array(found)).items()}
            figures[f"{name}_answers"] = len(found)
        return figures

    def _memory(self, peer: Peer, cell: Cell) -> Figures:
        """Load up to so many tenants and ask each about everything; what that costs, from the step before to this one."""
        wanted = (
            self._world.tenants[: min(cell.tenants, peer.place.most)]
            if peer.evicts
            else self._world.tenants[: cell.tenants]
        )
        if self._before is None:
            # The server itself, and what comes with its first models, is nobody's.
            self._have(peer, wanted[:2])
            self._before = (self._held(peer), peer.tree.footprint())
        held_before, before = self._before
        began = time.monotonic()
        if peer.has_ended():
            raise PeerFailed(peer.last_words())
        try:
            self._have(peer, wanted)
        except PeerFailed as problem:
            self._short = str(problem)
            problem.figures = {"loaded": len(self._loaded)}  # type: ignore[attr-defined]  # for whoever reports it
            raise
        seconds = time.monotonic() - began
        after = peer.tree.footprint()
        more = self._held(peer) - held_before
        self._before = (self._held(peer), after)
        per_tenant = {
            f"{name}_bytes_per_tenant": None if more <= 0 or new is None or old is None else round((new - old) / more)
            for name, new, old in (
                ("pss", after.pss, before.pss),
                ("resident", after.resident, before.resident),
                ("charged", after.charged, before.charged),
            )
        }
        threads = round((after.threads - before.threads) / more, 3) if more > 0 else None
        figures = {"loaded": len(self._loaded), "more": more, "load_seconds": round(seconds, 2)}
        figures["bound_hits"] = peer.place.group.hits()
        return {**figures, **as_figures(after), **per_tenant, "threads_per_tenant": threads, "error": self._short}

    def _warm(self, peer: Peer, cell: Cell) -> Figures:
        assert cell.clients is not None
        assert cell.text is not None
        if peer.name != ECHO and not peer.evicts and len(self._loaded) < cell.tenants:
            raise _Skipped(f"it holds {len(self._loaded)} of {cell.tenants} tenants: {self._short}")
        load = self._load(peer, cell.tenants, cell.text)
        load.closed(clients=cell.clients, seconds=min(0.5, self._sizes.seconds))
        samples = load.closed(clients=cell.clients, seconds=self._sizes.seconds)
        if peer.has_ended():
            raise PeerFailed(f"it ended under load: {peer.last_words()}")
        return {**described(samples), **self._why(peer, samples, cell.tenants)}

    def _swap(self, peer: Peer, cell: Cell) -> Figures:
        load = self._load(peer, cell.tenants, "50 words")
        took: list[float] = []
        failed: list[Exception] = []

        def exchange() -> None:
            began = time.monotonic()
            try:
                peer.replace(REPLACED)
                until_right(peer, self._world.expected("next"), began + SWAP_MOST_SECONDS)
                took.append(time.monotonic() - began)
            except (PeerFailed, PeerCannot) as problem:
                failed.append(problem)

        # Until the new version answers and a while longer: how long that takes is not known beforehand.
        runs: list[Samples] = []
        thread = threading.Thread(target=exchange)
        began = time.monotonic()
        while not runs or thread.is_alive() or time.monotonic() - began < self._sizes.swap_seconds:
            plan = load.closed_plan(clients=_SWAP_CLIENTS, seconds=self._sizes.swap_seconds, keep_answers=True)
            with running(plan) as run:
                if not runs:
                    time.sleep(_SWAP_LEAD_SECONDS)
                    thread.start()
                runs.append(run.result())
        thread.join()
        if failed:
            raise failed[0]
        latency = np.concatenate([run.latency[run.status == 200] for run in runs])
        wrong = [first_failure(run) for run in runs]
        error = next((text for text in wrong if text), None)
        failures = sum(int((run.status != 200).sum()) for run in runs)
        return {
            "swap_seconds": round(took[0], 3),
            "requests": sum(len(run.status) for run in runs),
            "failures": failures,
            **percentiles(latency),
            "error": error,
        }

    def _zipf(self, peer: Peer, cell: Cell) -> Figures:
        if not peer.evicts:
            # What it does with the tenants that it has no room for.
            try:
                ask(peer, self._world.spare[-1], 0)
            except PeerFailed as problem:
                raise PeerFailed(f"it serves what it was told to load and nothing else: {problem}") from None
            raise PeerFailed("it answers for a tenant that was never loaded")
        self._have(peer, self._world.tenants[: min(peer.place.most, cell.tenants)])
        load = self._load(peer, cell.tenants, "50 words")
        # Whatever it keeps loaded is then what this traffic leaves.
        closed = load.closed(clients=_SWAP_CLIENTS, seconds=2 * self._sizes.seconds)
        samples = load.open(rate=self._sizes.zipf_rate, seconds=self._sizes.zipf_seconds)
        if peer.has_ended():
            raise PeerFailed(f"it ended under load: {peer.last_words()}")
        failures = int((samples.status != 200).sum())
        return {
            **described(samples),
            "failures": failures,
            "closed_rps": describe(closed)["rps"],
            "closed_failures": int((closed.status != 200).sum()),
            "most": peer.place.most,
            "error": first_failure(samples),
        }

    # What steps stand on

    def _have(self, peer: Peer, tenants: Sequence[str]) -> None:
        """Have tenants loaded that are not, and asked about everything. Raises PeerFailed, _Skipped: time is over."""
        missing = [tenant for tenant in tenants if tenant not in set(self._loaded)]
        if not missing:
            return
        deadline = time.monotonic() + self._sizes.load_seconds
        self._release(peer)  # loading is not what is measured: it may have all cores
        try:
            with ThreadPoolExecutor(peer.load_threads) as pool:
                for start in range(0, len(missing), peer.load_threads):
                    batch = missing[start : start + peer.load_threads]
                    if peer.explicit:
                        list(pool.map(peer.load, batch))
                    for tenant in batch:
                        self._ask_everything(peer, tenant)
                        self._loaded.append(tenant)
                    if time.monotonic() > deadline and start + len(batch) < len(missing):
                        self._short = f"loading was given {self._sizes.load_seconds:.0f} s by this bench"
                        raise _Skipped(f"{len(self._loaded)} of {len(tenants)} were loaded: {self._short}")
                    if peer.has_ended():
                        raise PeerFailed(f"{len(self._loaded)} of {len(tenants)} were loaded: {peer.last_words()}")
        except PeerFailed as problem:
            raise PeerFailed(f"{len(self._loaded)} tenants were loaded when it failed: {problem}") from None
        finally:
            self._keep_to_core(peer)

    def _held(self, peer: Peer) -> int:
        """Models that it has in memory: one that may keep so many lets others go for those that come."""
        every = len(self._loaded) + self._beside
        return min(every, peer.place.most) if peer.evicts else every

    def _ask_everything(self, peer: Peer, tenant: str) -> None:
        place = self._world.tenants.index(tenant)
        with Client(peer.url_of(tenant)) as client:
            for text in TEXTS:
                for copy in range(EACH):
                    ask_on(client, peer, tenant, EACH * place + copy, text)

    def _load(self, peer: Peer, tenants: int, text: Any) -> Load:
        return Load(peer, self._world.tenants[: peer.tenants_at_url or tenants], text, core=self._cores.load)

    def _why(self, peer: Peer, samples: Samples, tenants: int) -> Figures:
        """The message of a failure, where there were some: answers of closed loops are not kept."""
        failed = samples.picks[samples.status != 200]
        if not len(failed):
            return {}
        tenant = self._world.tenants[:tenants][int(failed[0]) // EACH]
        try:
            ask(peer, tenant, 0)
        except PeerFailed as problem:
            return {"error": str(problem)}
        return {"error": f"{len(failed)} requests failed; asked again, it answered"}

    def _keep_to_core(self, peer: Peer) -> None:
        if self._cores.server is not None:
            peer.keep_to({self._cores.server})

    def _release(self, peer: Peer) -> None:
        if self._cores.server is not None:
            peer.keep_to(self._all_cores)


class _Skipped(Exception):
    """The bench does not go on with it; says why."""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
