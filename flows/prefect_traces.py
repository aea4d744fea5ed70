"""A tenant's traces in Prefect: the artifacts that are its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.exceptions import ObjectNotFound

from registry.documents import sha256
from registry.errors import SchedulerUnavailable
from registry.names import check_tenant

if TYPE_CHECKING:
    from prefect.client.schemas.objects import Artifact

_PAGE = 200


def tenant_artifact_key(tenant: str) -> str:
    """The key of a tenant's artifacts. Prefect takes no `_`, and two tenants must not have one key.

    Example:
        >>> tenant_artifact_key("acme"), tenant_artifact_key("a_b")
        ('tenant-acme', 'named-a-b-648fa9b3')
    """
    if "_" not in check_tenant(tenant):
        return f"tenant-{tenant}"
    return f"named-{tenant.replace('_', '-')}-{sha256(tenant.encode())[:8]}"


class PrefectPlace:
    """The artifacts of a tenant in the Prefect server of the environment, or in the one that flows without it use.

    What runs say of several tenants (their tables, parameters and logs) is Prefect's to forget, by its own retention.
    """

    name = "prefect"
    remedy = "A run wrote it meanwhile: run it again."

    def remove(self, tenant: str) -> int:
        """Delete every artifact with the tenant's key."""
        with _client() as client:
            found = list(_artifacts(client, tenant))
            for artifact in found:
                with suppress(ObjectNotFound):
                    client.delete_artifact(artifact.id)
        return len(found)

    def find(self, tenant: str) -> list[str]:
        """The artifacts with the tenant's key."""
        with _client() as client:
            return [f"artifact {artifact.id} ({artifact.key})" for artifact in _artifacts(client, tenant)]


def _artifacts(client: SyncPrefectClient, tenant: str) -> Iterator[Artifact]:
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[tenant_artifact_key(tenant)]))
    offset = 0
    while page := client.read_artifacts(artifact_filter=wanted, limit=_PAGE, offset=offset):
        yield from page
        offset += len(page)


@contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    try:
        with get_client(sync_client=True) as client:
            yield client
    except (httpx.HTTPError, RuntimeError) as problem:
        raise SchedulerUnavailable(
            f"Prefect's server does not answer ({type(problem).__name__})",
            remedy="Check PREFECT_API_URL, and run it again.",
        ) from problem
