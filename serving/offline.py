"""A suggestion without a server, by the server's own path: the fleet, the disk tier, the runtime, the choice."""

from __future__ import annotations

from typing import Any

from registry.catalogue import read_catalogue
from registry.disk_tier import DiskTier
from registry.errors import CatalogueUnavailable, InvalidInput
from registry.models import serving_entry
from registry.runtime import Program, limit_threads
from registry.store import ObjectStore
from registry.ticket import ticket_text
from serving.settings import ServingSettings
from serving.suggest import choose, is_blank


def suggest_offline(store: ObjectStore, tenant: str, text: str, *, settings: ServingSettings) -> dict[str, Any]:
    """Suggest macros for a text with what the tenant serves.

    Returns:
        `tenant`, `model_version`, `abstained`, `reason` and `macros` (id, title, score; best first).

    Raises:
        TenantNotFound, ModelNotFound, BundleCorrupt, ProgramUntrusted, ProgramCorrupt, StoreError: as a server would.
        InvalidInput: the text is empty.
    """
    body = ticket_text("", [text])
    if is_blank(body):
        raise InvalidInput("the text is empty", remedy="Give the ticket's text in quotation marks.")
    _, version, digest = serving_entry(store, tenant)
    found = read_catalogue(store, tenant)
    if found is None:
        raise CatalogueUnavailable(f"tenant {tenant} has no macro catalogue in {store.url}")
    titles = {macro.id: macro.title for macro in found[0].suggestible().values()}
    limit_threads()
    with DiskTier(settings.disk_folder, store, trusted=settings.trusted_programs) as disk:
        mapped = disk.open_model(tenant, version, digest)
        manifest = mapped.manifest
        program = Program(disk.install_program(manifest.program), trusted=settings.trusted_programs)
    model = program.bind(mapped)
    scores = model.score(program.featurise([body]))[0]
    chosen = choose(scores, model.labels, titles, exclude=(), limit=3, threshold=manifest.threshold)
    return {
        "tenant": tenant,
        "model_version": version,
        "abstained": not chosen.macros,
        "reason": chosen.reason,
        "macros": [{"id": macro.id, "title": macro.title, "score": round(macro.score, 6)} for macro in chosen.macros],
    }
