"""What a model must answer, computed beside the server by the runtime itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.fleets import SyntheticFleet, SyntheticModel
from registry.model.bundle import parse_labels
from registry.model.program import program_digest
from registry.model.runtime import Features, Program, limit_threads
from registry.model.tensors import parse_header
from registry.text.ticket import asked_text

_TOLERANCE = 1e-4


class Expectation:
    """Scores of any model for any of a few tickets.

    Args:
        programs: folders of the programs.
        bodies: requests' bodies.
    """

    def __init__(self, programs: Sequence[Path], bodies: Sequence[bytes]) -> None:
        limit_threads()
        texts = [_text(body) for body in bodies]
        self._programs: dict[str, tuple[Program, Features]] = {}
        for folder in programs:
            digest = program_digest(folder)
            program = Program(folder, trusted=frozenset([digest]))
            self._programs[digest] = (program, program.featurise(texts))

    def scores(self, fleet: SyntheticFleet, model: SyntheticModel) -> list[Mapping[str, float]]:
        """The probability of every macro, by its id, for each ticket."""
        program, features = self._programs[model.manifest.program]
        data = fleet.weights(model).read()
        tensors = {
            name: np.frombuffer(data, np.float32, offset=info.offset, count=info.nbytes // 4).reshape(info.shape)
            for name, info in parse_header(data, len(data), what="weights").items()
        }
        found: NDArray[np.float32] = program.score(features, tensors)
        ids = [label.id for label in parse_labels(model.labels, what="labels").macros]
        return [dict(zip(ids, row.tolist(), strict=True)) for row in found]


def agrees(macros: Sequence[tuple[str, float]], scores: Mapping[str, float]) -> bool:
    """Whether suggested macros have the scores that they must have, and are the best, each once."""
    names = {macro for macro, _ in macros}
    best = sorted(scores.values(), reverse=True)[: len(macros)]
    return (
        0 < len(names) == len(macros)
        and names <= scores.keys()
        and all(
            abs(score - scores[macro]) <= _TOLERANCE and abs(score - wanted) <= _TOLERANCE
            for (macro, score), wanted in zip(macros, best, strict=True)
        )
    )


def _text(body: bytes) -> str:
    ticket = json.loads(body)["ticket"]
    return asked_text(ticket["subject"], [comment["body"] for comment in ticket["comments"]])
