"""Versions on trial: canaries of a staged roll-out, shadows, and how they compare."""
