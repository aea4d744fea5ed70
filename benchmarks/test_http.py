"""Answers over HTTP, warm and cold, by a real server process; run with `make bench`."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.client import Client
from benchmarks.conftest import TENANTS
from benchmarks.tickets import ticket_bodies

BODIES = ticket_bodies(len(TENANTS), seed=3)
FRESH = list(zip(TENANTS, BODIES, strict=True))


def test_first_answer_from_local_disk(benchmark: BenchmarkFixture, warm_client: Client) -> None:
    """Each round asks a tenant whose model was never mapped."""
    waiting = iter(FRESH)
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        warm_client.suggest, setup=lambda: (next(waiting), {}), rounds=len(FRESH)
    )


def test_warm_answer(benchmark: BenchmarkFixture, warm_client: Client) -> None:
    """One tenant, one ticket, again and again."""
    warm_client.suggest(TENANTS[0], BODIES[0])
    benchmark(warm_client.suggest, TENANTS[0], BODIES[0])


def test_first_answer_from_s3(benchmark: BenchmarkFixture, s3_client: Client) -> None:
    """Each round downloads, verifies, maps and answers."""
    waiting = iter(FRESH)
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        s3_client.suggest, setup=lambda: (next(waiting), {}), rounds=len(FRESH)
    )
