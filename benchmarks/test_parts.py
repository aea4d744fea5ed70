"""The parts of an answer alone, in this process; run with `make bench`."""

from __future__ import annotations

import asyncio
import json
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fleets import SyntheticModel
from benchmarks.interleaving import Interleaved
from benchmarks.tickets import WORDS, ticket_bodies
from registry.disk.tier import DiskTier, MappedModel
from registry.layout import LABELS, MANIFEST
from registry.model.bundle import parse_labels, parse_manifest
from registry.model.mapped import check_files
from registry.model.runtime import BoundModel, Program
from registry.text.ticket import asked_text
from serving.engine.cache import ModelCache
from serving.engine.traffic import Traffic
from serving.fleet_watch import ModelRef

TICKETS = [json.loads(body)["ticket"] for body in ticket_bodies(64, seed=4, words=WORDS)]
TEXTS = [asked_text(ticket["subject"], [comment["body"] for comment in ticket["comments"]]) for ticket in TICKETS]
_LEASES = 1000

Installed = tuple[Path, list[SyntheticModel]]


def test_normalise(compared: Interleaved) -> None:
    """A ticket cleaned and masked, of other words each time: what is done in Python before the program reads it."""
    tickets = cycle([(ticket["subject"], [comment["body"] for comment in ticket["comments"]]) for ticket in TICKETS])
    compared(lambda: asked_text(*next(tickets)), beside="loop")


@pytest.mark.parametrize("tickets", [1, 32])
def test_tokenise(compared: Interleaved, program: Program, tickets: int) -> None:  # noqa: ARG001  # limits TensorFlow's threads
    """Texts bounded, folded and cut into word pieces, by the operations of the program's prior."""
    import tensorflow as tf

    from training.prior.table import read_table
    from training.programs.bag import BagProgram, BagSettings

    module = BagProgram(BagSettings(), read_table())
    pieces = tf.function(
        lambda text: module._tokenizer.tokenize(module._normalizer.normalize(module.bounded(text))).values
    )
    texts = tf.constant(TEXTS[:tickets])
    call = pieces.get_concrete_function(tf.TensorSpec([None], tf.string))
    compared(lambda: call(texts).numpy(), beside="gather")


@pytest.mark.parametrize("tickets", [1, 8, 32, 64])
def test_featurise(compared: Interleaved, program: Program, tickets: int) -> None:
    """50-word tickets, so many at once."""
    texts = TEXTS[:tickets]
    compared(lambda: program.featurise(texts), beside="gather")


@pytest.mark.parametrize("tickets", [1, 32])
def test_featurise_by_encoder(compared: Interleaved, encoder: Program, tickets: int) -> None:
    """50-word tickets, so many at once."""
    texts = TEXTS[:tickets]
    compared(lambda: encoder.featurise(texts), beside="product")


def test_score(compared: Interleaved, program: Program, disk: DiskTier, installed: Installed) -> None:
    """One featurised ticket with the model of another tenant each time."""
    models = cycle([program.bind(_mapped(disk, model)) for model in installed[1]])
    features = program.featurise(TEXTS[:1])
    compared(lambda: next(models).score_ticket(features, 0), beside="gather")


def test_verify(compared: Interleaved, installed: Installed) -> None:
    """Every byte of a model on local disk hashed: an unclean start, or no install record."""
    folder, models = installed
    manifest = models[0].manifest
    place = _place(folder, models[0])
    compared(lambda: check_files(place, manifest), beside="digest")


def test_parse_manifest(compared: Interleaved, installed: Installed) -> None:
    """A model's manifest read and checked, as before every mapping."""
    folder, models = installed
    data = (_place(folder, models[0]) / MANIFEST).read_bytes()
    manifest = models[0].manifest
    digest = manifest.digest
    compared(lambda: parse_manifest(data, tenant=manifest.tenant, digest=digest, what="a manifest"), beside="loop")


def test_parse_labels(compared: Interleaved, installed: Installed) -> None:
    """A table of a hundred macros read and checked, as in every mapping."""
    folder, models = installed
    data = (_place(folder, models[0]) / LABELS).read_bytes()
    compared(lambda: parse_labels(data, what="labels"), beside="loop")


def test_map(compared: Interleaved, disk: DiskTier, installed: Installed) -> None:
    """A model on local disk, of another tenant each time: manifest, record, header, labels, mapping."""
    models = cycle(installed[1])
    compared(lambda: _mapped(disk, next(models)), beside="map")


def test_bind(compared: Interleaved, program: Program, disk: DiskTier, installed: Installed) -> None:
    """A mapped model to its program: shapes checked, tensors handed over."""
    mapped = _mapped(disk, installed[1][0])
    compared(lambda: program.bind(mapped), beside="loop")


def test_lease_of_warm_models(
    compared: Interleaved, program: Program, disk: DiskTier, installed: Installed, deaf: Any
) -> None:
    """A thousand leases, by requests, of models that are in memory."""
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
        observer=deaf,
    )

    async def lease_many() -> None:
        tenants = cycle(refs)
        for _ in range(_LEASES):
            with await cache.lease(next(tenants)):
                pass

    with asyncio.Runner() as runner:
        compared(lambda: runner.run(lease_many()), beside="loop")


def _mapped(disk: DiskTier, model: SyntheticModel) -> MappedModel:
    return disk.map_model(model.tenant, model.manifest.version, model.manifest.digest)


def _place(folder: Path, model: SyntheticModel) -> Path:
    return folder / "models" / model.tenant / model.manifest.version
