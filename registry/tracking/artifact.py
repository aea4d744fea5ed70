"""What MLflow holds of a bundle: an MLmodel folder, models-from-code, that knows where the weights lie."""

from __future__ import annotations

import tempfile
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

ARTIFACT = "model"
_MLMODEL = "MLmodel"
_CODE = Path(__file__).parents[1] / "flavour_code.py"
# An object in S3 each, one after the other, for each version. The environment is macrofleet's own, which `requirements.txt`
# names; conda cannot install it, and what a server is sent follows from the input example.
_LEFT_OUT = {_MLMODEL, "conda.yaml", "python_env.yaml", "serving_input_example.json"}


class ArtifactTemplate:
    """The artifact of a version, all but what differs between versions.

    `mlflow.pyfunc.save_model` takes as long as the rest of a registration and executes the flavour, so it is called
    once, and each version's `MLmodel` is made from the result: four files of 2 kB in all.
    """

    def __init__(self) -> None:
        import mlflow
        import pandas as pd  # type: ignore[import-untyped]  # has no types of its own

        with tempfile.TemporaryDirectory() as folder, without_warnings():
            mlflow.pyfunc.save_model(
                f"{folder}/{ARTIFACT}",
                python_model=str(_CODE),
                signature=_signature(),
                input_example=pd.DataFrame({"text": ["Hello, where is my order?"]}),
                pip_requirements=_requirements(),
                model_config={"manifest": ""},
            )
            saved = Path(folder, ARTIFACT)
            self._model = mlflow.models.Model.load(str(saved)).to_dict()
            self._files = {path.name: path.read_bytes() for path in saved.iterdir() if path.name not in _LEFT_OUT}

    def write(self, folder: Path, *, run_id: str, config: Mapping[str, str | None]) -> None:
        """Write the artifact of one version to an empty folder."""
        import yaml  # type: ignore[import-untyped]  # has no types of its own

        for name, data in self._files.items():
            (folder / name).write_bytes(data)
        flavour = {
            **self._model["flavors"]["python_function"],
            "config": dict(config),
            # MLflow notes where on this machine the file came from; it only ever reads the name.
            "model_code_path": _CODE.name,
        }
        del flavour["env"]
        example = {**self._model["saved_input_example_info"]}
        del example["serving_input_path"]
        described = {
            **self._model,
            "saved_input_example_info": example,
            "artifact_path": ARTIFACT,
            "flavors": {"python_function": flavour},
            "model_uuid": uuid.uuid4().hex,
            "run_id": run_id,
            "utc_time_created": str(datetime.now(UTC).replace(tzinfo=None)),
        }
        # `Model.save` writes the same with PyYAML's slow dumper.
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        (folder / _MLMODEL).write_text(yaml.dump(described, Dumper=dumper, allow_unicode=True), encoding="utf-8")


@cache
def artifact_template() -> ArtifactTemplate:
    """The template, made once a process; two threads that are first at the same moment make it twice."""
    return ArtifactTemplate()


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array, Object, Property

    macro = Object(
        [Property("id", DataType.string), Property("title", DataType.string), Property("score", DataType.double)]
    )
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "text")]),
        outputs=Schema([ColSpec(Array(macro), "macros"), ColSpec(DataType.boolean, "abstained")]),
    )


def _requirements() -> list[str]:
    """What a process needs to load a model; named here because finding it out would mean executing one."""
    needed = [f"mlflow=={metadata.version('mlflow')}"]
    try:
        return [f"macrofleet[serving]=={metadata.version('macrofleet')}", *needed]
    except metadata.PackageNotFoundError:
        return needed  # run from a checkout, which no requirement can name


@contextmanager
def without_warnings() -> Iterator[None]:
    """Hides what MLflow 3.17 warns of, itself or by its dependencies; where warnings are errors, it would fail."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy", DeprecationWarning)  # SQLAlchemy 2.1
        warnings.filterwarnings("ignore", "Operation with range is deprecated", DeprecationWarning)  # pandas 3.1
        warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)  # on import
        yield
