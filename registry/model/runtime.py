"""The one inference path: open a program, bind a bundle to it, featurise, score.

Evaluation, the MLflow flavour, `suggest` and the server all come through here, so there is nothing to skew. The only
module of this room that imports TensorFlow, and only when a program is opened.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.errors import BundleCorrupt, ProgramCorrupt
from registry.model.bundle import Label, Manifest
from registry.model.mapped import MappedModel
from registry.model.program import TensorSpec, check_trusted, program_digest, read_spec

_DTYPES = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "int8": np.dtype("i1"), "int32": np.dtype("<i4")}
_SPLITS = "splits"
_PRECISION = "score_f32"

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Features:
    """What a program made of a batch of texts.

    Attributes:
        tensors: by name. `splits` [tickets + 1] says where each ticket's part of a flat [features] tensor lies.
        tickets: how many.
        by_ticket: names of the tensors that are not flat: tickets are their first dimension.
    """

    tensors: Mapping[str, Array]
    tickets: int
    by_ticket: frozenset[str] = frozenset()

    def select(self, index: int) -> Features:
        """The features of one ticket of the batch; views, nothing copied but the splits."""
        parts = {name: self.tensors[name][index : index + 1] for name in self.by_ticket}
        splits = self.tensors.get(_SPLITS)
        if splits is not None:
            start, end = splits[index], splits[index + 1]
            parts |= {name: tensor[start:end] for name, tensor in self.tensors.items() if self._is_flat(name)}
            parts[_SPLITS] = np.array([0, end - start], splits.dtype)
        return Features(parts, 1, self.by_ticket)

    def _is_flat(self, name: str) -> bool:
        return name != _SPLITS and name not in self.by_ticket

    def take(self, tickets: NDArray[np.int64]) -> Features:
        """The features of some tickets of the batch, by position, in that order; copies."""
        parts = {name: self.tensors[name][tickets] for name in self.by_ticket}
        splits = self.tensors.get(_SPLITS)
        if splits is not None:
            lengths = np.diff(splits)[tickets].astype(np.int64)
            ends = np.cumsum(lengths)
            flat = np.repeat(splits[tickets].astype(np.int64) - (ends - lengths), lengths) + np.arange(lengths.sum())
            parts |= {name: tensor[flat] for name, tensor in self.tensors.items() if self._is_flat(name)}
            parts[_SPLITS] = np.concatenate([[0], ends]).astype(splits.dtype)
        return Features(parts, len(tickets), self.by_ticket)

    @classmethod
    def concatenate(cls, batches: Sequence[Features]) -> Features:
        """Several batches of one program as one."""
        first = batches[0].tensors
        tensors = {
            name: np.concatenate([batch.tensors[name] for batch in batches]) for name in first if name != _SPLITS
        }
        if _SPLITS in first:
            lengths = np.concatenate([np.diff(batch.tensors[_SPLITS]) for batch in batches])
            tensors[_SPLITS] = np.concatenate([[0], np.cumsum(lengths)]).astype(first[_SPLITS].dtype)
        return cls(tensors, sum(batch.tickets for batch in batches), batches[0].by_ticket)


def limit_threads(threads: int = 1) -> None:
    """Have TensorFlow use so many threads in all; works before its first import only.

    One is what a data plane wants: requests run beside each other, not inside each other (eight clients were served a
    quarter quicker), and what training fits is the same on every run.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["TF_NUM_INTEROP_THREADS"] = os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)


