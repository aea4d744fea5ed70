"""What a bench stands on: a temporary folder with room, programs, a store, a disk tier, and servers over them."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.fleets import SyntheticFleet, check_room, folder_writer, store_writer
from benchmarks.load import Floats, Integers, Plan, Samples, http_request, poisson_arrivals, run_load
from benchmarks.tickets import WORDS, ticket_bodies
from flows.local_server import LocalServer, store_environment
from registry.console_output import Step
from registry.keys.published import PublishedKey, PublishedKeys, key_digest, make_key
from registry.layout import ACCESS_KEYS
from registry.model.program import ProgramSpec, publish_program, read_spec
from registry.seaweedfs import LocalS3
from registry.settings import StoreSettings
from registry.store import open_store
from training.programs.release import built_folder

# A model's share of a disk, its label table and what is around it included.
MODEL_ROOM_BYTES = 10_500_000
_BODIES = 200
# Every answer has the macros that it would have.
_DEFAULTS = {"access": "open", "holdback_share": 0, "answer_bytes": 0}
# How far apart capacities before and after a run may lie.
_STEADY = 0.8
# Requests made beforehand for each tenant, with another ticket each.
EACH = 4


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the server has, and which the load generator; None where there is only one, and no fair figure."""

    server: int | None
    load: int | None

    @property
    def void(self) -> list[str]:
        """Why figures are not the server's, on a machine with one core."""
        return ["one core only: server and load generator share it"] if self.server is None else []

    @property
    def server_cores(self) -> list[int] | None:
        """As `LocalServer` takes them."""
        return None if self.server is None else [self.server]


def choose_cores() -> Cores:
    """The first core for the server, the last for the generator."""
    cores = sorted(os.sched_getaffinity(0))
    return Cores(cores[0], cores[-1]) if len(cores) > 1 else Cores(None, None)


class Stage:
    """A folder with a store and a disk tier; gone afterwards.

    Attributes:
        folder: everything lies below it.
        store_settings: where the store is; `store` is that store, and `put` writes to it quickly while nobody reads.
        disk: the disk tier of the servers.
        program: digest of the program, which is in the store; `spec` is what it says of itself.
        cores: for the server and for the generator.
    """

    def __init__(self, folder: Path, store_settings: StoreSettings, program: Path) -> None:
        self.folder = folder
        self.store_settings = store_settings
        self.store = open_store(store_settings)
        self.disk = folder / "disk"
        self.program = publish_program(self.store, program)
        self.spec: ProgramSpec = read_spec(program)
        self.cores = choose_cores()

    def put(self, key: str, stream: IO[bytes]) -> None:
        """Write an object of the store."""
        root = self.store_settings.url
        writer = store_writer(self.store) if root.startswith("s3:") else folder_writer(Path(root))
        writer(key, stream)

    def models(self, most: int, *, macros: int = 100) -> SyntheticFleet:
        """A maker of at most `most` models of the program."""
        return SyntheticFleet(program=self.program, spec=self.spec, macros=macros, models=most)

    def publish_keys(self, tenants: Iterable[str]) -> dict[str, str]:
        """Have servers know a new API key of each tenant, and no others; the keys by tenant."""
        made = {tenant: make_key() for tenant in tenants}
        published = tuple(
            PublishedKey(prefix=prefix, digest=key_digest(key.encode()), tenant=tenant, scopes=("suggest",))
            for tenant, (key, prefix) in made.items()
        )
        document = PublishedKeys(source="0" * 32, generation=1, keys=published)
        self.store.put(ACCESS_KEYS, document.to_bytes())
        return {tenant: key for tenant, (key, _) in made.items()}

    @contextlib.contextmanager
    def server(
        self, settings: Mapping[str, object], *, arguments: Sequence[str] = (), module: str = "macrofleet"
    ) -> Iterator[LocalServer]:
        """A server over the store and the disk tier, on its core; this thread, which publishes, keeps to the other.

        Several processes, which `arguments` ask for, have all cores: they are to be several.

        Args:
            settings: by their variables' names without `MACROFLEET_`, in any case. Nobody is asked for a key unless
                `access` says so, no view is held back, and no answer is remembered unless `answer_bytes` does: what is
                measured is the model.
            module: see `LocalServer`.
        """
        given = {f"MACROFLEET_{name.upper()}": str(value) for name, value in {**_DEFAULTS, **settings}.items()}
        environment = {**store_environment(self.store_settings), "MACROFLEET_DISK_FOLDER": str(self.disk), **given}
        before = os.sched_getaffinity(0)
        cores = None if arguments else self.cores.server_cores
        # Another module's server may run beside one of ours.
        folder = self.folder if module == "macrofleet" else Path(tempfile.mkdtemp(dir=self.folder))
        with LocalServer(folder, environment, cores=cores, arguments=arguments, module=module) as server:
            if self.cores.load is not None:
                os.sched_setaffinity(0, {self.cores.load})
            try:
                yield server
            finally:
                os.sched_setaffinity(0, before)


