"""Fitting a tenant's weights for the program `encoder`: a linear head over sentence vectors, beside the tenant's n-grams.

Both parts are fitted for themselves, and what they say is added up (a product of experts, Hinton 2002): a multinomial
logistic regression over the sentence vectors, and the n-gram classifier that the program `bag` has (`training.fitting`),
smaller. Both are linear up to their sum, so that the program needs one kernel for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.model.program import ProgramSpec, TensorSpec
from registry.model.runtime import Features
from training.fitting import FitSettings, NgramFitter, divided, in_whole_numbers
from training.logistic import Floats, fit_logistic

# Chosen on rows held out of training rows of BANKING77 and HINT3 (docs/programs.md).
_DECAY = 1e-5
# What the layer before the last says beside the last.
_EARLIER = 0.5
# So many examples a macro, and its n-grams are worth as much as its sentences; fewer, and they are worth less.
_EXAMPLES_FOR_NGRAMS = 20


class HeadFitter:
    """Fits one tenant after the other. Belongs to one thread.

    Args:
        spec: the program whose weights are fitted.
        settings: of the n-grams' part; the other has nothing to choose.
    """

    def __init__(self, spec: ProgramSpec, settings: FitSettings) -> None:
        self._ngrams = NgramFitter(ngram_spec(spec), settings)

    def fit(
        self,
        features: Features,
        targets: NDArray[np.int32],
        macros: int,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Fit weights.

        Args:
            features: of the training texts, as the program made them.
            targets: int32 [tickets], index of the macro that was applied.
            macros: how many there are.
            progress: told the finished share.

        Returns:
            Weights by the names the program takes; the same for the same arguments, on one kind of machine and with
            one thread.
        """
        told = progress or (lambda _: None)
        kernel, bias = fit_sentences(features.tensors["sentence"], targets, macros)
        told(0.5)
        flat = Features({name: features.tensors[name] for name in ("ids", "splits")}, features.tickets)
        table = self._ngrams.fit(flat, targets, macros, progress=lambda share: told(0.5 + share / 2))
        share = np.float32(min(1.0, features.tickets / (_EXAMPLES_FOR_NGRAMS * macros)))
        table = in_whole_numbers(table)
        return {
            "embedding": table["embedding"],
            "weight": table["weight"],
            "kernel": np.concatenate([kernel, share * table["kernel"]]).astype(np.float32),
            "bias": (bias + share * table["bias"]).astype(np.float32),
        }

    def tempered(self, tensors: Mapping[str, NDArray[Any]], temperature: float) -> dict[str, NDArray[Any]]:
        """The weights whose scores are those of `tensors` at another temperature: the linear layer divided by it."""
        return divided(tensors, ("kernel", "bias"), temperature)


def fit_sentences(sentence: Floats, targets: NDArray[np.int32], macros: int) -> tuple[Floats, Floats]:
    """The head over sentence vectors alone.

    Args:
        sentence: float32 [tickets, 2 * width], as the program makes them.
        targets: int32 [tickets].

    Returns:
        Kernel float32 [2 * width, macros] and bias float32 [macros]; centring and scaling are in them.
    """
    scale = np.repeat(np.array([1, _EARLIER], np.float32), sentence.shape[1] // 2)
    centre = sentence.mean(axis=0)
    values = (sentence - centre) * scale
    size = np.sqrt(np.mean(np.square(values).sum(axis=1)) + 1e-12)
    kernel, bias = fit_logistic(values / size, targets, macros, decay=_DECAY)
    kernel = kernel * (scale / size)[:, None]
    return kernel, bias - centre @ kernel


def ngram_spec(spec: ProgramSpec) -> ProgramSpec:
    """A program of the n-grams alone, whose weights `NgramFitter` fits."""
    score = spec.signatures["score_f32"]
    shape = score.inputs["embedding"].shape
    inputs = {
        **{name: tensor for name, tensor in score.inputs.items() if name != "sentence"},
        "embedding": TensorSpec(dtype="float32", shape=shape),
        "kernel": TensorSpec(dtype="float32", shape=(shape[1], "macros")),
    }
    signatures = {**spec.signatures, "score_f32": score.model_copy(update={"inputs": inputs})}
    return spec.model_copy(update={"signatures": signatures})
