"""Files with a column `domain` as several tenants, one a domain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from registry.errors import InvalidInput, InvalidTenant
from registry.names import slug
from training.examples import Example
from training.importers import Imported, read_tickets


def read_tenants(
    path: Path,
    *,
    where: Mapping[str, str],
    out_of_scope: frozenset[str],
    single_tenant: bool = False,
    few_shot: int | None = None,
) -> dict[str, Imported]:
    """The tenants of a file: one a domain, or one named after the file where there is no domain.

    A domain that is itself an out-of-scope label (CLINC150's `oos`) is no tenant: its rows belong to nobody, and are
    given to every tenant of the file as rows that nothing fits.

    Args:
        where, out_of_scope, few_shot: as for `read_tickets`.
        single_tenant: take the file as one tenant's, whatever the domains.

    Raises:
        InvalidInput: the file cannot be used, or two domains become one tenant name.
    """
    found = read_tickets(path, where=where, out_of_scope=out_of_scope, few_shot=few_shot)
    if single_tenant or not found.domains:
        return {_name(path, path.stem): found}
    by_domain: dict[str, list[Example]] = {}
    for example in found.examples:
        by_domain.setdefault(found.domains.get(example.ticket_id, ""), []).append(example)
    shared = [example for domain in out_of_scope for example in by_domain.pop(domain, [])]
    tenants: dict[str, Imported] = {}
    for domain, examples in by_domain.items():
        tenant = _name(path, domain or path.stem)
        if tenant in tenants:
            raise InvalidInput(f"{path}: two domains become the tenant {tenant!r}", remedy="Rename one of them.")
        tenants[tenant] = Imported(examples=[*examples, *shared], titles=found.titles)
    return tenants


def _name(path: Path, text: str) -> str:
    try:
        return slug(text)
    except InvalidTenant:
        raise InvalidInput(
            f"{path}: no tenant name can be made of {text!r}", remedy="Name it in letters a-z and digits."
        ) from None
