"""A fleet as the console sees it: entries, records of trainings, versions' manifests and runs, without any weights."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from flows.outcome import Outcome
from flows.runs import RunPlan, RunRecord, ShardRecord, counted, left_over, run_name, write_record
from registry.catalogue import Macro, make_catalogue, write_catalogue
from registry.documents import canonical_json
from registry.files import FileDigest
from registry.fleet.state import FleetEntry, in_threads, update_fleet
from registry.layout import LABELS, MANIFEST, PROVENANCE, WEIGHTS, examples_key, model_key, run_key, run_shard_key
from registry.model.bundle import Manifest
from registry.store import ObjectStore
from training.inputs import Inputs
from training.record import TrainingRecord
from training.record import write_record as write_training

_FIRST = (
    "acorn", "alpine", "amber", "anchor", "apex", "arbor", "argent", "aster", "atlas", "aurora", "basil",
    "beacon", "birch", "blue", "bolt", "bramble", "bright", "cedar", "cinder", "clover", "cobalt", "coral",
    "crest", "delta", "drift", "ember", "fable", "fern", "flint", "forge", "garnet", "glade", "harbor",
    "hazel", "heron", "indigo", "iris", "juniper",
)  # fmt: skip
_SECOND = (
    "bikes", "books", "coffee", "energy", "fashion", "finance", "foods", "games", "garden", "health", "home",
    "insure", "labs", "learn", "media", "mobile", "music", "parcels", "pay", "pets", "print", "rent", "shoes",
    "sports", "travel",
)  # fmt: skip
# Those of a head of the program `encoder`, about.
_WEIGHTS_BYTES, _LABELS_BYTES = 340_000, 2_000
_DIGITS = "0123456789abcdef"

# Of the eight macros that tenants have, from one that is used a lot to one that hardly is.
_BY_MACRO = [
    {
        "macro": f"m{n}",
        "support": max(1, 64 >> n),
        "precision": 0.95 - n * 0.07,
        "recall": 0.9 - n * 0.09,
        "top3": 0.99 - n * 0.06,
    }
    for n in range(8)
]


def console_names(tenants: int) -> list[str]:
    """So many names of tenants, the same each time."""
    pairs = [f"{first}-{second}" for first in _FIRST for second in _SECOND]
    random.Random(7).shuffle(pairs)
    return [
        f"{pairs[place % len(pairs)]}{f'-{place // len(pairs) + 1}' if place >= len(pairs) else ''}"
        for place in range(tenants)
    ]


def fill_store(store: ObjectStore, tenants: int, *, detailed: int = 3, now: datetime | None = None) -> list[str]:
    """Fill an empty store.

    Args:
        tenants: how many the fleet has.
        detailed: so many of them, the first ones, have versions and macros in the store as well.
        now: when the last run ended.

    Returns:
        Their names.
    """
    at = now or datetime.now(UTC)
    names = console_names(tenants)
    chance = random.Random(1)
    kinds = {name: _kind(chance, place) for place, name in enumerate(names)}
    manifests = {name: [make_version(name, seed) for seed in range(3)] for name in names[:detailed]}
    entries = {name: _entry(chance, kinds[name], manifests.get(name)) for name in names}
    records = {name: _record(chance, kinds[name], entries[name], at) for name in names if kinds[name] != "not_eligible"}
    update_fleet(store, {name: partial(_becomes, entry) for name, entry in entries.items()})
    in_threads(lambda name: store.put(examples_key(name), b"T"), names)
    in_threads(lambda name: write_training(store, name, records[name], etag=None), records)
    for name, versions in manifests.items():
        write_catalogue(
            store,
            name,
            make_catalogue(Macro(id=f"m{number}", title=f"Macro {number}") for number in range(8)),
            etag=None,
        )
        for place, manifest in enumerate(versions):
            put_version(store, manifest, created_at=at - timedelta(days=3 - place, hours=5))
    write_runs(store, {name: kinds[name] for name in names}, records, now=at)
    return names


def make_version(tenant: str, seed: int) -> Manifest:
    """A manifest with the figures that training writes."""
    top1 = 0.8 + seed * 0.03
    return Manifest(
        tenant=tenant,
        program="b" * 64,
        files={
            WEIGHTS: FileDigest(sha256="a" * 64, size=_WEIGHTS_BYTES + seed),
            LABELS: FileDigest(sha256="a" * 64, size=_LABELS_BYTES),
        },
        data_fingerprint="c" * 64,
        settings={"seed": seed},
        metrics={"top1": top1, "top3": top1 + 0.1, "coverage": 0.86 + seed * 0.02, "test_rows": 180.0},
        threshold=0.31,
    )


def put_version(store: ObjectStore, manifest: Manifest, *, created_at: datetime) -> None:
    """Put a version where it belongs: its files are as long as they should be, and empty."""
    for name, file in manifest.files.items():
        store.put(model_key(manifest.tenant, manifest.version, name), bytes(file.size))
    told = {"created_at": created_at.isoformat(), "program": "bag", "why": "new tickets", "by_macro": _BY_MACRO}
    store.put(model_key(manifest.tenant, manifest.version, PROVENANCE), canonical_json(told))
    store.put(model_key(manifest.tenant, manifest.version, MANIFEST), manifest.to_bytes())


def write_runs(
    store: ObjectStore, kinds: dict[str, str], records: dict[str, TrainingRecord], *, now: datetime
) -> list[str]:
    """Leave a few runs of the fleet, the last one with every tenant's outcome. Returns their names, the latest first."""
    made = []
    for days in range(5):
        began = now - timedelta(days=days, minutes=95)
        outcomes = [_outcome(name, kind, records.get(name), days) for name, kind in kinds.items()]
        run = run_name(began, f"{days:012x}")
        store.put(run_key(run, "plan.json"), RunPlan(tenants=tuple(kinds), shards=1, options={}).to_bytes())
        if days == 0:
            shard = ShardRecord(owner="bench", beat=9, written_at=now, outcomes=tuple(outcomes), done=True)
            store.put(run_shard_key(run, 0), shard.to_bytes())
        record = RunRecord(
            run=run,
            flow="retrain_fleet",
            flow_run_id=f"{days:032x}",
            state="completed",
            started_at=began,
            ended_at=began + timedelta(minutes=40 + 5 * days),
            tenants=len(outcomes),
            counts=counted(outcomes),
            left=left_over(outcomes),
            generation=40 - days,
        )
        write_record(store, record)
        made.append(run)
    return made


