"""Importing TensorFlow without Keras, which it imports by itself and a program does not use.

`tensorflow/__init__.py` loads `keras.src.optimizers` eagerly, so that SavedModels with Keras optimizers in them find those
registered, and does without where that fails. Ours have none (`training.programs`). Keras brings what it finds installed:
scikit-learn, pandas, Matplotlib. Without it an import took 2.1 s of a processor instead of 3.5, and 200 MB of memory instead
of 311 (TensorFlow 2.21 and Keras 3.15, with everything of this project installed; `tests/registry/test_keras_left_out.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_LEFT_OUT = ("keras.", "tf_keras.")
# tensorflow-text brings layers for Keras, whose classes derive from Keras' own.
_LAYERS = "tensorflow_text.python.keras"


class _Refusal(MetaPathFinder):
    """Says of every part of Keras that it is not there; that there is a Keras, TensorFlow may know."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002  # the protocol's
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname.startswith(_LEFT_OUT):
            raise ModuleNotFoundError(f"{fullname} is left out", name=fullname)
        return None


@contextmanager
def keras_left_out() -> Iterator[None]:
    """Have an import of TensorFlow and tensorflow-text in this block leave Keras out.

    `tf.keras` loads it where somebody asks for it later; `tensorflow_text.keras` stays empty. It does nothing where they have
    been imported before.
    """
    refusal = _Refusal()
    sys.meta_path.insert(0, refusal)
    empty = sys.modules.setdefault(_LAYERS, ModuleType(_LAYERS))
    try:
        yield
    finally:
        sys.meta_path.remove(refusal)
        if not hasattr(empty, "__path__"):
            del sys.modules[_LAYERS]
