"""Where a help desk may be: on its own host over https, or a stand-in on this machine."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from registry.errors import InvalidInput

_SUBDOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PORTS = {"https": 443, "http": 80}


def help_desk_address(subdomain: str, domain: str, *, base_url: str | None = None, allow_http: bool = False) -> str:
    """`https://SUBDOMAIN.DOMAIN`, or the stand-in's address.

    Args:
        subdomain: of the account; letters, digits and hyphens, so that it cannot name another host.
        domain: the help desk's, such as `zendesk.com`.
        base_url: of a stand-in, instead; on loopback, unless `allow_http`. It is sent the credentials.

    Raises:
        InvalidInput: it is none of them.
    """
    if not _SUBDOMAIN.fullmatch(subdomain):
        raise InvalidInput(
            f"{subdomain[:80]!r} is no subdomain",
            remedy=f"Write S where the help desk's address is https://S.{domain}.",
        )
    if base_url is None:
        return f"https://{subdomain}.{domain}"
    scheme, netloc, host = _parts(base_url)
    if not allow_http and not _is_loopback(host):
        raise InvalidInput(
            "the base URL is not on this machine",
            remedy="It would be sent the account's credentials: give --allow-http where that is meant.",
        )
    return f"{scheme}://{netloc}"


def own_address(base_url: str, *, allow_http: bool = False) -> str:
    """The address of a help desk that people run themselves: https, or http on loopback or where `allow_http`.

    Raises:
        InvalidInput: it is none.
    """
    scheme, netloc, host = _parts(base_url)
    if scheme != "https" and not allow_http and not _is_loopback(host):
        raise InvalidInput(
            "the base URL is not https",
            remedy="The credentials would be read on the way: give --allow-http where that is meant.",
        )
    return f"{scheme}://{netloc}"


def _parts(base_url: str) -> tuple[str, str, str]:
    """Scheme, host with port, and host."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0 and not parts.query
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.path not in {"", "/"} or parts.fragment:
        raise InvalidInput("the base URL is none", remedy="Write it like http://127.0.0.1:8080.")
    return parts.scheme, parts.netloc, parts.hostname or ""


def check_same_host(base: str, url: str) -> str:
    """A further page's address, if it is where the first one was.

    Raises:
        InvalidInput: it is another host, scheme or port.
    """
    try:
        one, other = urlsplit(base), urlsplit(url)
        same = _origin(one.scheme, one.hostname, one.port) == _origin(other.scheme, other.hostname, other.port)
        same = same and "@" not in other.netloc
    except ValueError:
        same = False
    if not same:
        raise InvalidInput(
            "the help desk names a further page on another host",
            remedy="It was not followed. Report it to the help desk.",
        )
    return url


def _origin(scheme: str, host: str | None, port: int | None) -> tuple[str, str | None, int | None]:
    return scheme, host, port or _PORTS.get(scheme)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
