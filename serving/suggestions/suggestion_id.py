"""The id of a suggestion: what feedback refers to. No I/O.

`s1_` and 22 characters: base64url of a 128-bit BLAKE2b, keyed with the servers' signing key, over everything that makes one
suggestion differ from another. So the same answer to the same ticket has the same id on every replica that shares the key
and after every restart, two answers that differ have two, and nobody without the key can make one up.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from pydantic_core import to_json

_PREFIX = "s1_"
_BYTES = 16
_PERSON = b"macrofleet-sid-1"


def suggestion_id(
    key: bytes,
    *,
    tenant: str,
    ticket: str | None,
    text: str,
    revision: int,
    version: str,
    policy: str,
    macros: Sequence[str],
) -> str:
    """The id of an answer.

    Args:
        key: the signing key, of any length.
        tenant: whose answer it is.
        ticket: the ticket's id; None takes the digest of `text` in its stead.
        text: what the model read.
        revision: of the ticket.
        version: of the model: the beginning of its manifest's digest.
        policy: `serving.suggestions.policy.Policy.version`, the state of catalogue and settings.
        macros: ids of what is shown, best first.
    """
    if len(key) > hashlib.blake2b.MAX_KEY_SIZE:
        key = hashlib.blake2b(key).digest()
    digest = hashlib.blake2b(text.encode(), digest_size=_BYTES).hexdigest() if ticket is None else None
    said = to_json([tenant, ticket, digest, revision, version, policy, macros])
    made = hashlib.blake2b(said, digest_size=_BYTES, key=key, person=_PERSON).digest()
    return _PREFIX + base64.urlsafe_b64encode(made).rstrip(b"=").decode()
