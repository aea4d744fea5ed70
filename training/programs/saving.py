"""Writing a program's module as a SavedModel with the signatures that it says it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from registry.model.program import ProgramSpec


def save_module(module: Any, folder: Path, spec: ProgramSpec) -> None:
    """Write a `tf.Module` whose methods are the signatures of `spec`, by their names."""
    signatures = {
        name: tf.function(getattr(module, name)).get_concrete_function(
            **{
                argument: tf.TensorSpec(
                    [size if isinstance(size, int) else None for size in tensor.shape], tensor.dtype, name=argument
                )
                for argument, tensor in signature.inputs.items()
            }
        )
        for name, signature in spec.signatures.items()
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
