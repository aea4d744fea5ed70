"""MLflow: the control plane's record of models and runs."""
