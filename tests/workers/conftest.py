"""Real Prefect workers, Ray nodes, hosts that are cut off, and infra/compose.yaml brought up: `make test-workers`, apart from
`make test`, since they need a machine to themselves."""

from __future__ import annotations

import importlib.util

# An extra of its own, `macrofleet[ray]`.
collect_ignore = [] if importlib.util.find_spec("ray") else ["test_ray.py"]