def _becomes(entry: FleetEntry, _: FleetEntry | None) -> FleetEntry:
    return entry


def _kind(chance: random.Random, place: int) -> str:
    """What became of a tenant; the first few are one of each that there is something to see of."""
    shown = ("waiting", "trained", "trained", "not_promoted", "failed", "not_eligible", "halted")
    if place < len(shown):
        return shown[place]
    return chance.choices(("trained", "not_eligible", "not_promoted", "failed"), (93, 5, 1.5, 0.5))[0]


def _entry(chance: random.Random, kind: str, versions: Sequence[Manifest] | None) -> FleetEntry:
    if kind == "not_eligible":
        return FleetEntry(
            reason=f"{chance.randint(5, 99)} tickets with a shared macro in the last 9 months, 100 are needed"
        )
    digests = [one.digest for one in versions] if versions else [_digest(chance) for _ in range(3)]
    fields: dict[str, Any] = {
        "version": digests[1][:16],
        "manifest": digests[1],
        "previous": digests[0][:16],
        "previous_manifest": digests[0],
        "keep_loaded": chance.random() < 0.01,
        "hold_version": chance.random() < 0.004,
    }
    if kind == "waiting":
        fields |= {"candidate": digests[2][:16], "candidate_manifest": digests[2]}
    if kind == "halted":
        fields["rollout"] = {"stage": "halted", "version": digests[2][:16], "manifest": digests[2]}
    return FleetEntry.model_validate(fields)


def _record(chance: random.Random, kind: str, entry: FleetEntry, now: datetime) -> TrainingRecord:
    failed = kind == "failed"
    top1 = min(0.97, max(0.42, chance.gauss(0.8, 0.08)))
    reasons = {
        "failed": "MemoryError; where is in this run's log",
        "not_promoted": "top-3 0.811 is below the champion's 0.842, by more than chance explains",
    }
    return TrainingRecord(
        state={"waiting": "trained", "halted": "trained"}.get(kind, kind),
        reason=reasons.get(kind, ""),
        inputs="d" * 64,
        parts=Inputs(data="a" * 64, catalogue="b" * 64, program="c" * 64, settings="d" * 64),
        version=None if failed else entry.version,
        manifest=None if failed else entry.manifest,
        program="" if failed else "bag",
        examples=0 if failed else int(chance.lognormvariate(6.6, 0.9)) + 100,
        macros=0 if failed else chance.randint(4, 140),
        top1=None if failed else round(top1, 4),
        top3=None if failed else round(min(0.995, top1 + chance.uniform(0.06, 0.14)), 4),
        finished_at=now - timedelta(minutes=chance.randint(5, 60 * 24 * 20)),
        settled=True,
    )


def _outcome(name: str, kind: str, record: TrainingRecord | None, days: int) -> dict[str, Any]:
    state = kind if days == 0 or kind in {"not_eligible", "failed"} else "unchanged"
    if record is None:
        return Outcome(tenant=name, state=state, reason="61 tickets with a shared macro, 100 are needed").as_dict()
    told = Outcome(
        tenant=name,
        state=state,
        reason=record.reason,
        why="its tickets changed" if state == "trained" else "",
        top1=record.top1,
        top3=record.top3,
        version=record.version or "",
        seconds=4.2,
    )
    return told.as_dict()


def _digest(chance: random.Random) -> str:
    return "".join(chance.choices(_DIGITS, k=64))
