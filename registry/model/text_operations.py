"""`tensorflow_text`, whose operations programs use: importing it registers them.

It has layers for Keras as well, which nothing here uses. With them comes all of Keras, and with that Matplotlib, scikit-learn
and SciPy where they are installed: half of TensorFlow's import, and 160 MB. A process that leaves Keras out
(`leave_keras_out`) leaves them out here, too. Whoever else imports TensorFlow, a notebook with the MLflow flavour for example,
has Keras as ever.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from types import ModuleType

from registry.model.keras_switch import SWITCH

_LAYERS = "tensorflow_text.python.keras"

if os.environ.get(SWITCH) == "1" and find_spec("tf_keras") is None and "tensorflow_text" not in sys.modules:
    sys.modules.setdefault(_LAYERS, ModuleType(_LAYERS))

import tensorflow_text  # noqa: E402  # after what it would import

__all__ = ["tensorflow_text"]