class Program:
    """A loaded program: trusted code without any tenant's data. `featurise` may be called from any thread."""

    def __init__(self, folder: Path, *, trusted: frozenset[str]) -> None:
        """Load the program in `folder`; takes seconds, once.

        Raises:
            ProgramUntrusted: its digest is not in `trusted`. Checked before TensorFlow reads a byte.
            ProgramCorrupt: it does not describe itself, or has not the functions it says it has.
        """
        self.digest = program_digest(folder)
        check_trusted(self.digest, trusted)
        self.spec = read_spec(folder)
        if not {"featurise", _PRECISION} <= set(self.spec.signatures):
            raise ProgramCorrupt(f"{folder} has no featurise or no {_PRECISION}")
        import tensorflow as tf

        from registry.model import text_operations  # noqa: F401  # registers the operations that programs use

        if not is_at_least(tf.__version__, self.spec.least_tensorflow):
            raise ProgramCorrupt(f"program {self.spec.name} needs TensorFlow {self.spec.least_tensorflow} or later")
        # The functions live as long as the object they were loaded from.
        self._loaded = tf.saved_model.load(str(folder))
        self._tf = tf
        try:
            self._featurise = _direct_call(tf, self._loaded.signatures["featurise"])
            self._scores = {name: self._loaded.signatures[name] for name in self.spec.scoring}
        except KeyError as problem:
            raise ProgramCorrupt(f"{folder} lacks the signature {problem}") from None
        self._quick_score = QUICK_SCORERS.get(self.spec.scorer or "")
        outputs = self.spec.signatures["featurise"].outputs
        self._by_ticket = frozenset(name for name, spec in outputs.items() if spec.shape[:1] == ("tickets",))

    def featurise(self, texts: Sequence[str]) -> Features:
        """Turn texts into features: normalise, cut into words, hash, all inside the program."""
        return self.featurise_bytes([text.encode("utf-8", "replace") for text in texts])

    def featurise_bytes(self, texts: Sequence[bytes]) -> Features:
        """Like `featurise`, of UTF-8; what is not UTF-8 is replaced inside the program."""
        # A type to convert to would cost more than having it found out.
        batch = self._tf.constant(texts) if texts else self._tf.constant([], self._tf.string)
        return Features(self._featurise(batch), len(texts), self._by_ticket)

    def bind(self, mapped: MappedModel) -> BoundModel:
        """Make a model of mapped weights, without copying them: check every shape, then hand them to TensorFlow.

        Raises:
            BundleCorrupt: made for another program, or tensors that this program cannot take.
        """
        if mapped.manifest.program != self.digest:
            raise BundleCorrupt(
                f"the model of tenant {mapped.manifest.tenant} was made for program {mapped.manifest.program[:16]}…, "
                f"not for {self.digest[:16]}…"
            )
        weights = self.spec.weights(self._signature(mapped.tensors))
        check_tensors(
            mapped.tensors, weights, macros=len(mapped.labels.macros), what=f"tenant {mapped.manifest.tenant}"
        )
        bound = {name: self._tf.experimental.dlpack.from_dlpack(mapped.tensors[name].__dlpack__()) for name in weights}
        return BoundModel(self, mapped, bound)

    def score(self, features: Features, weights: Mapping[str, Array]) -> Array:
        """Probabilities, float32 [tickets, macros], for weights that `check_tensors` accepts."""
        if self._quick_score is None or not features.tickets:
            return self.score_in_program(features, weights)
        return np.stack([self._quick_score(features, index, weights) for index in range(features.tickets)])

    def score_ticket(self, features: Features, index: int, weights: Mapping[str, Array]) -> NDArray[np.float32]:
        """What `score` gives for one ticket of a batch, to the last bit: float32 [macros]."""
        if self._quick_score is not None:
            return self._quick_score(features, index, weights)
        scores: NDArray[np.float32] = self.score_in_program(features.select(index), weights)[0]
        return scores

    def score_in_program(self, features: Features, weights: Mapping[str, Any]) -> Array:
        """Like `score`, always by the program's own function; what a quicker scorer is held to.

        Args:
            weights: arrays, or tensors already bound.
        """
        tensors = {name: self._tf.constant(tensor) for name, tensor in features.tensors.items()}
        signature = self._signature(weights)
        bound = {name: self._tf.convert_to_tensor(weights[name]) for name in self.spec.weights(signature)}
        scores: Array = self._scores[signature](**tensors, **bound)["scores"].numpy()
        return scores

    def _signature(self, weights: Mapping[str, Any]) -> str:
        """The scoring function for weights of these types; that of float32 where none takes them all."""
        for name in self.spec.scoring:
            specs = self.spec.weights(name)
            if all(tensor in weights and weights[tensor].dtype == spec.dtype for tensor, spec in specs.items()):
                return name
        return _PRECISION


class BoundModel:
    """A tenant's weights bound to their program. Immutable; `score` may be called from any thread."""

    __slots__ = ("_bound", "_mapped", "program")

    def __init__(self, program: Program, mapped: MappedModel, bound: Mapping[str, Any]) -> None:
        self.program = program
        self._mapped = mapped
        self._bound = bound

    @property
    def manifest(self) -> Manifest:
        """What the model says of itself."""
        return self._mapped.manifest

    @property
    def labels(self) -> tuple[Label, ...]:
        """The macros, in the order of the scores."""
        return self._mapped.labels.macros

    @property
    def nbytes(self) -> int:
        """Mapped bytes: what a memory budget counts."""
        return self._mapped.nbytes

    def forget_pages(self) -> None:
        """Let the kernel have the weights' memory back; the model stays usable, only slow. Never raises."""
        self._mapped.forget_pages()

    def featurise(self, texts: Sequence[str]) -> Features:
        """The program's features of texts."""
        return self.program.featurise(texts)

    def score(self, features: Features) -> Array:
        """Probabilities, float32 [tickets, macros]."""
        return self.program.score(features, self._mapped.tensors)

    def score_ticket(self, features: Features, index: int) -> NDArray[np.float32]:
        """What `score` gives for one ticket of a batch, to the last bit: float32 [macros].

        The quick way for a server: no features are cut out, nothing is made for a batch of one.
        """
        return self.program.score_ticket(features, index, self._mapped.tensors)

    def check(self, features: Features) -> None:
        """Raises BundleCorrupt unless the first ticket of `features` scores as finite numbers, one a macro."""
        with np.errstate(all="ignore"):
            scores = self.score_ticket(features, 0)
        if scores.shape != (len(self.labels),) or not np.isfinite(scores).all():
            raise BundleCorrupt(f"the model of tenant {self.manifest.tenant} does not score a ticket as finite numbers")

    def score_in_program(self, features: Features) -> Array:
        """Like `score`, by the program's own function over the bound tensors."""
        return self.program.score_in_program(features, self._bound)


