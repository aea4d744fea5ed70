"""SeaweedFS as infra/compose.yaml starts it: who may do what in the store, asked of the real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import stamina
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from registry.leash import leash
from registry.seaweedfs import _binary
from tests.infra.composition import Composition, load_script
from tests.infra.images import INFRA
from tests.infra.store_rights import FEEDBACK, READERS, WHO, WRITERS
from tests.ports import free_ports

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MAKE_SECRETS = load_script(INFRA / "compose" / "make_secrets.py")
BUCKETS = load_script(INFRA / "compose" / "buckets.py")
PLACE = MAKE_SECRETS.PREFIX


class Server:
    """A SeaweedFS, and clients of it."""

    def __init__(self, port: int, secrets: Path) -> None:
        self.port = port
        self._identities = {each["name"]: each for each in json.loads((secrets / "s3.json").read_text())["identities"]}
        self._clients: dict[str, S3Client] = {}

    def client(self, who: str) -> S3Client:
        if who not in self._clients:
            self._clients[who] = self._connect(who)
        return self._clients[who]

    def _connect(self, who: str) -> S3Client:
        (keys,) = self._identities[who]["credentials"]
        return boto3.session.Session().client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=keys["accessKey"],
            aws_secret_access_key=keys["secretKey"],
            config=Config(retries={"total_max_attempts": 1}, proxies={}, connect_timeout=1, read_timeout=5),
        )


def command(service_command: list[str], folder: Path, secrets: Path, ports: list[int]) -> list[str]:
    """The service's, on this machine's folders, loopback and free ports."""
    master, volume, filer, s3 = ports
    replaced = {
        "-dir=/data": f"-dir={folder}",
        "-s3.config=/run/secrets/s3.json": f"-s3.config={secrets / 's3.json'}",
        "-s3.ip.bind=0.0.0.0": "-s3.ip.bind=127.0.0.1",
        "-s3.port=8333": f"-s3.port={s3}",
    }
    assert set(replaced) <= set(service_command)
    words = [replaced.get(word, word) for word in service_command]
    return [str(_binary()), *words, f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    secrets, folder = tmp_path_factory.mktemp("secrets"), tmp_path_factory.mktemp("seaweedfs")
    MAKE_SECRETS.write_all(MAKE_SECRETS._Book(secrets))
    ports = free_ports(4, above=10_000)  # where SeaweedFS has its gRPC
    words = command(Composition.read(secrets).services["seaweedfs"].spec["command"], folder, secrets, ports)
    environment = {"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.environ["PATH"]}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*leash(), *words], stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
        )
    made = Server(ports[-1], secrets)
    try:
        admin = made.client("admin")
        for attempt in stamina.retry_context(on=(BotoCoreError, ClientError), timeout=60, attempts=None, wait_max=0.5):
            with attempt:
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                with suppress(ClientError):  # it may be there from the time before
                    admin.create_bucket(Bucket=BUCKETS.BUCKETS[0])
                admin.put_object(Bucket=BUCKETS.BUCKETS[0], Key="probe", Body=b"")
        yield made
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def buckets(server: Server) -> str:
    """The bucket of models, made by the script as the job has it, twice."""
    (keys,) = server._identities["admin"]["credentials"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", keys["accessKey"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", keys["secretKey"])
        BUCKETS.main()
        BUCKETS.main()
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
