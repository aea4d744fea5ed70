"""Names that come from outside and end up in paths, keys and addresses."""

from __future__ import annotations

import re
from typing import IO

from registry.errors import InvalidInput, InvalidTenant

TENANT_PATTERN = r"[a-z0-9][a-z0-9_-]{0,62}"
_TENANT = re.compile(TENANT_PATTERN)
_RUN = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{12}")
_NOT_SLUG = re.compile(r"[^a-z0-9_-]+")


def check_tenant(name: str) -> str:
    """Return `name` if it is a tenant slug: 1 to 63 of `a-z 0-9 _ -`, the first one a letter or digit.

    Raises:
        InvalidTenant: anything else; nothing is folded or cut, since two names must never become one tenant.
    """
    if not is_tenant(name):
        raise InvalidTenant(
            f"{name[:80]!r} is not a tenant name",
            remedy="Use 1 to 63 lower-case letters, digits, '_' or '-', starting with a letter or digit.",
        )
    return name


def is_tenant(name: str) -> bool:
    """Whether `name` is a tenant slug, for names that somebody else may have made."""
    return _TENANT.fullmatch(name) is not None


def check_run(name: str) -> str:
    """Return `name` if it is the name of a training run: when it was to start, and a part of its flow run's id.

    Raises:
        InvalidInput: anything else.
    """
    if not _RUN.fullmatch(name):
        raise InvalidInput(
            f"{name[:80]!r} is not the name of a run", remedy="`macrofleet flows status` lists the runs there were."
        )
    return name


def mentions(tenant: str, text: str) -> bool:
    """Whether a text has a tenant's name in it, by itself and not as a part of another name.

    Example:
        >>> mentions("acme", "tenant acme: trained"), mentions("acme", "acme-2 and pacme")
        (True, False)
    """
    return re.search(_by_itself(tenant), text) is not None


def mentioned_in(tenant: str, stream: IO[bytes], *, chunk: int = 1 << 20) -> bool:
    """Like `mentions`, of a stream of any length, of which no more than a chunk is held."""
    pattern = re.compile(_by_itself(check_tenant(tenant)).encode())
    # Begins with a byte that was judged before, so that a name cut in two by the end of a chunk is seen whole in the next one.
    text, begin = b"", 0
    while more := stream.read(chunk):
        text += more
        if any(found.end() < len(text) for found in pattern.finditer(text, begin)):
            return True
        text, begin = text[-len(tenant) - 1 :], 1 if len(text) > len(tenant) else begin
    return pattern.search(text, begin) is not None


def _by_itself(tenant: str) -> str:
    return rf"(?<![a-zA-Z0-9_-]){re.escape(tenant)}(?![a-zA-Z0-9_-])"


def slug(text: str) -> str:
    """A tenant slug made from free text, for names that we choose ourselves (a data set's domain, say)."""
    made = _NOT_SLUG.sub("-", text.strip().lower()).strip("-_")[:63].rstrip("-_")
    return check_tenant(made)