def is_at_least(version: str, least: str) -> bool:
    """Whether a TensorFlow version (`2.21.0-rc1`, say) is `least` or later, by its leading numbers.

    Raises:
        ProgramCorrupt: `least` is not numbers with dots between them.
    """
    if not re.fullmatch(r"\d+(\.\d+)*", least):
        raise ProgramCorrupt(f"the program asks for TensorFlow {least[:80]!r}, which is no version")
    leading = re.match(r"\d+(\.\d+)*", version)
    return leading is not None and _numbers(leading.group()) >= _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def check_tensors(tensors: Mapping[str, Array], specs: Mapping[str, TensorSpec], *, macros: int, what: str) -> None:
    """Raises BundleCorrupt unless the tensors have the names, types and shapes that a program takes.

    Symbols in a shape must agree with each other, and `macros` with the label table.
    """
    if set(tensors) != set(specs):
        raise BundleCorrupt(f"{what}: the weights hold {sorted(tensors)}, the program takes {sorted(specs)}")
    symbols: dict[str, int] = {"macros": macros}
    for name, spec in specs.items():
        shape = tensors[name].shape
        fits = tensors[name].dtype == _DTYPES.get(spec.dtype) and len(shape) == len(spec.shape)
        if not fits or not all(
            have == (symbols.setdefault(want, have) if isinstance(want, str) else want)
            for have, want in zip(shape, spec.shape, strict=True)
        ):
            raise BundleCorrupt(
                f"{what}: tensor {name!r} is {tensors[name].dtype} {list(shape)}, "
                f"the program takes {spec.dtype} {list(spec.shape)} with {macros} macros"
            )


def _direct_call(tf: Any, function: Any) -> Callable[[Any], dict[str, Array]]:
    """A signature of one argument as the operation that it is, without the binding of arguments in Python.

    That costs 110 of the 140 microseconds of an empty call, and no work on the program itself makes up for it.
    """
    names = sorted(function.structured_outputs)
    types = [tensor.dtype for tensor in function.outputs]
    captured = list(function.captured_inputs)
    call = tf.raw_ops.StatefulPartitionedCall

    def run(argument: Any) -> dict[str, Array]:
        found = call(args=[argument, *captured], Tout=types, f=function)
        return {name: tensor.numpy() for name, tensor in zip(names, found, strict=True)}

    return run


def _pooled_linear(features: Features, index: int, weights: Mapping[str, Array]) -> NDArray[np.float32]:
    """The arithmetic of the program `bag` for one ticket in NumPy: a fraction of the cost of a TensorFlow call.

    Never for several tickets at once: a product of matrices adds up in another order than one of a vector and a
    matrix, and a ticket's scores would depend on what it happened to be batched with.
    """
    ids, splits = features.tensors["ids"], features.tensors["splits"]
    rows = ids[splits[index] : splits[index + 1]].astype(np.intp)
    weighting = weights["weight"].take(rows)
    # Places without a feature and rows that training never saw: nothing would come of reading their vectors.
    seen = weighting.nonzero()[0]
    weighting = weighting.take(seen)
    pooled = np.dot(weighting, weights["embedding"].take(rows.take(seen), axis=0))
    norm = math.sqrt(np.dot(weighting, weighting))
    if norm > 0:
        pooled /= norm
    scores: NDArray[np.float32] = np.dot(pooled, weights["kernel"])
    prior = features.tensors["prior"][index]
    scores += np.dot(prior, weights["prior_kernel"])
    if norm > 0 or prior.any():
        scores += weights["bias"]
    scores -= np.maximum.reduce(scores)  # what `max` and `sum` call, without what they do before
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores)
    return scores


def _sentence_and_pooled_linear(features: Features, index: int, weights: Mapping[str, Array]) -> NDArray[np.float32]:
    """The arithmetic of the program `encoder` for one ticket: a sentence's vector beside n-grams of a table in 8 bits."""
    ids, splits = features.tensors["ids"], features.tensors["splits"]
    rows = ids[splits[index] : splits[index + 1]].astype(np.intp)
    weighting = weights["weight"].take(rows)
    seen = weighting.nonzero()[0]
    weighting = weighting.take(seen)
    pooled = np.dot(weighting, weights["embedding"].take(rows.take(seen), axis=0).astype(np.float32))
    norm = math.sqrt(np.dot(weighting, weighting))
    if norm > 0:
        pooled /= norm
    both = np.concatenate([features.tensors["sentence"][index], pooled])
    scores: NDArray[np.float32] = np.dot(both, weights["kernel"])
    scores += weights["bias"]
    scores -= np.maximum.reduce(scores)  # what `max` and `sum` call, without what they do before
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores)
    return scores


QUICK_SCORERS: dict[str, Callable[[Features, int, Mapping[str, Array]], NDArray[np.float32]]] = {
    "pooled-linear": _pooled_linear,
    "sentence-and-pooled-linear": _sentence_and_pooled_linear,
}
