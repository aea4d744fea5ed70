"""The parts of an answer alone, in this process; run with `make bench`."""

from __future__ import annotations

import asyncio
import json
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.fleets import SyntheticModel
from benchmarks.tickets import WORDS, ticket_bodies
from registry.disk_tier import DiskTier, MappedModel
from registry.runtime import BoundModel, Program
from registry.ticket import ticket_text
from serving.cache import ModelCache, Observer
from serving.fleet_watch import ModelRef
from serving.traffic import Traffic

BODIES = [json.loads(body)["ticket"] for body in ticket_bodies(64, seed=4, words=WORDS)]
TEXTS = [ticket_text(ticket["subject"], [comment["body"] for comment in ticket["comments"]]) for ticket in BODIES]
_LEASES = 1000


@pytest.mark.parametrize("tickets", [1, 8, 32, 64])
def test_featurise(benchmark: BenchmarkFixture, program: Program, tickets: int) -> None:
    """50-word tickets, so many at once."""
    benchmark(program.featurise, TEXTS[:tickets])


@pytest.mark.parametrize("tickets", [1, 32])
def test_featurise_by_encoder(benchmark: BenchmarkFixture, encoder: Program, tickets: int) -> None:
    """50-word tickets, so many at once."""
    benchmark(encoder.featurise, TEXTS[:tickets])


def test_map(benchmark: BenchmarkFixture, disk: DiskTier, installed: tuple[Path, list[SyntheticModel]]) -> None:
    """A model on local disk, of another tenant each time."""
    models = cycle(installed[1])
    benchmark(lambda: _mapped(disk, next(models)))


def test_bind(
    benchmark: BenchmarkFixture, program: Program, disk: DiskTier, installed: tuple[Path, list[SyntheticModel]]
) -> None:
    """A mapped model to its program: shapes checked, tensors handed over."""
    benchmark(program.bind, _mapped(disk, installed[1][0]))


def test_score(
    benchmark: BenchmarkFixture, program: Program, disk: DiskTier, installed: tuple[Path, list[SyntheticModel]]
) -> None:
    """One featurised ticket with the model of another tenant each time."""
    models = cycle([program.bind(_mapped(disk, model)) for model in installed[1]])
    features = program.featurise(TEXTS[:1])
    benchmark(lambda: next(models).score(features))


def test_lease(
    benchmark: BenchmarkFixture, program: Program, disk: DiskTier, installed: tuple[Path, list[SyntheticModel]]
) -> None:
    """A thousand leases of models that are in memory."""
    refs = {m.tenant: ModelRef(m.tenant, m.manifest.version, m.manifest.digest) for m in installed[1]}
    models = {model.tenant: program.bind(_mapped(disk, model)) for model in installed[1]}

    async def load(ref: ModelRef, *, demand: bool) -> BoundModel:  # noqa: ARG001  # the cache's
        return models[ref.tenant]

    cache: ModelCache[BoundModel] = ModelCache(
        wanted=refs.__getitem__,
        load=load,
        budget_bytes=1 << 40,
        traffic=Traffic(),
        pinned=lambda _: False,
        observer=_deaf(),
    )

    async def lease_many() -> None:
        tenants = cycle(refs)
        for _ in range(_LEASES):
            with await cache.lease(next(tenants)):
                pass

    with asyncio.Runner() as runner:
        benchmark(lambda: runner.run(lease_many()))


def _deaf() -> Any:
    """An observer to which nothing matters."""
    return SimpleNamespace(**{name: lambda *_: None for name in vars(Observer) if not name.startswith("_")})


def _mapped(disk: DiskTier, model: SyntheticModel) -> MappedModel:
    return disk.map_model(model.tenant, model.manifest.version, model.manifest.digest)
