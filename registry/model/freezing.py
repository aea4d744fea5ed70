"""A program with one model's weights frozen into it, as an ordinary SavedModel; runs in a process of its own.

`python -m registry.model.freezing PROGRAM BUNDLE FOLDER`. TensorFlow numbers functions through the life of a process and writes
the numbers into what it saves, so that only a process that does nothing else gives the same bytes every time.

Weights are constants, not variables: of the forms that were tried (`docs/saved-model.md`) none loads quicker. Variables take
less memory once loaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from registry.errors import ProgramCorrupt
from registry.layout import LABELS
from registry.model.mapped import map_bundle
from registry.model.program import read_spec
from registry.model.runtime import limit_threads

# What `serving_default` answers: as many as the product shows.
BEST = 3
_FINGERPRINT = "fingerprint.pb"  # of the process, not of the model


def freeze(program: Path, bundle: Path, folder: Path) -> None:
    """Write a SavedModel of a program and a bundle, in another process.

    Args:
        program: a folder with a program that the caller trusts.
        bundle: a folder with a model of that program; verified.
        folder: must not exist; appears whole.

    Raises:
        ProgramCorrupt: the program cannot be frozen; says what TensorFlow said.
        BundleCorrupt: see `registry.model.mapped.map_bundle`.
    """
    map_bundle(bundle, tenant=None)  # here, where what is wrong with it reaches the caller in its own words
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "registry.model.freezing", str(program), str(bundle), str(beside)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise ProgramCorrupt(
                f"the model could not be frozen into its program: {done.stderr.strip()[-500:]}",
                remedy="TensorFlow must be installed: the extra `serving` or `training`.",
            )
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(program: Path, bundle: Path, folder: Path) -> None:
    limit_threads()
    import tensorflow as tf

    from registry.model import text_operations  # noqa: F401  # registers the operations that programs use

    mapped = map_bundle(bundle, tenant=None)
    spec = read_spec(program)
    loaded = tf.saved_model.load(str(program))
    scoring = next(
        name
        for name in spec.scoring
        if all(mapped.tensors[tensor].dtype == wanted.dtype for tensor, wanted in spec.weights(name).items())
    )
    count = len(mapped.labels.macros)

    class Frozen(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
        """Text in, labels and scores out."""

        def __init__(self) -> None:
            super().__init__(name="frozen")
            self.program = loaded
            self.weights = {name: tf.constant(mapped.tensors[name]) for name in spec.weights(scoring)}
            self.labels = tf.constant([label.id for label in mapped.labels.macros])
            self.table = tf.saved_model.Asset(str(bundle / LABELS))

        def score(self, text: Any) -> Any:
            """Probabilities, float32 [tickets, macros]."""
            features = loaded.signatures["featurise"](text=text)
            return loaded.signatures[scoring](**features, **self.weights)["scores"]

        def best(self, text: Any) -> dict[str, Any]:
            """The few best macros of each ticket, best first."""
            found = tf.math.top_k(self.score(text), min(BEST, count))
            return {"labels": tf.gather(self.labels, found.indices), "scores": found.values}

        def all(self, text: Any) -> dict[str, Any]:
            """Every macro of each ticket, in the order of the label table."""
            scores = self.score(text)
            rows = tf.broadcast_to(self.labels[None], tf.shape(scores))
            return {"labels": rows, "scores": scores}

    module = Frozen()
    texts = tf.TensorSpec([None], tf.string, name="text")
    signatures = {
        "serving_default": tf.function(module.best).get_concrete_function(texts),
        "all": tf.function(module.all).get_concrete_function(texts),
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    (folder / _FINGERPRINT).unlink(missing_ok=True)


if __name__ == "__main__":
    _write(*map(Path, sys.argv[1:]))
