"""A model of Seldon MLServer: the SavedModel that its settings name."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_text  # noqa: F401  # the operations that the models use
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class TenantModel(MLModel):  # type: ignore[misc]  # MLServer is not installed where types are checked
    """Text in, the best labels and their scores out."""

    async def load(self) -> bool:
        """Load the SavedModel."""
        self._loaded = tf.saved_model.load(await get_model_uri(self._settings))
        self._function = self._loaded.signatures["serving_default"]
        self._function(text=tf.constant(["warm up"]))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        found = self._function(text=tf.constant(StringCodec.decode_input(payload.inputs[0])))
        labels = [label.decode() for label in found["labels"].numpy().ravel()]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                StringCodec.encode_output("labels", labels),
                NumpyCodec.encode_output("scores", found["scores"].numpy()),
            ],
        )
