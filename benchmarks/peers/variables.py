"""Classifiers as SavedModels whose weights are variables; runs in a process of its own.

`python -m benchmarks.peers.variables PROGRAM FOLDER BUNDLE…` writes `FOLDER/<tenant>` for each bundle. Our own export
(`registry.model.freezing`) holds weights as constants, of which TensorFlow keeps a copy in the graph beside the tensors. Who
trains a model of one's own has variables, so a server is measured with both, and judged by what is better for it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from registry.errors import ProgramCorrupt
from registry.model.mapped import map_bundle
from registry.model.program import read_spec
from registry.model.runtime import limit_threads

_SCORING = "score_f32"
_BEST = 3
_CHECKPOINT = "variables/variables"


def write_with_variables(program: Path, bundles: Sequence[Path], folder: Path) -> None:
    """Write a SavedModel of each bundle, in another process. Raises ProgramCorrupt with TensorFlow's words."""
    command = [sys.executable, "-m", "benchmarks.peers.variables", str(program), str(folder), *map(str, bundles)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if done.returncode != 0:
        raise ProgramCorrupt(f"models with variables could not be written: {done.stderr.strip()[-500:]}")


def _write(program: Path, folder: Path, bundles: Sequence[Path]) -> None:
    first, *others = bundles
    tenant = first.parent.name
    _save(program, first, folder / tenant)
    for bundle in others:
        # The graph is the same; only the checkpoint is another.
        beside = folder / bundle.parent.name
        shutil.copytree(folder / tenant, beside, ignore=shutil.ignore_patterns("variables"))
        _write_checkpoint(folder / tenant, beside, map_bundle(bundle, tenant=None).tensors)


def _save(program: Path, bundle: Path, folder: Path) -> None:
    limit_threads()
    import tensorflow as tf

    from registry.model import text_operations  # noqa: F401  # registers the operations that programs use

    mapped = map_bundle(bundle, tenant=None)
    loaded = tf.saved_model.load(str(program))
    names = list(read_spec(program).weights(_SCORING))

    class WithVariables(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
        def __init__(self) -> None:
            super().__init__(name="with_variables")
            self.program = loaded
            self.weights = {name: tf.Variable(mapped.tensors[name], trainable=False) for name in names}
            self.labels = tf.constant([label.id for label in mapped.labels.macros])

        def best(self, text: Any) -> dict[str, Any]:
            features = loaded.signatures["featurise"](text=text)
            weights = {name: variable.read_value() for name, variable in self.weights.items()}
            scores = loaded.signatures[_SCORING](**features, **weights)["scores"]
            found = tf.math.top_k(scores, _BEST)
            return {"labels": tf.gather(self.labels, found.indices), "scores": found.values}

    module = WithVariables()
    text = tf.TensorSpec([None], tf.string, name="text")
    signatures = {"serving_default": tf.function(module.best).get_concrete_function(text)}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def _write_checkpoint(like: Path, folder: Path, tensors: Mapping[str, Any]) -> None:
    """The checkpoint of a SavedModel with other weights in the place of its own."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(like / _CHECKPOINT))
    names = sorted(reader.get_variable_to_shape_map())
    values = [reader.get_tensor(name) for name in names]
    for place, name in enumerate(names):
        # Of a variable its path from the module: weights/<name>/.ATTRIBUTES/VARIABLE_VALUE.
        kind, _, rest = name.partition("/")
        if kind == "weights":
            values[place] = tensors[rest.split("/")[0]]
    (folder / _CHECKPOINT).parent.mkdir()
    tf.raw_ops.SaveV2(
        prefix=str(folder / _CHECKPOINT), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
    )


if __name__ == "__main__":
    _write(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
