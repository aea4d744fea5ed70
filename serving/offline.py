"""A suggestion without a server, by the server's own path: the fleet, the disk tier, the runtime, the choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from registry.catalogue import read_catalogue
from registry.disk.tier import DiskTier
from registry.errors import CatalogueUnavailable, InvalidInput, UnknownMacro
from registry.model.explain import explain
from registry.model.runtime import BoundModel, Program, limit_threads
from registry.models import serving_entry
from registry.store import ObjectStore
from registry.suggestion_rules import read_rules
from registry.text.ticket import asked_text
from serving.settings import ServingSettings
from serving.suggestions.choice import Shown, Suggestions, choose, is_blank
from serving.suggestions.policy import EVERYBODY, Policy

# A command has the time to leave out each word of a ticket of many.
_MOST_SPANS = 400


def suggest_offline(store: ObjectStore, tenant: str, text: str, *, settings: ServingSettings) -> dict[str, Any]:
    """Suggest macros for a text with what the tenant serves.

    Returns:
        `tenant`, `model_version`, `abstained`, `reason` and `macros` (id, title, score; best first).

    Raises:
        TenantNotFound, ModelNotFound, BundleCorrupt, ProgramUntrusted, ProgramCorrupt, StoreError: as a server would.
        InvalidInput: the text is empty.
    """
    body = _read("", text)
    opened = _open(store, tenant, settings)
    scores = opened.model.score(opened.model.featurise([body]))[0]
    chosen = choose(scores, opened.shown, exclude=(), limit=3, threshold=opened.model.manifest.threshold)
    return _report(tenant, opened, chosen)


def explain_offline(
    store: ObjectStore,
    tenant: str,
    text: str,
    *,
    subject: str = "",
    macro: str | None = None,
    settings: ServingSettings,
) -> dict[str, Any]:
    """What drove the suggestions for a ticket, whether they are good enough to be shown or not.

    Args:
        macro: explain this one of the model's macros, instead of the three best that may be shown.

    Returns:
        As `suggest_offline`, and `threshold`, `text` (what the model read), and for each macro its `explanation`: `text`
        and `contribution`, from what spoke for it most to what spoke against it.

    Raises:
        UnknownMacro: the model does not know `macro`.
        MacrofleetError: see `suggest_offline`.
    """
    body = _read(subject, text)
    opened = _open(store, tenant, settings)
    model = opened.model
    scores = model.score(model.featurise([body]))[0]
    shown = opened.shown
    if macro is not None:
        # Asked for by name: also when it was retired since.
        titles = {label.id: shown.titles.get(label.id, label.title) for label in model.labels if label.id == macro}
        shown = Shown.of(model.labels, titles)
        if not titles:
            raise UnknownMacro(
                f"the model of tenant {tenant} does not know the macro {macro!r}",
                remedy="See which it knows with `macrofleet models show`, or train again.",
            )
    chosen = choose(scores, shown, exclude=(), limit=3, threshold=0.0)
    places = {label.id: place for place, label in enumerate(model.labels)}
    explained = explain(
        body,
        [places[suggested.id] for suggested in chosen.macros],
        lambda texts: model.score(model.featurise(texts)),
        most_spans=_MOST_SPANS,
    )
    threshold = model.manifest.threshold
    # What would be shown, of what may be: a macro that may not and one that is asked for by name say nothing of that.
    would = choose(scores, opened.shown, exclude=(), limit=3, threshold=threshold)
    report = {**_report(tenant, opened, chosen), "abstained": not would.macros, "reason": would.reason}
    for row, explanation in zip(report["macros"], explained, strict=True):
        row["explanation"] = [{"text": one.text, "contribution": one.contribution} for one in explanation]
    return {**report, "threshold": round(threshold, 6), "text": body}


@dataclass(frozen=True, slots=True)
class _Opened:
    """What a tenant serves, and which of its macros anybody may be shown today."""

    version: str
    model: BoundModel
    shown: Shown


def _read(subject: str, text: str) -> str:
    body = asked_text(subject, [text])
    if is_blank(body):
        raise InvalidInput("the text is empty", remedy="Give the ticket's text in quotation marks.")
    return body


def _open(store: ObjectStore, tenant: str, settings: ServingSettings) -> _Opened:
    _, version, digest = serving_entry(store, tenant)
    found = read_catalogue(store, tenant)
    if found is None:
        raise CatalogueUnavailable(f"tenant {tenant} has no macro catalogue in {store.url}")
    policy = Policy(found[0].macros, read_rules(store, tenant))
    limit_threads()
    with DiskTier(settings.disk_folder, store, trusted=settings.trusted_programs) as disk:
        mapped = disk.open_model(tenant, version, digest)
        program = Program(disk.install_program(mapped.manifest.program), trusted=settings.trusted_programs)
    return _Opened(version, program.bind(mapped), policy.shown(version, mapped.labels.macros, EVERYBODY))


def _report(tenant: str, opened: _Opened, chosen: Suggestions) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "model_version": opened.version,
        "abstained": not chosen.macros,
        "reason": chosen.reason,
        "macros": [{"id": macro.id, "title": macro.title, "score": round(macro.score, 6)} for macro in chosen.macros],
    }
