"""A tenant's examples in, a bundle on disk out: featurise, fit, choose a threshold, evaluate, write."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from registry.bundle import Label, Manifest, write_bundle
from registry.catalogue import Catalogue
from registry.errors import NotEnoughData
from registry.runtime import Features, Program
from training.evaluation import Evaluation, choose_threshold, evaluate
from training.examples import Example, fingerprint, split_examples
from training.fitting import FitSettings, Fitter
from training.macros import described, learnable
from training.tenants import labels_of

LEAST_EXAMPLES = 20
LEAST_MACROS = 2
_FEATURISE_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model that was fitted, judged and written.

    Attributes:
        examples: in-scope rows that training was given (fitted on or used for the threshold).
        fit_seconds: featurising and fitting, TensorFlow's start apart.
    """

    manifest: Manifest
    evaluation: Evaluation
    examples: int
    macros: int
    fit_seconds: float


class Trainer:
    """Trains one tenant after the other with one program. Belongs to one thread.

    Args:
        program: also what will serve: training sees a text exactly as serving does.
    """

    def __init__(self, program: Program, settings: FitSettings | None = None) -> None:
        self._program = program
        self._settings = settings or FitSettings()
        self._fitter = Fitter(program.spec, self._settings)
        program.featurise(["The first call of a program takes longer than all others."])

    def train(
        self,
        tenant: str,
        examples: Sequence[Example],
        folder: Path,
        *,
        catalogue: Catalogue | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Trained:
        """Train a model and write its bundle to `folder`, which is empty.

        Args:
            catalogue: for today's titles, and for which macros are retired: those are not learned.
            progress: told the finished share of fitting.

        Raises:
            NotEnoughData: too few examples, or fewer than two macros in them; says how many there are.
        """
        examples = learnable(examples, catalogue)
        _check_enough(tenant, examples)
        split = split_examples(examples)
        training = (*split.train, *split.validation) if split.borrowed else split.train
        macro_ids = sorted({example.macro_id for example in training if example.macro_id is not None})
        if len(macro_ids) < LEAST_MACROS:
            raise NotEnoughData(
                f"tenant {tenant} has {len(macro_ids)} macros in its training rows, {LEAST_MACROS} are needed",
                remedy="Import older tickets, or wait until more macros have been used.",
            )
        index = {macro_id: position for position, macro_id in enumerate(macro_ids)}
        labels = labels_of(macro_ids, catalogue)
        told = progress or (lambda _: None)
        fit_seconds, tensors = self._fit(
            split.train, labels, catalogue, lambda share: told(share * (0.5 if split.borrowed else 1))
        )
        threshold = choose_threshold(*self._scored(split.validation, tensors, index))
        if split.borrowed:
            # The rows that the threshold was chosen on are too good to lose: the model that serves is fitted on all.
            again, tensors = self._fit(training, labels, catalogue, lambda share: told(0.5 + share / 2))
            fit_seconds += again
        evaluation = evaluate(*self._scored(split.test, tensors, index), threshold=threshold)
        manifest = write_bundle(
            folder,
            tenant=tenant,
            program=self._program.digest,
            tensors=tensors,
            macros=labels,
            data_fingerprint=fingerprint(examples),
            settings=self._settings.as_dict(),
            metrics=evaluation.as_metrics(),
            threshold=threshold,
        )
        return Trained(
            manifest=manifest,
            evaluation=evaluation,
            examples=sum(example.macro_id is not None for example in (*split.train, *split.validation)),
            macros=len(macro_ids),
            fit_seconds=fit_seconds,
        )

    def featurise(self, texts: Sequence[str]) -> Features:
        """Features of many texts, in bounded batches."""
        batches = [
            self._program.featurise(texts[first : first + _FEATURISE_BATCH])
            for first in range(0, len(texts), _FEATURISE_BATCH)
        ]
        return Features.concatenate(batches)

    def _fit(
        self,
        examples: Sequence[Example],
        labels: Sequence[Label],
        catalogue: Catalogue | None,
        progress: Callable[[float], None],
    ) -> tuple[float, dict[str, NDArray[np.float32]]]:
        began = time.perf_counter()
        index = {label.id: position for position, label in enumerate(labels)}
        rows = [(example.text, index[example.macro_id]) for example in examples if example.macro_id is not None]
        rows += ((text, index[macro_id]) for text, macro_id in described(labels, examples, catalogue))
        features = self.featurise([text for text, _ in rows])
        targets = np.array([target for _, target in rows], np.int32)
        tensors = self._fitter.fit(features, targets, len(labels), progress=progress)
        return time.perf_counter() - began, tensors

    def _scored(
        self, examples: Sequence[Example], tensors: dict[str, NDArray[np.float32]], index: dict[str, int]
    ) -> tuple[NDArray[np.float32], list[int | None]]:
        targets = [None if e.macro_id is None else index.get(e.macro_id, -1) for e in examples]
        if not examples:
            return np.zeros((0, len(index)), np.float32), targets
        return self._program.score(self.featurise([example.text for example in examples]), tensors), targets


def _check_enough(tenant: str, examples: Sequence[Example]) -> None:
    used = Counter(example.macro_id for example in examples if example.macro_id is not None)
    if used.total() < LEAST_EXAMPLES:
        raise NotEnoughData(
            f"tenant {tenant} has {used.total()} labelled tickets, {LEAST_EXAMPLES} are needed",
            remedy="Import more with `macrofleet tickets import`.",
        )
    if len(used) < LEAST_MACROS:
        raise NotEnoughData(
            f"tenant {tenant} uses {len(used)} macro, {LEAST_MACROS} are needed: there is nothing to choose between",
            remedy="Import tickets to which other macros were applied.",
        )
