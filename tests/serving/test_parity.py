"""What training predicts for a ticket is what the server answers, with every stage between them the real one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from registry.catalogue import Macro, make_catalogue, write_catalogue
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import LABELS, MANIFEST, WEIGHTS
from registry.model.bundle import Manifest, parse_labels
from registry.model.program import publish_program
from registry.model.runtime import Program
from registry.model.tensors import map_tensors
from registry.publishing import publish_bundle
from registry.store.local import LocalStore
from serving.settings import ServingSettings
from tests.serving.helpers import BuiltProgram, ready
from training.examples import Example
from training.fitting import FitSettings
from training.importers import read_tickets
from training.synthetic import SyntheticTicket, make_tenant
from training.trainer import Trainer

pytestmark = pytest.mark.anyio
TENANT = "acme"


@dataclass(frozen=True)
class Road:
    """One tenant, from a file of tickets to a server.

    Attributes:
        tickets: as the helpdesk has them, each beside the example that the importer made of it.
        bundle: what training wrote; the server has its own copy, through the store.
    """

    tickets: list[tuple[SyntheticTicket, Example]]
    program: Program
    bundle: Path
    manifest: Manifest
    client: httpx.AsyncClient


def thread(ticket: SyntheticTicket) -> list[dict[str, object]]:
    """The ticket as a conversation by mail, as a help desk keeps it."""
    answered = f"<div>Und jetzt?</div><blockquote>{ticket.subject} {ticket.body}</blockquote>"
    return [
        {"author": "customer", "public": True, "body": f"<p>{ticket.body}</p>", "created_at": "2020-01-01T09:00:00Z"},
        {"author": "agent", "public": True, "body": "We are looking.", "created_at": "2020-01-01T10:00:00Z"},
        {"author": "customer", "public": False, "body": "angry", "created_at": "2020-01-01T11:00:00Z"},
        {"author": "customer", "public": True, "body": answered, "created_at": "2020-01-01T12:00:00Z"},
    ]


@pytest.fixture(scope="module")
async def road(tmp_path_factory: pytest.TempPathFactory, bag: BuiltProgram) -> AsyncIterator[Road]:
    folder = tmp_path_factory.mktemp("parity")
    made = make_tenant(TENANT, seed=7, tickets=400, macros=8)
    rows = [
        {
            "ticket_id": ticket.ticket_id,
            "subject": ticket.subject,
            **({"comments": thread(ticket)} if place % 2 else {"body": ticket.body}),
            "label": ticket.macro_id,
            "applied_at": ticket.applied_at.isoformat(),
        }
        for place, ticket in enumerate(made.tickets)
    ]
    file = folder / "tickets.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    examples = read_tickets(file).examples
    catalogue = make_catalogue(Macro(id=macro.id, title=macro.title) for macro in made.macros)
    program = Program(bag.folder, trusted=frozenset({bag.digest}))
    bundle = folder / "bundle"
    bundle.mkdir()
    trainer = Trainer(program, FitSettings(least_steps=20, epochs=2))
    trained = trainer.train(TENANT, examples, bundle, catalogue=catalogue).manifest
    # Two epochs are not sure of much, and what a server keeps to itself cannot be compared.
    manifest = trained.model_copy(update={"threshold": 0.0})
    (bundle / MANIFEST).write_bytes(manifest.to_bytes())

    store = LocalStore(folder / "store")
    publish_program(store, bag.folder)
    publish_bundle(store, bundle, tenant=TENANT)
    write_catalogue(store, TENANT, catalogue, etag=None)
    update_fleet(store, {TENANT: lambda _: FleetEntry(version=manifest.version, manifest=manifest.digest)})
    settings = ServingSettings.model_validate(
        {
            "disk_folder": folder / "disk",
            "trusted_programs": frozenset({bag.digest}),
            "access": "open",
            "request_timeout_ms": 30_000,
        }
    )
    async with ready(settings, store) as client:
        yield Road(list(zip(made.tickets, examples, strict=True)), program, bundle, manifest, client)


async def test_a_server_answers_what_training_predicts(road: Road) -> None:
    tensors = map_tensors(road.bundle / WEIGHTS)
    labels = parse_labels((road.bundle / LABELS).read_bytes(), what=LABELS).macros
    for place, (ticket, example) in list(enumerate(road.tickets))[-20:]:
        assert ("Und jetzt?" in example.text) == bool(place % 2)
        scores = road.program.score(road.program.featurise([example.text]), tensors)[0]
        best = np.argsort(-scores, kind="stable")[:3]
        asked = {
            "id": ticket.ticket_id,
            "subject": ticket.subject,
            "comments": thread(ticket) if place % 2 else [{"author": "customer", "body": ticket.body}],
        }
        answer = (await road.client.post(f"/v1/tenants/{TENANT}/suggestions", json={"ticket": asked})).json()
        assert answer["model_version"] == road.manifest.version
        assert [macro["id"] for macro in answer["macros"]] == [labels[index].id for index in best]
        assert [macro["score"] for macro in answer["macros"]] == pytest.approx(scores[best].tolist(), abs=1e-5)
