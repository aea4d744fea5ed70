"""API keys as servers know them: `access/keys.json` in the store, which holds digests and what each key may do.

A key is `mf_<prefix>_<secret>`. The prefix is shown and names the key; the secret has 160 random bits, and nobody keeps it:
what is kept is the SHA-256 of the whole key. A slow hash (bcrypt, scrypt) makes up for passwords that can be guessed. 160
random bits cannot be, however quick a guess is, and a slow hash would cost every request a tenth of a second.

Looking a key up compares digests only. How long that takes depends on the digest, which nobody can choose without knowing
the key; a key whose beginning is right is found out no sooner than any other.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from registry.documents import Document
from registry.errors import ObjectNotFound, StoreError
from registry.files import Digest
from registry.layout import ACCESS_KEYS
from registry.names import TENANT_PATTERN
from registry.store import ObjectStore

Scope = Literal["suggest", "feedback", "tenant-admin", "operator"]
SCOPES: Final[tuple[Scope, ...]] = ("suggest", "feedback", "tenant-admin", "operator")
# So many keys are a document of about 20 MB, which a server reads once and again when one of them changes.
MAX_KEYS = 100_000
MAX_BYTES = 64 * 1024 * 1024
MAX_KEY_CHARACTERS = 128
PREFIX = re.compile(r"[0-9a-f]{10}")
_KEY = re.compile(r"mf_([0-9a-f]{10})_[0-9a-f]{40}")


class PublishedKey(Document):
    """One key, as far as a server has to know it. Fields of later releases are ignored.

    Attributes:
        prefix: names it.
        digest: SHA-256 of the whole key.
        tenant: whose it is; None for an operator's, which is for all.
        scopes: what it may do.
        expires: when it stops being one, in seconds since the epoch; None for never.
    """

    model_config = ConfigDict(extra="ignore")

    prefix: Annotated[str, StringConstraints(pattern=rf"^{PREFIX.pattern}$")]
    digest: Digest
    tenant: Annotated[str, StringConstraints(pattern=rf"^{TENANT_PATTERN}$")] | None
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    expires: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_tenant_or_all(self) -> Self:
        if ("operator" in self.scopes) != (self.tenant is None):
            raise ValueError("an operator's key has no tenant, and every other key has one")
        return self


class PublishedKeys(Document):
    """`access/keys.json`: every key that is one, expired ones perhaps among them. What is not in it is no key.

    Attributes:
        source: which database it was made from.
        generation: counts that database's changes; it only grows.
        keys: by prefix.
    """

    model_config = ConfigDict(extra="ignore")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    source: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    generation: Annotated[int, Field(ge=0)]
    keys: Annotated[tuple[PublishedKey, ...], Field(max_length=MAX_KEYS)]


def make_key() -> tuple[str, str]:
    """A new key and its prefix."""
    prefix = secrets.token_hex(5)
    return f"mf_{prefix}_{secrets.token_hex(20)}", prefix


def prefix_of(key: str) -> str | None:
    """The prefix of what looks like a key; None for what does not."""
    found = _KEY.fullmatch(key)
    return found[1] if found else None


def key_digest(key: bytes) -> str:
    """What a key is known by."""
    return hashlib.sha256(key).hexdigest()


def sorted_scopes(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """Scopes, each once, in the order of their power."""
    return tuple(sorted(set(scopes), key=SCOPES.index))


class AccessReader:
    """Reads the published keys again and again, fetching them only when they changed. Not for two threads at once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._etag: str | None = None
        self._keys: PublishedKeys | None = None

    def refresh(self) -> PublishedKeys | None:
        """The keys as they are now, the very object of the last call when nothing changed; None where there are none.

        Raises:
            StoreError: the store failed, the document is damaged or gone, or an older one has taken its place: that
                would make keys of those that were revoked since.
        """
        try:
            found = self._store.get_if_changed(ACCESS_KEYS, self._etag, max_bytes=MAX_BYTES)
        except ObjectNotFound:
            if self._keys is None:
                return None
            raise StoreError(
                f"{self._store.url}/{ACCESS_KEYS} was there, and is not any more", remedy=_REMEDY
            ) from None
        if found is None:
            return self._keys
        keys = parse_keys(found.data, where=f"{self._store.url}/{ACCESS_KEYS}")
        if self._keys is not None and keys.generation < self._keys.generation:
            raise StoreError(
                f"{self._store.url}/{ACCESS_KEYS} has generation {keys.generation}, older than {self._keys.generation}",
                remedy=_REMEDY,
            )
        self._etag, self._keys = found.etag, keys
        return keys


def parse_keys(data: bytes, *, where: str) -> PublishedKeys:
    """The keys of a document. Raises StoreError where it is none."""
    return PublishedKeys.parse(data, what=where, error=StoreError)


_REMEDY = "Run `macrofleet keys publish`."
