"""Feedback at rest: records of what was shown and applied, packed by day, and reported."""
