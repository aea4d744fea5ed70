"""What boto3's errors mean: the domain's, without anything that was signed."""

from __future__ import annotations

from botocore.exceptions import ClientError

from registry.errors import ObjectNotFound, PreconditionFailed, StoreError, StoreUnavailable
from registry.store.port import LOST_RACE

FAILING = "Check the server's health and log, then try again."
_WRONG_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})


class NotModified(StoreError):
    """A conditional GET's 304; never leaves the adapter."""


class Conflicting(PreconditionFailed):
    """Amazon's 409: another conditional write of the key is under way, and may yet come to nothing."""


class BrokenOff(StoreUnavailable):
    """The bytes of an object stopped coming; to everybody outside a StoreUnavailable like any other."""


def domain_error(error: Exception, key: str, *, url: str, endpoint_url: str | None) -> StoreError:
    """What boto3's error means here. Its own text stays out of the message: it may quote what was signed.

    Args:
        key: what was asked for.
        url, endpoint_url: of the store.
    """
    where = f"{url} at {endpoint_url or 'Amazon S3'}"
    if not isinstance(error, ClientError):
        return StoreUnavailable(
            f"{where} cannot be used ({type(error).__name__})",
            remedy="Check MACROFLEET_STORE_ENDPOINT_URL, the network and the credentials.",
        )
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return StoreUnavailable(
            f"{where}: there is no such bucket", remedy="Create it, or correct MACROFLEET_STORE_URL."
        )
    if status == 304:
        return NotModified(f"{key} in {where} has not changed")
    if status == 404:
        return ObjectNotFound(f"no object {key} in {where}")
    if status == 412 or code == "ConditionalRequestConflict":
        kind = PreconditionFailed if status == 412 else Conflicting
        return kind(f"{key} in {where} is not as its writer expected", remedy=LOST_RACE)
    failed = "failed at"
    remedy = FAILING
    if status in (401, 403):
        failed = "refuses these credentials for"
        remedy = "Check MACROFLEET_STORE_ACCESS_KEY, MACROFLEET_STORE_SECRET_KEY and what they permit."
    elif code in _WRONG_REGION:
        remedy = "Set MACROFLEET_STORE_REGION to the bucket's region."
    return StoreUnavailable(f"{where} {failed} {error.operation_name} ({status} {code})", remedy=remedy)
