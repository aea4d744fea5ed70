"""API keys as servers know them: `access/keys.json` in the store, which holds digests and what each key may do.

A key is `mf_<prefix>_<secret>`. The prefix is shown and names the key; the secret has 160 random bits, and nobody keeps it:
what is kept is the SHA-256 of the whole key. A slow hash (bcrypt, scrypt) makes up for passwords that can be guessed. 160
random bits cannot be, however quick a guess is, and a slow hash would cost every request a tenth of a second.

Looking a key up compares digests only. How long that takes depends on the digest, which nobody can choose without knowing
the key; a key whose beginning is right is found out no sooner than any other.

The document is one of JSON, with a key a line: who has the lines reads it key by key, so that a server that reads hundreds of
thousands of them neither holds them all as objects nor keeps the interpreter from its requests while they are parsed.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Final, Generic, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from registry.documents import Document
from registry.errors import ObjectNotFound, StoreError
from registry.files import Digest
from registry.layout import ACCESS_KEYS
from registry.names import TENANT_PATTERN
from registry.store import ObjectStore

Scope = Literal["suggest", "feedback", "tenant-admin", "operator"]
SCOPES: Final[tuple[Scope, ...]] = ("suggest", "feedback", "tenant-admin", "operator")
# Two for each of 170,000 tenants, and some. So many are a document of about 80 MB, of 120 where every name is as long as it may
# be, which a server reads once and again when one of them changes: docs/access.md has what that takes.
MAX_KEYS = 400_000
MAX_BYTES = 128 * 1024 * 1024
MAX_KEY_CHARACTERS = 128
PREFIX = re.compile(r"[0-9a-f]{10}")
_KEY = re.compile(r"mf_([0-9a-f]{10})_[0-9a-f]{40}")
# The end of the first line, and the last one.
_BEGIN = b'"keys":[\n'
_END = b"]}\n"

T = TypeVar("T")


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

    def to_bytes(self) -> bytes:
        """As it is at rest: what it is in the first line, then a key a line."""
        heading = {"format": self.format, "generation": self.generation, "source": self.source, "keys": []}
        begin = json.dumps(heading, separators=(",", ":")).encode().removesuffix(b"]}")
        lines = [key.to_bytes().removesuffix(b"\n") for key in self.keys]
        return begin + b"\n" + b",\n".join(lines) + (b"\n" if lines else b"") + _END


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


class KeysFollower(Generic[T]):
    """Reads the published keys again and again, fetching them only when they changed. Not for two threads at once.

    Args:
        make: what is to be kept of the keys, which it is given one by one, and of the document without them.
    """

    def __init__(self, store: ObjectStore, make: Callable[[PublishedKeys, Iterable[PublishedKey]], T]) -> None:
        self._store = store
        self._make = make
        self._etag: str | None = None
        self._generation = 0
        self._made: T | None = None

    def refresh(self) -> T | None:
        """What was made of the keys as they are now, the very object of the last call when nothing changed; None where there are
        none.

        Raises:
            StoreError: the store failed, the document is damaged or gone, or an older one has taken its place: that
                would make keys of those that were revoked since.
        """
        try:
            found = self._store.get_if_changed(ACCESS_KEYS, self._etag, max_bytes=MAX_BYTES)
        except ObjectNotFound:
            if self._made is None:
                return None
            raise StoreError(
                f"{self._store.url}/{ACCESS_KEYS} was there, and is not any more", remedy=_REMEDY
            ) from None
        if found is None:
            return self._made
        heading, keys = read_keys(found.data, where=f"{self._store.url}/{ACCESS_KEYS}")
        if self._made is not None and heading.generation < self._generation:
            raise StoreError(
                f"{self._store.url}/{ACCESS_KEYS} has generation {heading.generation}, older than {self._generation}",
                remedy=_REMEDY,
            )
        # Whole or not at all: half of the keys could be the wrong half.
        made = self._make(heading, keys)
        self._etag, self._generation, self._made = found.etag, heading.generation, made
        return made


class AccessReader(KeysFollower[PublishedKeys]):
    """Follows the published keys as they are."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store, lambda heading, keys: heading.model_copy(update={"keys": tuple(keys)}))


def read_keys(data: bytes, *, where: str) -> tuple[PublishedKeys, Iterator[PublishedKey]]:
    """A document without its keys, and these as they are read.

    Raises:
        StoreError: it is none; of a key that is none, when that is come to.
    """
    lines = io.BytesIO(data)
    first = lines.readline()
    if not first.endswith(_BEGIN):
        whole = PublishedKeys.parse(data, what=where, error=StoreError)  # as releases before this one wrote it
        return whole.model_copy(update={"keys": ()}), iter(whole.keys)
    heading = PublishedKeys.parse(first + _END, what=where, error=StoreError)
    return heading, _lines(lines, where=where)


def _lines(lines: io.BytesIO, *, where: str) -> Iterator[PublishedKey]:
    count = 0
    comma = True
    while (line := lines.readline()) and line != _END:
        count += 1
        if count > MAX_KEYS or not comma:
            raise StoreError(f"{where} is not valid: it has more than {MAX_KEYS} keys, or is damaged", remedy=_REMEDY)
        line = line.removesuffix(b"\n")
        comma = line.endswith(b",")
        yield PublishedKey.parse(line.removesuffix(b","), what=where, error=StoreError)
    if line != _END or lines.read(1) or (count and comma):
        raise StoreError(f"{where} is not valid: its end is missing", remedy=_REMEDY)


def parse_keys(data: bytes, *, where: str) -> PublishedKeys:
    """The keys of a document. Raises StoreError where it is none."""
    heading, keys = read_keys(data, where=where)
    return heading.model_copy(update={"keys": tuple(keys)})


_REMEDY = "Run `macrofleet keys publish`."
