"""Whether TensorFlow imports Keras."""

from __future__ import annotations

import os

# TensorFlow's own: it says that `tf.keras` is the Keras of before, which is not installed, and so nothing is imported.
SWITCH = "TF_USE_LEGACY_KERAS"


def leave_keras_out() -> None:
    """Have this process, and those that it starts, import TensorFlow without Keras; works before its first import only.

    For applications of our own, in which nobody uses `tf.keras`: it cannot be imported afterwards.
    """
    os.environ.setdefault(SWITCH, "1")
