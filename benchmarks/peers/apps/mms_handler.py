"""A model of AWS Multi Model Server: the SavedModel in the model's folder."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_text  # noqa: F401  # the operations that the models use


class _Service:
    def __init__(self) -> None:
        self._function: Any = None

    def handle(self, data: list[dict[str, Any]] | None, context: Any) -> list[dict[str, Any]] | None:
        if self._function is None:
            self._loaded = tf.saved_model.load(context.system_properties["model_dir"] + "/saved_model")
            self._function = self._loaded.signatures["serving_default"]
            self._function(text=tf.constant(["warm up"]))
        if data is None:
            return None
        found = self._function(text=tf.constant([_text(row) for row in data]))
        labels, scores = found["labels"].numpy(), found["scores"].numpy()
        return [
            {"labels": [label.decode() for label in names], "scores": values.tolist()}
            for names, values in zip(labels, scores, strict=True)
        ]


def _text(row: dict[str, Any]) -> str:
    return str(row["body"]["text"])


_SERVICE = _Service()


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[dict[str, Any]] | None:
    """What the server calls: once without data when a worker starts, then for each batch."""
    return _SERVICE.handle(data, context)
