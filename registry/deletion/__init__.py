"""Deleting a tenant: every place that holds a trace of it, and proof that none is left."""
