"""How MLflow loads a model: what `registry.flavour_code`, which every version has a copy of, hands over to.

`mlflow.pyfunc.load_model("models:/macrofleet.acme@champion").predict(pd.DataFrame({"text": ["Where is my order?"]}))`
fetches the bundle and its program from the object store, verified, and scores through `registry.model.runtime`. The process
needs macrofleet and the store's keys in its environment:

- `MACROFLEET_STORE_…`, as everywhere. Without a `MACROFLEET_STORE_URL`, the store that the model was published to.
- `MACROFLEET_TRUSTED_PROGRAMS`: digests of the programs it may execute, separated by commas. Default: the released.
- `MACROFLEET_DISK_FOLDER`: where to keep what was fetched. Default: a temporary folder, removed after loading.

The answer has one row for each row asked:

- `macros`: the three best, best first, each `{"id", "title" (at training time), "score"}`. The live catalogue is not
  consulted, so a macro that was switched off since is still among them.
- `abstained`: whether the best score is below the model's threshold, so that the product would show none of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # has no types of its own

from registry.disk.tier import DiskTier
from registry.errors import InvalidInput
from registry.model.program import named_programs
from registry.model.runtime import BoundModel, Program
from registry.settings import StoreSettings, read_settings
from registry.store import open_store
from registry.text.ticket import ticket_text

_BATCH = 32
_SHOWN = 3


class Suggester(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow has no types
    """A tenant's model as MLflow sees it."""

    def __init__(self) -> None:
        self._model: BoundModel | None = None

    def load_context(self, context: Any) -> None:
        """Fetch, verify and bind the model that the artifact names."""
        config = context.model_config
        tenant, version, manifest = (_named(config, name) for name in ("tenant", "version", "manifest"))
        trusted = named_programs(os.environ.get("MACROFLEET_TRUSTED_PROGRAMS"))
        store = open_store(_store_settings(config))
        with _disk_folder() as folder, DiskTier(folder, store, trusted=trusted) as tier:
            program_digest = tier.install_model(tenant, version, manifest).program
            program = Program(tier.install_program(program_digest), trusted=trusted)
            self._model = program.bind(tier.map_model(tenant, version, manifest))

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """The best macros for each text; see the module's docstring for the columns."""
        if self._model is None:
            raise InvalidInput("the model is not loaded", remedy="Load it with mlflow.pyfunc.load_model.")
        texts = [ticket_text("", [text]) for text in model_input["text"]]
        rows: list[dict[str, Any]] = []
        for start in range(0, len(texts), _BATCH):
            scores = self._model.score(self._model.program.featurise(texts[start : start + _BATCH]))
            rows.extend(self._answer(self._model, row) for row in scores)
        return pd.DataFrame(rows, index=model_input.index, columns=["macros", "abstained"])

    @staticmethod
    def _answer(model: BoundModel, scores: Any) -> dict[str, Any]:
        best = np.argsort(-scores, kind="stable")[:_SHOWN]
        macros = [
            {"id": model.labels[index].id, "title": model.labels[index].title, "score": float(scores[index])}
            for index in best
        ]
        return {"macros": macros, "abstained": bool(scores[best[0]] < model.manifest.threshold)}


def _store_settings(config: dict[str, Any]) -> StoreSettings:
    """The operator's word in the environment wins over the artifact's: keys go where the operator said."""
    if os.environ.get("MACROFLEET_STORE_URL"):
        return read_settings(StoreSettings)
    endpoint = config.get("store_endpoint_url")
    return read_settings(StoreSettings, url=_named(config, "store_url"), endpoint_url=endpoint)


def _named(config: dict[str, Any], name: str) -> str:
    """A text of the artifact's; whether it can be a tenant, a version or a digest is for who uses it to check."""
    value = config.get(name)
    if not isinstance(value, str):
        raise InvalidInput(
            f"this MLflow model does not say its {name}",
            remedy="It was not registered by macrofleet: register it again.",
        )
    return value


@contextmanager
def _disk_folder() -> Iterator[Path]:
    """Where bundles are installed. What is mapped stays mapped after a temporary folder is gone."""
    if folder := os.environ.get("MACROFLEET_DISK_FOLDER"):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="macrofleet-") as temporary:
        yield Path(temporary)
