"""Regions: a second store kept as a copy of the first."""
