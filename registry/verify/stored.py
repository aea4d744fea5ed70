"""What the object store has of tenants, as far as a comparison needs it, made of a listing that is never held.

A listing has four objects or more a version. Of these a comparison needs which versions are whole, and the lengths of what the
fleet names, which are looked at while they pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from registry.layout import LABELS, MANIFEST, PROGRAM_FILES, WEIGHTS, catalogue_key, program_key
from registry.names import is_tenant
from registry.store import ObjectInfo

_FILES = (WEIGHTS, LABELS, MANIFEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One tenant's part of a listing.

    Attributes:
        versions: the names of each one's objects.
        has_catalogue: whether its macro catalogue is there.
    """

    versions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    has_catalogue: bool = False

    def whole(self) -> set[str]:
        """The versions that were published to the end."""
        return {version for version, names in self.versions.items() if names.issuperset(_FILES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usable:
    """What a comparison needs of a manifest that was read and found to be right."""

    program: str
    digest: str


# Of one tenant, the lengths of the files of each version.
Sizes = Mapping[str, Mapping[str, int]]


class Listings:
    """Sorts listings of `tenants/` by tenant. What most versions have in common, the names of their files, is kept once."""

    def __init__(self) -> None:
        self._alike: dict[frozenset[str], frozenset[str]] = {}

    def by_tenant(self, listing: Iterable[ObjectInfo]) -> Iterator[tuple[str, Stored, Sizes]]:
        """Each tenant of a listing in key order, with what there is of it and how long that is."""
        for tenant, theirs in groupby(listing, key=lambda info: _second(info.key)):
            if not is_tenant(tenant):
                continue
            sizes: dict[str, dict[str, int]] = {}
            has_catalogue = False
            for info in theirs:
                match info.key.split("/"):
                    case [_, _, "models", version, name]:
                        sizes.setdefault(version, {})[name] = info.size
                    case _:
                        has_catalogue = has_catalogue or info.key == catalogue_key(tenant)
            versions = {version: self._shared(frozenset(found)) for version, found in sizes.items()}
            yield tenant, Stored(versions=versions, has_catalogue=has_catalogue), sizes

    def _shared(self, names: frozenset[str]) -> frozenset[str]:
        return self._alike.setdefault(names, names)


def whole_programs(listing: Iterable[ObjectInfo]) -> frozenset[str]:
    """The digests of the programs in a listing of `programs/` that were published to the end."""
    found = ((_second(info.key), info.key) for info in listing)
    return frozenset(digest for digest, key in found if key == program_key(digest, PROGRAM_FILES))


def _second(key: str) -> str:
    parts = key.split("/", 2)
    return parts[1] if len(parts) == 3 else ""
