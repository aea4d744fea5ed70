"""Where MLflow is and where it keeps artifacts: addresses checked before anything connects, passwords kept out of sight."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from registry.errors import InvalidInput

SQLITE = "sqlite:///"
_URI_REMEDY = (
    "Use sqlite:///path/to/mlflow.db, the http(s) address of a tracking server, or a database such as "
    "postgresql://user:password@host/mlflow."
)
_DATABASES = {"postgresql", "mysql", "mssql"}


def database_file(uri: str) -> Path | None:
    """The SQLite file that a tracking URI names; None for a server."""
    if uri.startswith(SQLITE):
        path = uri.removeprefix(SQLITE)
        if not path or path.endswith("/") or any(letter in path for letter in ":?#%"):
            raise InvalidInput("the tracking URI names no SQLite file", remedy=_URI_REMEDY)
        return Path(path).resolve()
    if not is_database(uri):
        _check_address(uri, "tracking URI", {"http", "https"}, remedy=_URI_REMEDY)
    return None


def is_database(uri: str) -> bool:
    """Whether a tracking URI names a database server, `dialect[+driver]://…/name`."""
    try:
        parts = urlsplit(uri)
        return parts.scheme.partition("+")[0] in _DATABASES and bool(parts.hostname) and len(parts.path) > 1
    except ValueError:
        return False


def without_password(uri: str) -> str:
    """A tracking URI as messages may show it: neither user nor password nor query."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def checked_location(location: str) -> str:
    """An artifact location as MLflow takes it, absolute."""
    remedy = "Use a folder, or a URI such as s3://bucket/prefix."
    if not location.strip():
        raise InvalidInput("the artifact location is empty", remedy=remedy)
    if location.startswith("file:///"):
        location = unquote(location.removeprefix("file://"))
    if "://" not in location:
        return Path(location).resolve().as_uri()
    _check_address(location, "artifact location", {"s3", "gs", "wasbs", "abfss"}, remedy=remedy)
    return location.rstrip("/")


def _check_address(uri: str, what: str, schemes: set[str], *, remedy: str) -> None:
    try:
        parts = urlsplit(uri)
        usable = parts.scheme in schemes and bool(parts.hostname)
    except ValueError:
        raise InvalidInput(f"the {what} is malformed", remedy=remedy) from None
    if parts.password is not None or parts.query or parts.fragment or (parts.username and parts.scheme != "abfss"):
        # Not repeated here: what stands before an @ is often a password.
        raise InvalidInput(
            f"the {what} holds credentials or a query",
            remedy="Give MLflow's credentials in its own variables (MLFLOW_TRACKING_USERNAME, AWS_ACCESS_KEY_ID …).",
        )
    if not usable:
        raise InvalidInput(f"{uri[:200]!r} is no {what}", remedy=remedy)
