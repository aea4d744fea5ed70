"""SeaweedFS as infra/compose.yaml starts it: who may do what in the store, asked of the real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.infra.composed_store import BUCKETS, MAKE_SECRETS, Server, composed_store
from tests.infra.store_rights import FEEDBACK, READERS, WHO, WRITERS

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PLACE = MAKE_SECRETS.PREFIX


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with composed_store(tmp_path_factory.mktemp("secrets"), tmp_path_factory.mktemp("seaweedfs")) as started:
        yield started


@pytest.fixture(scope="module")
def buckets(server: Server) -> str:
    """The bucket of models, made by the script as the job has it, twice."""
    server.make_buckets()
    server.make_buckets()
    for key in WRITERS:
        server.client("admin").put_object(Bucket=MAKE_SECRETS.BUCKET, Key=f"{PLACE}/{key}", Body=b"as it was")
    return str(MAKE_SECRETS.BUCKET)


def allowed(client: S3Client, operation: str, **arguments: Any) -> bool:
    """Whether a request is let through. Raises what else it fails of."""
    try:
        getattr(client, operation)(**arguments)
    except ClientError as problem:
        if problem.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
            return False
        raise
    return True


def test_the_bucket_of_models_keeps_versions(server: Server, buckets: str) -> None:
    assert server.client("admin").get_bucket_versioning(Bucket=buckets)["Status"] == "Enabled"
    assert {each["Name"] for each in server.client("admin").list_buckets()["Buckets"]} >= set(BUCKETS.BUCKETS)


@pytest.mark.parametrize("who", WHO)
def test_who_writes_where(server: Server, buckets: str, who: str) -> None:
    client = server.client(who)
    wrote = {
        key for key in WRITERS if allowed(client, "put_object", Bucket=buckets, Key=f"{PLACE}/{key}", Body=who.encode())
    }
    assert wrote == {key for key, writers in WRITERS.items() if who in writers}


@pytest.mark.parametrize("who", WHO)
def test_who_reads_what(server: Server, buckets: str, who: str) -> None:
    client = server.client(who)
    read = {key for key in READERS if allowed(client, "get_object", Bucket=buckets, Key=f"{PLACE}/{key}")}
    assert read == {key for key, readers in READERS.items() if who in readers}


@pytest.mark.parametrize("who", WHO)
def test_nobody_leaves_the_prefix_or_reaches_mlflows_bucket(server: Server, buckets: str, who: str) -> None:
    client = server.client(who)
    assert not allowed(client, "put_object", Bucket=buckets, Key="elsewhere/fleet/root.json", Body=b"")
    assert not allowed(client, "put_object", Bucket="mlflow", Key="x", Body=b"")
    assert not allowed(client, "list_objects_v2", Bucket="mlflow")
    assert not allowed(client, "create_bucket", Bucket="another")


def test_what_is_missing_is_not_there_rather_than_forbidden(server: Server, buckets: str) -> None:
    """A tenant without settings of its own is not one that cannot be read."""
    with pytest.raises(ClientError) as raised:
        server.client("serving").get_object(Bucket=buckets, Key=f"{PLACE}/tenants/globex/settings.json")
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_servers_remove_all_versions_of_feedback_on_who_was_deleted(server: Server, buckets: str) -> None:
    client = server.client("serving")
    key = f"{PLACE}/{FEEDBACK}"
    versions = client.list_object_versions(Bucket=buckets, Prefix=key)["Versions"]
    assert versions
    client.list_multipart_uploads(Bucket=buckets, Prefix=key)
    objects: Any = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in versions]
    assert "Errors" not in client.delete_objects(Bucket=buckets, Delete={"Objects": objects, "Quiet": True})
    assert "Versions" not in client.list_object_versions(Bucket=buckets, Prefix=key)


def test_mlflow_has_its_own_bucket_alone(server: Server, buckets: str) -> None:
    client = server.client("mlflow")
    assert allowed(client, "put_object", Bucket="mlflow", Key="artifacts/x", Body=b"")
    assert allowed(client, "get_object", Bucket="mlflow", Key="artifacts/x")
    assert not allowed(client, "get_object", Bucket=buckets, Key=f"{PLACE}/fleet/root.json")
    assert not allowed(client, "put_object", Bucket=buckets, Key=f"{PLACE}/fleet/root.json", Body=b"")
