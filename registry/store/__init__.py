"""Object stores: one port, two adapters (a local folder, S3)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from registry.errors import InvalidInput
from registry.store.port import (
    MAX_KEY_LENGTH,
    URL_REMEDY,
    ObjectInfo,
    ObjectState,
    ObjectStore,
    StoredObject,
    check_key,
    is_key,
)

if TYPE_CHECKING:
    from registry.settings import StoreSettings

__all__ = [
    "MAX_KEY_LENGTH",
    "ObjectInfo",
    "ObjectState",
    "ObjectStore",
    "StoredObject",
    "check_key",
    "is_key",
    "open_store",
]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_store(settings: StoreSettings, *, patient: bool = True) -> ObjectStore:
    """The store that the settings name. Nothing is read, written or connected to yet.

    Args:
        patient: False gives up soon, for who has another store to ask.

    Raises:
        InvalidInput: the URL names no store, or one of the two keys is missing.
    """
    url = settings.url
    if "://" not in url:
        if not url.strip():
            raise InvalidInput("the store's URL is empty", remedy=URL_REMEDY)
        return _open_folder(Path(url))
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidInput("the store's URL is malformed", remedy=URL_REMEDY) from error
    if "@" in parts.netloc or parts.query or parts.fragment:
        # The URL is not repeated here: what stands before an @ is often a password.
        raise InvalidInput("the store's URL holds more than a bucket and a prefix", remedy=URL_REMEDY)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.strip("/"):
        return _open_folder(Path(unquote(parts.path)))
    if parts.scheme == "s3" and _BUCKET.fullmatch(parts.netloc):
        return _open_bucket(parts.netloc, parts.path.strip("/"), settings, patient=patient)
    raise InvalidInput(f"{url!r} names no store", remedy=URL_REMEDY)


def _open_folder(root: Path) -> ObjectStore:
    from registry.store.local import LocalStore

    return LocalStore(root.expanduser())


def _open_bucket(bucket: str, prefix: str, settings: StoreSettings, *, patient: bool) -> ObjectStore:
    if prefix:
        try:
            check_key(prefix)
        except InvalidInput as error:
            raise InvalidInput(f"{prefix[:80]!r} cannot be a store's prefix", remedy=URL_REMEDY) from error
    if (settings.access_key is None) != (settings.secret_key is None):
        raise InvalidInput(
            "only one of the store's two keys is set",
            remedy="Set both MACROFLEET_STORE_ACCESS_KEY and MACROFLEET_STORE_SECRET_KEY, or neither.",
        )
    if settings.endpoint_url is not None and not _is_endpoint(settings.endpoint_url):
        raise InvalidInput(
            "the store's endpoint is not a plain http(s) address",
            remedy="Set MACROFLEET_STORE_ENDPOINT_URL to something like http://127.0.0.1:8333, without credentials.",
        )
    from registry.store.s3 import S3Store  # here: boto3 takes a fifth of a second to import

    return S3Store(
        bucket,
        prefix,
        endpoint_url=settings.endpoint_url,
        region=settings.region,
        access_key=settings.access_key,
        secret_key=settings.secret_key,
        patient=patient,
    )


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc and not parts.query
