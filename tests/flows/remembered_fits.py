"""Fits that are made once: most tests of flows train the same few made-up tenants, and none of them is about fitting."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from registry.catalogue import Catalogue
from registry.model.bundle import Label
from registry.model.program import ProgramSpec
from registry.model.runtime import Features, Program
from training import trainer
from training.fitting import FitSettings, Fitter
from training.folded_fit import FitsWeights, Fitted, FoldedFit
from training.holdout import Holdout, Positions


class LateFitter:
    """A `Fitter` that is made, which takes a second, when something is fitted."""

    def __init__(self, spec: ProgramSpec, settings: FitSettings) -> None:
        self.settings = settings
        self._spec = spec

    @cached_property
    def _real(self) -> Fitter:
        return Fitter(self._spec, self.settings)

    def fit(
        self,
        features: Features,
        targets: NDArray[np.int32],
        macros: int,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        return self._real.fit(features, targets, macros, progress=progress)

    def tempered(self, tensors: Mapping[str, NDArray[Any]], temperature: float) -> dict[str, NDArray[Any]]:
        return self._real.tempered(tensors, temperature)


def remember_fits(patch: pytest.MonkeyPatch, made: dict[bytes, tuple[Fitted, list[float]]]) -> None:
    """Have the program `bag` fitted once for the same rows, labels, catalogue and settings, as long as `made` is kept.

    Whoever is told how far it is, is told the same each time.
    """

    class RememberedFit(FoldedFit):
        def __init__(
            self,
            program: Program,
            fitter: FitsWeights,
            held: Holdout,
            labels: Sequence[Label],
            catalogue: Catalogue | None,
            told: Callable[[float], None],
        ) -> None:
            self._given = program, fitter, held, labels, catalogue
            self._tell = told

        def run(self, *, precision: float) -> Fitted:
            program, fitter, held, labels, catalogue = self._given
            if not isinstance(fitter, LateFitter):
                return FoldedFit(*self._given, self._tell).run(precision=precision)
            what = (program.digest, fitter.settings, held, list(labels), catalogue, precision)
            key = hashlib.sha256(pickle.dumps(what)).digest()
            if key not in made:
                shares: list[float] = []

                def told(share: float) -> None:
                    shares.append(share)
                    self._tell(share)

                fitted = FoldedFit(*self._given, told).run(precision=precision)
                for tensor in fitted.tensors.values():
                    tensor.flags.writeable = False
                made[key] = fitted, shares
            else:
                for share in made[key][1]:
                    self._tell(share)
            return made[key][0]

        def held_out(self) -> tuple[Positions, NDArray[np.float32]]:
            return FoldedFit(*self._given, self._tell).held_out()

    patch.setattr(trainer, "Fitter", LateFitter)
    patch.setattr(trainer, "FoldedFit", RememberedFit)
