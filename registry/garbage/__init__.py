"""Garbage: what nobody needs any more in the store, and in MLflow."""
