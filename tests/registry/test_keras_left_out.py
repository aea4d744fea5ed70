"""In a process of its own, since this one has TensorFlow already."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from registry.model.keras_left_out import keras_left_out

SCRIPT = """
import json, sys
from registry.model.keras_left_out import keras_left_out
from registry.model.runtime import limit_threads
limit_threads()
with keras_left_out():
    import tensorflow as tf
    import tensorflow_text
without = sorted({"keras", "sklearn", "matplotlib", "pandas"} & set(sys.modules))
print(json.dumps([without, tf.keras.layers.Dense.__name__, "keras" in sys.modules]))
"""


def test_tensorflow_comes_without_keras_and_has_it_when_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=300)
    without, name, loaded = json.loads(done.stdout.splitlines()[-1])
    assert without == []
    assert name == "Dense"
    assert loaded


def test_only_keras_is_left_out_and_only_for_a_while() -> None:
    before = list(sys.meta_path)
    with keras_left_out():
        refusal = sys.meta_path[0]
        assert refusal.find_spec("kerastuner.x", None) is None
        for name in ("keras.src", "tf_keras.src.optimizers"):
            with pytest.raises(ModuleNotFoundError, match="left out"):
                refusal.find_spec(name, None)
    assert sys.meta_path == before
