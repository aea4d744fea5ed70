"""SeaweedFS as infra/compose.yaml starts it, on this machine's loopback and free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
import stamina
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from registry.leash import leash
from registry.seaweedfs import _binary
from tests.infra.composition import Composition, load_script
from tests.infra.images import INFRA
from tests.ports import free_ports

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MAKE_SECRETS = load_script(INFRA / "compose" / "make_secrets.py")
BUCKETS = load_script(INFRA / "compose" / "buckets.py")


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

    def keys(self, who: str) -> tuple[str, str]:
        """An identity's."""
        (keys,) = self._identities[who]["credentials"]
        return keys["accessKey"], keys["secretKey"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make_buckets(self) -> None:
        """By the script, as the job has it."""
        access, secret = self.keys("admin")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL_S3", self.url)
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            patch.setenv("AWS_ACCESS_KEY_ID", access)
            patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
            BUCKETS.main()

    def _connect(self, who: str) -> S3Client:
        access, secret = self.keys(who)
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=access,
            aws_secret_access_key=secret,
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


@contextmanager
def composed_store(secrets: Path, folder: Path) -> Iterator[Server]:
    """The server, with secrets that are made.

    Args:
        secrets: where those are put.
        folder: for what it keeps.
    """
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
