"""`macrofleet bench peers`: our server and those that people would pick instead, one after the other, in one run."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.peers.cgroup import memory_group
from benchmarks.peers.environments import ENVIRONMENTS, install_environments
from benchmarks.peers.fastapi_peer import FastApiVariables
from benchmarks.peers.known import PEERS
from benchmarks.peers.marks import judge_marks
from benchmarks.peers.measure import Measurement
from benchmarks.peers.results import Cell, PeerRun, read_run, write_run
from benchmarks.peers.sizes import Sizes, sessions
from benchmarks.peers.world import World, add_variables, open_world
from benchmarks.stage import choose_cores
from registry.console_output import Step
from registry.errors import InvalidInput
from registry.settings import user_cache

#: In the order of what they are worth, should time run out.
ALL = ("macrofleet", "echo", "fastapi", "mms", "ray", "fastapi-variables", "mlserver", "dedicated")


def worlds_folder() -> Path:
    """Where the classifiers are kept from one run to the next."""
    return user_cache() / "peers-worlds"


def check_peers(named: str) -> tuple[str, ...]:
    """The servers that a list with commas names; all of them where it is empty. Raises InvalidInput."""
    names = tuple(filter(None, (name.strip() for name in named.split(","))))
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise InvalidInput(f"there is no peer {unknown[0]!r}", remedy=f"Peers: {', '.join(ALL)}.")
    return names or ALL


def check_tenants(named: str) -> tuple[int, ...]:
    """Whole numbers with commas between them, in rising order. Raises InvalidInput."""
    try:
        found = tuple(sorted({int(part) for part in named.split(",")}))
    except ValueError:
        found = ()
    if not found or found[0] < 5 or found[-1] > 5000:
        raise InvalidInput(f"{named!r} are no numbers of tenants", remedy="Name some from 5 to 5000: 10,100.")
    return found


def prepare(peers: Sequence[str], sizes: Sizes, step: Step) -> tuple[World, dict[str, str]]:
    """Have the classifiers and the environments; also which environments could not be made, and why.

    Raises:
        InvalidInput: the disk has no room for the classifiers.
    """
    wanted = dict.fromkeys(PEERS[name].environment for name in peers)
    failed = install_environments([name for name in wanted if name is not None], step)
    folder = worlds_folder() / str(sizes.world_tenants)
    world = open_world(folder, tenants=sizes.world_tenants, step=step)
    if FastApiVariables.name in peers:
        add_variables(world, tenants=FastApiVariables.most_tenants, step=step)
    return world, failed


def compare(
    peers: Sequence[str],
    sizes: Sizes,
    path: Path,
    *,
    command: str,
    most_seconds: float,
    step: Step,
    again: bool = False,
) -> dict[str, Any]:
    """Measure, and go on with the run in `path` if there is one of the same sizes.

    Args:
        path: of the run's file (`benchmarks.peers.results`), written after every step.
        command: what was typed, for the record.
        most_seconds: after which no other server is started.
        again: take steps again that failed or were skipped.

    Returns:
        A report: the marks, whether each is reached, and the run's file.

    Raises:
        InvalidInput: `path` is a run of other sizes, or none at all.
    """
    keeper = _Keeper(path, _begun(path, sizes, command))
    world, failed = prepare(peers, sizes, step)
    deadline = time.monotonic() + most_seconds
    cores = choose_cores()
    todo = list(sessions(peers, sizes))
    if not any(_is_left(keeper.run.done(cell), again) for session in todo for cell in session.cells):
        step(f"{path} has every step of an earlier run: nothing is measured; move it away for a new run", 1.0)
    for place, session in enumerate(todo):
        kind = PEERS[session.peer]
        wanted = [cell for cell in session.cells if _is_left(keeper.run.done(cell), again)]
        keeper.introduce(session.peer)
        if not wanted:
            continue
        if kind.environment in failed:
            keeper.give_up(wanted, "failed", failed[kind.environment])
        elif time.monotonic() > deadline:
            continue  # a rerun goes on here
        else:
            share = place / len(todo)
            measurement = Measurement(
                session, world, sizes, cores, save=keeper.save, say=functools.partial(_say, step, share)
            )
            try:
                measurement.run(wanted)
            except (OSError, RuntimeError, subprocess.SubprocessError) as problem:
                # A server that cannot be cleared away must not cost the others their turn.
                left = [cell for cell in wanted if _is_left(keeper.run.done(cell), again=False)]
                keeper.give_up(left, "failed", f"the bench stopped with it: {type(problem).__name__}: {problem}")
    return {"bench": "peers", **judge_marks(keeper.run), "run": str(path), "machine": keeper.run.machine}


def _is_left(done: Cell | None, again: bool) -> bool:
    return done is None or (again and done.outcome != "measured")


def _say(step: Step, share: float, text: str) -> None:
    step(text, share)


class _Keeper:
    """The run, and its file."""

    def __init__(self, path: Path, run: PeerRun) -> None:
        self._path = path
        self.run = run

    def save(self, cell: Cell) -> None:
        """One more result."""
        self.run = self.run.with_cell(cell)
        write_run(self._path, self.run)

    def give_up(self, cells: Sequence[Cell], outcome: Any, error: str) -> None:
        """The same result for several steps."""
        for cell in cells:
            self.save(dataclasses.replace(cell, outcome=outcome, error=error, date=_now()))

    def introduce(self, name: str) -> None:
        """Say what a server is."""
        if name in self.run.peers:
            return
        info = PEERS[name].info()
        environment = PEERS[name].environment
        if environment is not None and ENVIRONMENTS[environment].installed:
            info = dataclasses.replace(info, versions=ENVIRONMENTS[environment].versions())
        self.run = self.run.with_peer(name, info)
        write_run(self._path, self.run)


def _begun(path: Path, sizes: Sizes, command: str) -> PeerRun:
    settings = {**_plain(sizes.as_dict()), "memory": _how_memory_is_measured()}
    if path.exists():
        run = read_run(path)
        if dict(run.settings) != settings:
            raise InvalidInput(
                f"{path} is a run of other sizes", remedy="Name another file with --out, or move that one away."
            )
        return run
    void = tuple(choose_cores().void)
    return PeerRun(date=_now(), command=command, machine=describe_machine(), settings=settings, void=void)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def _how_memory_is_measured() -> str:
    with memory_group(2**30) as group:
        return "unbounded, PSS alone" if group.path is None else "control group, version 1"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
