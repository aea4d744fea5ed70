"""What registering models in MLflow costs: `python -m benchmarks.registering [--tracking-uri URI] [--writers 1 2 4 8]`.

Each writer is a process of its own that registers models of its own tenants one after the other, all starting at once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from registry.errors import MacrofleetError
from registry.files import FileDigest
from registry.model.bundle import Manifest
from registry.settings import StoreSettings
from registry.tracking.models import Tracking


def make_manifest(tenant: str, seed: int) -> Manifest:
    """A manifest with as many figures and settings as training writes; registering reads no more of a bundle."""
    anything = FileDigest(sha256="a" * 64, size=1)
    return Manifest(
        tenant=tenant,
        program="b" * 64,
        files={"weights.safetensors": anything, "macros.json": anything},
        data_fingerprint="c" * 64,
        settings={f"setting_{place}": place for place in range(12)} | {"seed": seed},
        metrics={f"metric_{place}": 0.5 for place in range(12)},
        threshold=0.5,
    )


def measure_registering(
    tracking_uri: str, *, artifact_location: str, writers: int, registrations: int
) -> dict[str, Any]:
    """Milliseconds a registration, and registrations a second of all writers."""
    prefix = f"{time.time_ns():x}"  # tenants that no measurement before this one had
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(writers), spawn.SimpleQueue()
    processes = [
        spawn.Process(
            target=_write, args=(tracking_uri, artifact_location, f"{prefix}-{number}", registrations, start, results)
        )
        for number in range(writers)
    ]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    times = sorted(one for writer in found for one in writer["seconds"])
    lasted = max(writer["ended"] for writer in found) - min(writer["began"] for writer in found)
    return {
        "writers": writers,
        "registrations": len(times),
        "failed": [problem for writer in found for problem in writer["failed"]],
        "median_milliseconds": round(1000 * statistics.median(times), 1),
        "p99_milliseconds": round(1000 * times[int(0.99 * len(times))], 1),
        "per_second": round(len(times) / lasted, 1),
    }


def _write(
    tracking_uri: str, artifact_location: str, prefix: str, registrations: int, start: Any, results: Any
) -> None:
    tracking = Tracking(
        tracking_uri=tracking_uri,
        artifact_location=artifact_location,
        store=StoreSettings(url=f"{artifact_location}-store"),
    )
    night = f"20260101T020000-{prefix.split('-', maxsplit=1)[0][-12:].zfill(12)}"
    # What is made once a process, and imported: not what a registration costs.
    tracking.register(make_manifest(f"{prefix}-first", 0), parameters={}, tags={}, fleet_run=night)
    start.wait()
    began = time.time()
    seconds, failed = [], []
    for place in range(registrations):
        at = time.perf_counter()
        try:
            manifest = make_manifest(f"{prefix}-{place}", place)
            tracking.register(manifest, parameters={"examples": 300}, tags={}, fleet_run=night)
            tracking.set_alias(manifest.tenant, "champion", manifest_digest=manifest.digest)
        except MacrofleetError as problem:
            failed.append(str(problem))
        seconds.append(time.perf_counter() - at)
    results.put({"began": began, "ended": time.time(), "seconds": seconds, "failed": failed})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registering", description=__doc__)
    parser.add_argument("--tracking-uri", help="by default a new SQLite file")
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--registrations", type=int, default=50, help="of each writer")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uri = arguments.tracking_uri or f"sqlite:///{folder}/mlflow.db"
        for writers in arguments.writers:
            figures = measure_registering(
                uri,
                artifact_location=str(Path(folder) / "artifacts"),
                writers=writers,
                registrations=arguments.registrations,
            )
            print(json.dumps(figures), file=sys.stdout, flush=True)  # noqa: T201  # a command's output


if __name__ == "__main__":
    main()
