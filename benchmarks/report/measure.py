"""`python -m benchmarks.report.measure [NAME…]`: measure what the report shows, and keep it in `benchmarks/results`.

Each result is a command of `macrofleet`, run in a process of its own; its file is replaced when the command has succeeded, so
one that fails or is interrupted leaves the last result. Those that compute come after those that measure what they need.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_SIMULATE = "bench simulate --json --seconds 20"
# 64 cores and 512 GiB of memory, as machines of two cores and 16 GiB, or of sixteen and 128.
_SIZING = f"{_SIMULATE} --replicas 64 --tenants 20000 --rate 40000 --memory-mb 6000 --lose 1"
#: By the name of their file: a command, and whether the machine must do nothing else.
RESULTS: dict[str, tuple[str, bool]] = {
    "warm": ("bench warm --json", True),
    "cold": ("bench cold --json", True),
    "scale": ("bench scale --json", True),
    "simulate-check-ring": ("bench simulate-check --json", True),
    "simulate-check-envoy": ("bench simulate-check --json --envoy", True),
    "simulate-1000-replicas": (
        f"{_SIMULATE} --replicas 1000 --tenants 170000 --rate 100000 --memory-mb 3000 --lose 10",
        False,
    ),
    "simulate-scarce-memory": (
        f"{_SIMULATE} --replicas 20 --tenants 10000 --rate 5000 --memory-mb 2000 --lose 1",
        False,
    ),
    "simulate-rule-ring": (f"{_SIMULATE} --replicas 20 --tenants 10000 --rate 10000 --lose 1 --rule ring", False),
    "simulate-rule-walk": (f"{_SIMULATE} --replicas 20 --tenants 10000 --rate 10000 --lose 1 --rule walk", False),
    "simulate-rule-envoy": (f"{_SIMULATE} --replicas 20 --tenants 10000 --rate 10000 --lose 1", False),
    "simulate-factor-300": (f"{_SIMULATE} --replicas 20 --tenants 10000 --rate 10000 --lose 1 --factor 300", False),
    "simulate-factor-1000": (f"{_SIMULATE} --replicas 20 --tenants 10000 --rate 10000 --lose 1 --factor 1000", False),
    "simulate-plain-envoy": (
        f"{_SIMULATE} --replicas 20 --tenants 10000 --rate 10000 --lose 1 --ring-places 16384",
        False,
    ),
    "simulate-hot-copies": (
        f"{_SIMULATE} --replicas 20 --tenants 10000 --rate 10000 --lose 1 --rule ring --copies-above 0.25",
        False,
    ),
    "simulate-small-machines": (f"{_SIZING} --processes 2", False),
    "simulate-large-machines": (f"{_SIZING} --processes 16", False),
    "cost": ("cost --json", False),
    "cost-quiet-tenants": ("cost --json --rate 0.05", False),
    "cost-few-tenants": ("cost --json --tenants 200", False),
}


def main(given: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report.measure", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which, of {', '.join(RESULTS)}; all by default")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="folder to keep them in")
    parser.add_argument("--computed", action="store_true", help="only those that a busy machine does not change")
    arguments = parser.parse_args(given)
    names = arguments.names or [name for name, (_, quiet) in RESULTS.items() if not (quiet and arguments.computed)]
    unknown = [name for name in names if name not in RESULTS]
    if unknown:
        parser.error(f"there is no result {', '.join(unknown)}")
    failed = [name for name in names if not _measure(name, arguments.results)]
    if failed:
        sys.stderr.write(f"failed, and left as they were: {', '.join(failed)}\n")
    return 1 if failed else 0


def _measure(name: str, folder: Path) -> bool:
    command = ["-m", "macrofleet", *RESULTS[name][0].split()]
    sys.stderr.write(f"{name}: macrofleet {RESULTS[name][0]}\n")
    ended = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, check=False)
    if ended.returncode:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    beside = path.with_suffix(".next")
    beside.write_text(json.dumps(json.loads(ended.stdout), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)
    return True


if __name__ == "__main__":
    sys.exit(main())