@contextlib.contextmanager
def staged(step: Step, *, models_at_rest: int, s3: bool = False, program: Path | None = None) -> Iterator[Stage]:
    """A stage in a temporary folder, which is gone afterwards.

    Args:
        models_at_rest: how many models will lie on the disk at most, copies counted: refused early without room.
        s3: the store is a real S3 server instead of a folder.
        program: the folder of the program `bag`, where it is built already.

    Raises:
        InvalidInput: the disk has no room for the models.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="macrofleet-bench-")))
        check_room(folder, models_at_rest * MODEL_ROOM_BYTES)
        if s3:
            step("starting the S3 server", 0.0)
            settings = stack.enter_context(LocalS3(folder / "s3")).settings
        else:
            settings = StoreSettings(url=str(folder / "store"))
        step("building the program", 0.01)
        with built_folder("bag") if program is None else contextlib.nullcontext(program) as built:
            stage = Stage(folder, settings, built)
        yield stage


@functools.cache
def load_bodies() -> list[bytes]:
    """The bodies of all load: 50-word tickets."""
    return ticket_bodies(_BODIES, seed=1, words=WORDS)


class TenantLoad:
    """Requests of many tenants, made beforehand: 50-word tickets, `EACH` requests a tenant.

    Args:
        url: of the server.
        tenants: in the order of their shares.
        core: for the generator.
        seed: of everything drawn.
        keys: of the tenants, to send with their requests.
        tickets: of a request; more than one is a batch.
    """

    def __init__(
        self,
        url: str,
        tenants: Sequence[str],
        *,
        core: int | None,
        seed: int = 1,
        keys: Mapping[str, str] | None = None,
        tickets: int = 1,
    ) -> None:
        self.url = url
        self.tenants = list(tenants)
        self._core = core
        self._rng = np.random.default_rng(seed)
        self._tickets = tickets
        route = "suggestions" if tickets == 1 else "suggestions/batch"
        self._requests = [
            http_request(
                url,
                f"/v1/tenants/{tenant}/{route}",
                self.body(place * EACH + copy),
                key=keys[tenant] if keys else None,
            )
            for place, tenant in enumerate(self.tenants)
            for copy in range(EACH)
        ]

    def body(self, pick: int) -> bytes:
        """The body of a request."""
        if self._tickets == 1:
            return load_bodies()[pick % _BODIES]
        first = pick * self._tickets
        bodies = [load_bodies()[(first + place) % _BODIES] for place in range(self._tickets)]
        return b'{"requests":[' + b",".join(bodies) + b"]}"

    def tenant_of(self, samples: Samples) -> Integers:
        """The place of each sample's tenant."""
        return samples.picks // EACH

    def draw(self, count: int, shares: Floats) -> Integers:
        """Requests of tenants drawn by their shares."""
        return self.requests_of(self._rng.choice(len(self.tenants), count, p=shares))

    def requests_of(self, places: Integers) -> Integers:
        """A request of each of these tenants, any of its own."""
        return places * EACH + self._rng.integers(0, EACH, len(places))

    def touch_all(self, *, connections: int = 4) -> Samples:
        """Ask for every tenant once, a few at a time."""
        picks = np.arange(len(self.tenants)) * EACH
        return run_load(self._plan(picks, connections=connections, keep_refusals=True))

    def saturate(self, shares: Floats, *, seconds: float, connections: int) -> Samples:
        """As many requests as get through, in a closed loop."""
        return run_load(self._plan(self.draw(20_000, shares), connections=connections, seconds=seconds))

    def offered(self, shares: Floats, *, rate: float, seconds: float, **more: Any) -> Plan:
        """A plan: `rate` requests a second, in an open loop."""
        at = poisson_arrivals(rate, seconds, rng=self._rng)
        return self._plan(self.draw(len(at), shares), at=at, **more)

    @property
    def first_of_more(self) -> int:
        """Where the first of `more` requests is in a plan."""
        return len(self._requests)

    def plan(self, picks: Integers, at: Floats, *, more: Sequence[bytes] = ()) -> Plan:
        """A plan: these requests at these times.

        Args:
            more: other requests, behind those that are made beforehand; `tenant_of` has them behind all tenants.
        """
        return Plan(url=self.url, requests=[*self._requests, *more], picks=picks, core=self._core, at=at)

    def _plan(self, picks: Integers, **more: Any) -> Plan:
        return Plan(url=self.url, requests=self._requests, picks=picks, core=self._core, **more)


def measured_capacity(load: TenantLoad, shares: Floats, *, seconds: float, connections: int) -> float:
    """Requests a second that a server answers with 200 when it gets all it can take."""
    samples = load.saturate(shares, seconds=seconds, connections=connections)
    return float((samples.status == 200).sum() / samples.seconds)


def changed_speed(capacities: Sequence[float]) -> list[str]:
    """Why figures say nothing where a load was to be a share of the capacity, and that changed during the run."""
    if min(capacities) < _STEADY * max(capacities):
        rates = " and ".join(f"{rate:.0f}" for rate in capacities)
        return [f"the machine changed its speed: capacities of {rates} requests a second"]
    return []
