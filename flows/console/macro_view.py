"""A tenant's macros, one by one: how good a version's suggestions of each were when it was made, and what agents make of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from registry.catalogue import read_catalogue
from registry.errors import CatalogueUnavailable, InvalidInput, ObjectNotFound
from registry.layout import PROVENANCE, model_key
from registry.model.bundle import MAX_MANIFEST_BYTES
from registry.store import ObjectStore

Order: TypeAlias = Literal["used", "weakest"]
SHOWN = 50
# From so few held-out tickets on a macro's figures say something of it.
TELLING = 5
_Share: TypeAlias = Annotated[float, Field(ge=0, le=1)] | None


class MacroFigures(BaseModel):
    """A macro on held-out tickets, as training wrote it down (`training.evaluation.macro_table`), as fractions.

    Attributes:
        support: tickets that it was applied to.
        recall: of these, for how many it came first; `top3`: among the three.
        precision: of the tickets for which it came first, for how many it was right.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    macro: str
    support: Annotated[int, Field(ge=0)]
    precision: _Share = None
    recall: _Share = None
    top3: _Share = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MacroTable:
    """The macros of a version.

    Attributes:
        rows: those that are shown.
        more: how many are not.
        titles: today's, by macro id.
    """

    version: str
    rows: Sequence[MacroFigures]
    more: int
    titles: Mapping[str, str]

    @property
    def told(self) -> bool:
        """Whether the version has such figures."""
        return bool(self.rows)


_FIGURES: TypeAdapter[list[MacroFigures]] = TypeAdapter(list[MacroFigures])


def read_macro_table(store: ObjectStore, tenant: str, version: str, *, order: Order) -> MacroTable:
    """What a version's provenance has of each macro. Raises StoreError."""
    found = _figures(store, tenant, version)
    found.sort(key=_weakness if order == "weakest" else _use)
    return MacroTable(
        version=version,
        rows=found[:SHOWN],
        more=max(0, len(found) - SHOWN),
        titles=read_titles(store, tenant),
    )


def read_titles(store: ObjectStore, tenant: str) -> Mapping[str, str]:
    """Today's titles, by macro id; none where the catalogue cannot be read. Raises StoreError."""
    with suppress(CatalogueUnavailable, InvalidInput):
        found = read_catalogue(store, tenant)
        return {macro.id: macro.title for macro in found[0].macros} if found else {}
    return {}


def _figures(store: ObjectStore, tenant: str, version: str) -> list[MacroFigures]:
    with suppress(ObjectNotFound, ValueError, ValidationError, InvalidInput):
        told = json.loads(store.get(model_key(tenant, version, PROVENANCE), max_bytes=MAX_MANIFEST_BYTES).data)
        return _FIGURES.validate_python(told.get("by_macro", []) if isinstance(told, dict) else [])
    return []


def _use(row: MacroFigures) -> tuple[int, str]:
    return -row.support, row.macro


def _weakness(row: MacroFigures) -> tuple[bool, float, int, str]:
    """Those with too few tickets to tell come last."""
    share = 1.0 if row.top3 is None else row.top3
    return row.support < TELLING, share, -row.support, row.macro
