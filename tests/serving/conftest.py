"""A real program, built once, and stores that hold it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import ProgramCorrupt
from registry.model.program import SPEC, ProgramSpec, program_digest, publish_program
from registry.store.local import LocalStore
from serving.settings import ServingSettings
from tests.serving.helpers import BuiltProgram

MakeSettings = Callable[..., ServingSettings]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def bag(bag_folder: Path) -> BuiltProgram:
    spec = ProgramSpec.parse((bag_folder / SPEC).read_bytes(), what=SPEC, error=ProgramCorrupt)
    return BuiltProgram(bag_folder, program_digest(bag_folder), spec)


@pytest.fixture
def store(tmp_path: Path, bag: BuiltProgram) -> LocalStore:
    """A store of one test, with the program in it."""
    made = LocalStore(tmp_path / "store")
    publish_program(made, bag.folder)
    return made


@pytest.fixture
def make_settings(tmp_path: Path, bag: BuiltProgram) -> MakeSettings:
    """Settings with a disk tier of the test's own and impatient intervals; `changes` override them."""

    def make(**changes: object) -> ServingSettings:
        values: dict[str, object] = {
            "disk_folder": tmp_path / "disk",
            "trusted_programs": frozenset({bag.digest}),
            "signing_key": "0123456789abcdef",
            "access": "open",
            "sagemaker_access": "platform",
            "fleet_poll_seconds": 0.01,
            "request_timeout_ms": 30_000,
            "answer_bytes": 0,  # or a ticket that is sent twice would not reach a model
            "holdback_share": 0.0,
        }
        return ServingSettings.model_validate({**values, **changes})

    return make
