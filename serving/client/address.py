"""Where a client's API key may be sent, and what can be one. No I/O."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from registry.errors import InvalidInput

_KEY = re.compile(r"[\x21-\x7e]{1,512}")


def check_base_url(url: str, *, insecure: bool) -> str:
    """`url` without a slash at its end.

    Args:
        url: of a server, or of what stands in front of it; may have a path.
        insecure: whether plain HTTP may leave this machine, and the API key with it.

    Raises:
        InvalidInput: it is no address, or one that the key may not be sent to.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"} or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput(
            "the base URL is no http or https address", remedy="Write it like https://suggestions.example.com."
        )
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise InvalidInput(
            "the base URL has a user, a query or a fragment",
            remedy="Give scheme, host and perhaps port and path; the API key is an argument of its own.",
        )
    if parts.scheme == "http" and not insecure and not _is_loopback(host):
        raise InvalidInput(
            f"plain http to {host} would send the API key over the network as it is",
            remedy="Use https; or insecure=True, on a network that is itself trusted.",
        )
    return url.rstrip("/")


def check_key(key: str | None) -> str:
    """The key without the line's end that a file has.

    Raises:
        InvalidInput: there is none, or it can be none. The error does not say it.
    """
    key = (key or "").strip()
    if not key:
        raise InvalidInput("there is no API key", remedy="Give api_key, or set MACROFLEET_API_KEY.")
    if not _KEY.fullmatch(key):
        raise InvalidInput(
            "the API key has characters that no key has", remedy="Give it as `macrofleet keys create` printed it."
        )
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
