"""Another program of the same family, for a swap from one program to another: `python -m benchmarks.other_program FOLDER`.

A process of its own exports it, as `training.programs.export` explains.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from registry.model.program import SPEC

_ROWS = 32_000


def build_other_program(folder: Path) -> None:
    """Export the program `bag` with a smaller table to `folder`. Raises RuntimeError when that fails."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "benchmarks.other_program", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"the other program could not be built: {done.stderr.strip()[-500:]}")


def _export(folder: Path) -> None:
    from training.programs import bag

    spec = bag.export(folder, bag.BagSettings(rows=_ROWS))
    (folder / "fingerprint.pb").unlink(missing_ok=True)
    (folder / SPEC).write_bytes(spec.to_bytes())


if __name__ == "__main__":
    _export(Path(sys.argv[1]))
