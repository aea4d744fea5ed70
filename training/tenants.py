"""Bringing tickets in: an import checks labels against the tenant's catalogue, and writes all of it or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from registry.catalogue import Catalogue, Macro, make_catalogue, parse_catalogue, read_catalogue, write_catalogue
from registry.deletion.places import forget_own
from registry.deletion.tombstones import lift, unless_deleted
from registry.errors import InvalidInput, PreconditionFailed, PublishConflict, UnknownMacro
from registry.model.bundle import Label
from registry.names import check_tenant
from registry.store import ObjectStore
from training.examples import Example
from training.importers import named
from training.lake import Lake, Merge

# A catalogue's entity tag, the catalogue as it is, and as it shall be.
_Plan: TypeAlias = tuple[str | None, Catalogue | None, Catalogue]
_SHOWN = 5
_ATTEMPTS = 8


def import_examples(
    store: ObjectStore,
    tenant: str,
    examples: Iterable[Example],
    *,
    titles: Mapping[str, str] | None = None,
    catalogue: Catalogue | None = None,
    add_macros: bool = False,
) -> Merge:
    """Write a tenant's examples to the lake, and its catalogue where it has none or a new one is given.

    Args:
        titles: macro id to title for macros that the catalogue does not have; by default made from the id.
        catalogue: replaces the tenant's catalogue.
        add_macros: labels that are in no catalogue become macros.

    Raises:
        UnknownMacro: a label names no macro of the catalogue; nothing is written.
        TenantDeleted: the tenant was deleted meanwhile; nothing of what was written is left. A tenant that was deleted
            before is brought back.
        PublishConflict: other importers kept winning.
    """
    check_tenant(tenant)
    rows = list(examples)
    plan = _planned(store, tenant, rows, titles or {}, catalogue, add_macros=add_macros)
    lift(store, tenant)
    with unless_deleted(store, tenant, lambda: forget_own(store, tenant)):
        return _write(
            store,
            tenant,
            rows,
            plan,
            lambda: _planned(store, tenant, rows, titles or {}, catalogue, add_macros=add_macros),
        )


def _write(store: ObjectStore, tenant: str, rows: list[Example], plan: _Plan, again: Callable[[], _Plan]) -> Merge:
    etag, current, after = plan
    # The lake first: rows without a macro in the catalogue harm nobody, while a new catalogue serves at once.
    merge = Lake(store).merge(tenant, rows)
    for _ in range(_ATTEMPTS):
        if after == current:
            return merge
        try:
            write_catalogue(store, tenant, after, etag=etag)
            return merge
        except PreconditionFailed:
            etag, current, after = again()
    raise PublishConflict(f"the catalogue of tenant {tenant} kept changing under this import", remedy="Run it again.")


def replace_catalogue(store: ObjectStore, tenant: str, catalogue: Catalogue) -> bool:
    """Have a help desk's catalogue be the tenant's, and say whether it is another than before.

    Raises:
        InvalidInput: it is empty, and the tenant's is not: most likely the credentials may not read macros.
        PublishConflict: other writers kept winning.
    """
    check_tenant(tenant)
    for _ in range(_ATTEMPTS):
        found = read_catalogue(store, tenant)
        current, etag = found if found else (None, None)
        if current == catalogue:
            return False
        if current is not None and current.macros and not catalogue.macros:
            raise InvalidInput(
                f"the help desk shows no macros, and tenant {tenant} has {len(current.macros)}",
                remedy="Check that the token's user may see macros. Nothing was changed.",
            )
        try:
            write_catalogue(store, tenant, catalogue, etag=etag)
            return True
        except PreconditionFailed:
            continue
    raise PublishConflict(f"the catalogue of tenant {tenant} kept changing under this import", remedy="Run it again.")


def _planned(
    store: ObjectStore,
    tenant: str,
    rows: list[Example],
    titles: Mapping[str, str],
    given: Catalogue | None,
    *,
    add_macros: bool,
) -> _Plan:
    """The catalogue as it is, with its entity tag, and as it shall be."""
    found = read_catalogue(store, tenant)
    current, etag = found if found else (None, None)
    base = given or current
    known = {macro.id for macro in base.macros} if base else set()
    missing = sorted({macro for row in rows for macro in row.macro_ids} - known)
    if missing and base is not None and not add_macros:
        # Where the wrong column is taken for the label, they are what customers wrote.
        shown = ", ".join(repr(named([label])) for label in missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise UnknownMacro(
            f"{len(missing)} labels are not in the catalogue of tenant {tenant}: {shown}",
            remedy="Give the catalogue that has them with --macros FILE, or make them macros with --add-macros.",
        )
    new = [Macro(id=label, title=titles.get(label) or title_of(label)) for label in missing]
    return etag, current, make_catalogue([*(base.macros if base else ()), *new])


def read_catalogue_file(path: Path) -> Catalogue:
    """A catalogue from a JSON file: `{"macros": [{"id", "title", …}]}` or just the list. Raises InvalidInput."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as problem:
        raise InvalidInput(f"{path} cannot be read ({problem.strerror})", remedy="Check the path.") from None
    except (ValueError, RecursionError):
        raise InvalidInput(f"{path} is not JSON", remedy='Write {"macros": [{"id": "…", "title": "…"}]}.') from None
    if isinstance(value, list):
        value = {"macros": value}
    return parse_catalogue(json.dumps(value).encode(), what=str(path))


def title_of(label: str) -> str:
    """A readable title for a label that came without one: `card_arrival` and `CARD_ARRIVAL` give `Card arrival`."""
    words = (label.lower() if label.isupper() else label).replace("_", " ").replace("-", " ").split()
    return " ".join([words[0].capitalize(), *words[1:]]) if words else label


def labels_of(macro_ids: Iterable[str], catalogue: Catalogue | None) -> list[Label]:
    """The label table for `macro_ids`, with today's titles."""
    titles = {macro.id: macro.title for macro in catalogue.macros} if catalogue else {}
    return [Label(id=macro_id, title=titles.get(macro_id) or title_of(macro_id)) for macro_id in macro_ids]
