"""What verifying a large fleet costs: `python -m benchmarks.verifying [--tenants 10000]`.

The fleet is on an S3 server on loopback and in a new SQLite file of MLflow's. Its bundles are small, since a verification
that is not deep reads no weights, and the registrations of all but the first tenant are copies of its rows, since making
them one by one takes most of an hour.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.registering import make_manifest
from registry.documents import canonical_json
from registry.files import FileDigest
from registry.fleet.state import FleetEntry, in_threads, update_fleet
from registry.layout import LABELS, MANIFEST, PROVENANCE, WEIGHTS, catalogue_key, model_key, program_key
from registry.model.bundle import Manifest
from registry.seaweedfs import LocalS3
from registry.store import ObjectStore, open_store
from registry.tracking.models import Tracking
from registry.tracking.records import bundle_address, registered_model
from registry.verify.reconcile import verify_fleet

_SEEDS = (0, 1)
_ONE = FileDigest(sha256="e632b7095b0bf32c260fa4c539e9fd7b852d0de454e9be26f24d0d6f91d069d3", size=1)  # of "T"


def measure_verifying(folder: Path, store: ObjectStore, tracking: Tracking, tenants: int) -> dict[str, Any]:
    """Seconds for a fleet as it should be, and for one in which a tenth of the aliases are behind."""
    names = [f"tenant-{number:05d}" for number in range(tenants)]
    manifests = {name: [_manifest(name, seed) for seed in _SEEDS] for name in names}
    in_threads(lambda name: _publish(store, manifests[name]), names)
    store.put(program_key("b" * 64, "files.json"), b"{}")
    update_fleet(store, {name: _serves(*manifests[name]) for name in names})
    for manifest in manifests[names[0]]:
        tracking.register(manifest, parameters={"examples": 300}, tags={})
    tracking.set_alias(names[0], "champion", manifest_digest=manifests[names[0]][1].digest)
    _copy(folder, store.url, manifests, names)
    whole = _timed(store, tracking)
    for name in names[: tenants // 10]:
        tracking.connection.ask("cannot move an alias", partial(_move, name))
    behind = _timed(store, tracking)
    return {"tenants": tenants, "versions": tenants * len(_SEEDS), "whole": whole, "behind": behind}


def _timed(store: ObjectStore, tracking: Tracking) -> dict[str, Any]:
    parts: list[tuple[str, float]] = []
    began = time.perf_counter()

    def step(text: str, _: float) -> None:
        parts.append((text.split(":", maxsplit=1)[0], time.perf_counter()))

    found = verify_fleet(store, tracking, step=step)
    ended = time.perf_counter()
    seconds: dict[str, float] = {}
    for (what, start), (_, end) in zip(parts, [*parts[1:], ("", ended)], strict=True):
        seconds[what] = round(seconds.get(what, 0) + end - start, 2)
    return {"seconds": round(ended - began, 1), "differences": len(found.findings), "parts": seconds}


def _manifest(tenant: str, seed: int) -> Manifest:
    return make_manifest(tenant, seed).model_copy(update={"files": {WEIGHTS: _ONE, LABELS: _ONE}})


def _publish(store: ObjectStore, manifests: list[Manifest]) -> None:
    for manifest in manifests:
        for name in (WEIGHTS, LABELS, PROVENANCE):
            store.put(model_key(manifest.tenant, manifest.version, name), b"T")
        store.put(model_key(manifest.tenant, manifest.version, MANIFEST), manifest.to_bytes())
    store.put(catalogue_key(manifests[0].tenant), canonical_json({"macros": []}))


def _serves(old: Manifest, new: Manifest) -> Any:
    entry = FleetEntry().with_version(old.version, old.digest).with_version(new.version, new.digest)
    return lambda _: entry


def _move(tenant: str, client: Any) -> None:
    client.set_registered_model_alias(registered_model(tenant), "champion", "1")


def _copy(folder: Path, store_url: str, manifests: dict[str, list[Manifest]], names: list[str]) -> None:
    """Give every tenant rows like the first one's in MLflow's tables."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{folder}/mlflow.db")
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    tables = (
        "runs", "tags", "params", "metrics", "latest_metrics", "registered_models", "registered_model_tags",
        "model_versions", "model_version_tags", "registered_model_aliases",
    )  # fmt: skip
    with engine.begin() as connection:
        runs = [row[0] for row in connection.execute(sqlalchemy.select(metadata.tables["runs"].c.run_uuid))]
        sample = {
            name: connection.execute(sqlalchemy.select(metadata.tables[name])).mappings().all() for name in tables
        }
        for place, tenant in enumerate(names[1:], 1):
            change = {registered_model(names[0]): registered_model(tenant), names[0]: tenant}
            change |= {run: f"{run[:24]}{place:08x}" for run in runs}
            for old, new in zip(manifests[names[0]], manifests[tenant], strict=True):
                change |= {old.digest: new.digest, old.version: new.version}
                change[bundle_address(store_url, names[0], old.version)] = bundle_address(
                    store_url, tenant, new.version
                )
            for name in tables:
                rows = [
                    {key: change.get(value, value) if isinstance(value, str) else value for key, value in row.items()}
                    for row in sample[name]
                ]
                connection.execute(metadata.tables[name].insert(), rows)
    engine.dispose()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verifying", description=__doc__)
    parser.add_argument("--tenants", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, LocalS3(Path(name) / "s3") as server:
        tracking = Tracking(tracking_uri=f"sqlite:///{name}/mlflow.db", store=server.settings)
        report = measure_verifying(Path(name), open_store(server.settings), tracking, arguments.tenants)
    print(json.dumps(report), file=sys.stdout)  # noqa: T201  # a command's output


if __name__ == "__main__":
    main()
