"""MLflow copies this file into every version (models from code) and executes it there; `registry.flavour` has the rest."""

import mlflow

from registry.flavour import Suggester

mlflow.models.set_model(Suggester())
