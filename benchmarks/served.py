"""The fleets that the suites ask over HTTP: tenants never loaded, one that is, and one whose next versions wait."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import boto3
from botocore.config import Config

from benchmarks.client import Client, Operator
from benchmarks.consistency import parse_answer
from benchmarks.fleets import SyntheticModel, serve, tenant_names, write_catalogues
from benchmarks.phases import parts_of_a_swap, parts_of_answers, phase_seconds
from benchmarks.stage import Stage, staged
from benchmarks.tickets import WORDS, ticket_bodies
from registry.fleet.state import update_fleet

COLD, COLD_ON_S3, SWAPS = 40, 24, 16
_WARM, _SWAPPED = "warm", "swapped"
_BODIES = 64
_WARM_UP = 100
# Whoever polls for a new version leaves the processor to it in between.
_PAUSE_SECONDS = 0.001
_PATIENCE_SECONDS = 20.0
_URL_SECONDS = 3600
_PROBE = "calibration"


class ServedFleet:
    """A server and what can be asked of it.

    Args:
        cold: tenants whose models were never mapped; each is asked once.
        versions: of one tenant, in turn to be served; the first one is.
    """

    def __init__(
        self,
        stage: Stage,
        client: Client,
        operator: Operator,
        *,
        cold: Sequence[str],
        versions: Sequence[SyntheticModel],
    ) -> None:
        self.stage = stage
        self._client = client
        self._operator = operator
        self._cold = iter(cold)
        self._versions = iter(versions[1:])
        self._bodies = ticket_bodies(_BODIES, seed=3, words=WORDS)
        self._asked = 0
        self._seconds, self._answers = 0.0, 0
        self._next_version = ""
        # The program's and the server's first answers are not a tenant's.
        for _ in range(_WARM_UP):
            self.ask_warm()
        for model in versions[:1]:
            client.suggest(model.tenant, self._bodies[0])
        self._before = operator.metrics()
        self._seconds, self._answers = 0.0, 0

    def ask_warm(self) -> None:
        """Ask for a tenant whose model is in memory."""
        self._ask(_WARM)

    def ask_cold(self) -> None:
        """Ask for the next tenant whose model was never mapped."""
        self._ask(next(self._cold))

    def publish_next(self) -> None:
        """Have the fleet name another version of one tenant; the server hears of it in `swap`."""
        model = next(self._versions)
        update_fleet(self.stage.store, {model.tenant: serve(model.manifest)})
        self._next_version = model.manifest.version

    def swap(self) -> None:
        """Tell the server to follow the fleet, and return when it answers by the new version."""
        began = time.perf_counter()
        self._operator.refresh_fleet()
        while parse_answer(self._client.ask(_SWAPPED, self._bodies[0])[1])[0] != self._next_version:
            if time.perf_counter() > began + _PATIENCE_SECONDS:
                raise RuntimeError(f"the new version did not serve within {_PATIENCE_SECONDS:g} s")
            time.sleep(_PAUSE_SECONDS)
        self._seconds += time.perf_counter() - began

    def parts(self) -> dict[str, float]:
        """The parts of an answer, of those since the last call, in seconds; see `benchmarks.phases`."""
        phases, seconds, answers = self._since()
        return parts_of_answers(phases, seconds=seconds, answers=answers)

    def parts_of_swap(self) -> dict[str, float]:
        """The parts of the swap since the last call, in seconds."""
        phases, seconds, _ = self._since()
        return parts_of_a_swap(phases, seconds=seconds)

    def _since(self) -> tuple[dict[str, float], float, int]:
        after = self._operator.metrics()
        found = phase_seconds(self._before, after), self._seconds, self._answers
        self._before, self._seconds, self._answers = after, 0.0, 0
        return found

    def _ask(self, tenant: str) -> None:
        self._asked += 1
        self._seconds += self._client.suggest(tenant, self._bodies[self._asked % _BODIES])
        self._answers += 1


@contextmanager
def served_folder(program: Path) -> Iterator[ServedFleet]:
    """Models on local disk and in the page cache, in a store that is a folder; versions to come in the store alone."""
    with staged(_quiet, models_at_rest=COLD + 2 * SWAPS + 3, program=program) as stage:
        cold = tenant_names(COLD, "cold")
        fleet = stage.models(COLD + SWAPS + 2)
        models = fleet.make((name, "m") for name in [_WARM, *cold])
        versions = fleet.make((_SWAPPED, f"v{number}") for number in range(SWAPS + 1))
        fleet.install(stage.disk, [*models, versions[0]])
        fleet.publish(stage.put, versions[1:])
        catalogues = dict.fromkeys([_WARM, *cold], fleet.catalogue(["m"]))
        catalogues[_SWAPPED] = fleet.catalogue(f"v{number}" for number in range(SWAPS + 1))
        write_catalogues(stage.put, catalogues)
        with _serving(stage, [*models, versions[0]], cold, versions, preload="all") as served:
            yield served


@contextmanager
def served_s3(program: Path) -> Iterator[ServedFleet]:
    """Models on an S3 server alone."""
    with staged(_quiet, models_at_rest=2 * COLD_ON_S3 + 3, s3=True, program=program) as stage:
        cold = tenant_names(COLD_ON_S3, "cold")
        fleet = stage.models(COLD_ON_S3 + 1)
        models = fleet.make((name, "m") for name in [_WARM, *cold])
        fleet.publish(stage.put, models)
        write_catalogues(stage.put, dict.fromkeys([_WARM, *cold], fleet.catalogue(["m"])))
        with _serving(stage, models, cold, [], preload="none") as served:
            yield served


@contextmanager
def _serving(
    stage: Stage,
    models: Sequence[SyntheticModel],
    cold: Sequence[str],
    versions: Sequence[SyntheticModel],
    *,
    preload: str,
) -> Iterator[ServedFleet]:
    update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models})
    # Nothing is looked at by the clock while something else is measured.
    settings = {"preload": preload, "fleet_poll_seconds": 3600, "catalogue_seconds": 3600}
    with stage.server(settings) as server, Client(server.url) as client:
        yield ServedFleet(stage, client, Operator(server.operator_url), cold=cold, versions=versions)


def s3_address(served: ServedFleet, file: Path) -> str:
    """Where a file can be got from the S3 server by anybody, having been put there."""
    settings = served.stage.store_settings
    assert settings.secret_key is not None
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key.get_secret_value(),
        config=Config(proxies={}, signature_version="s3v4"),
    )
    bucket = settings.url.removeprefix("s3://").partition("/")[0]
    with closing(client):
        client.put_object(Bucket=bucket, Key=_PROBE, Body=file.read_bytes())
        return client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": _PROBE}, ExpiresIn=_URL_SECONDS
        )


def _quiet(text: str, share: float) -> None:
    """Progress that nobody looks at."""
