"""`fleet verify`: what differs between fleet, store and MLflow, and what mends it."""
