"""The local S3 server itself; what it stores is covered by the contract of the stores."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import registry
from registry import seaweedfs
from registry.errors import StoreUnavailable
from registry.seaweedfs import LocalS3
from registry.store import open_store

PARENT = """
import sys
from pathlib import Path
from registry.seaweedfs import LocalS3

with LocalS3(Path(sys.argv[1]), detach=sys.argv[2] == "detach") as server:
    print(server.pid, server.endpoint_url, flush=True)
    sys.stdin.read()
"""


def listens(url: str) -> bool:
    address = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((address.hostname, address.port)) == 0


def goes_down(url: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not listens(url):
            return True
        threading.Event().wait(0.05)
    return False


def test_two_servers_run_at_once_and_are_apart(s3_server: LocalS3, tmp_path: Path) -> None:
    one = open_store(s3_server.settings)
    one.put("shared-name", b"one")
    with LocalS3(tmp_path / "other", bucket="another-bucket") as server:
        assert server.pid != s3_server.pid
        assert server.settings.url == "s3://another-bucket"
        assert server.settings.secret_key != s3_server.settings.secret_key
        other = open_store(server.settings)
        assert list(other.list()) == []  # and the probe of the start is gone
        other.put("shared-name", b"other")
        assert one.get("shared-name").data == b"one"
        url = server.endpoint_url
    assert not listens(url)
    assert one.get("shared-name").data == b"one"
    one.delete("shared-name")


def test_a_folder_keeps_its_objects_and_its_secrets(tmp_path: Path) -> None:
    server = LocalS3(tmp_path)
    with server:
        first = server.settings
        open_store(first).put("a/b", b"1")
    with pytest.raises(StoreUnavailable, match="not running"):
        _ = server.settings
    server.stop()
    with server:
        assert server.settings.secret_key == first.secret_key
        assert open_store(server.settings).get("a/b").data == b"1"

    assert stat.S_IMODE((tmp_path / "s3.json").stat().st_mode) == 0o600
    assert first.secret_key is not None
    assert first.secret_key.get_secret_value() not in server.log.read_text()
    assert not [
        path for path in Path("/tmp").glob("seaweedfs-*.sock") if str(urlsplit(first.endpoint_url).port) in path.name
    ]


def test_a_port_that_somebody_took_meanwhile_costs_another_try(
    s3_server: LocalS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = seaweedfs._free_ports
    taken = urlsplit(s3_server.endpoint_url).port
    choices = [{**choose(), "s3.port": taken}, choose()]
    monkeypatch.setattr(seaweedfs, "_free_ports", lambda: choices.pop(0))
    with LocalS3(tmp_path) as server:
        assert urlsplit(server.endpoint_url).port != taken
        assert choices == []


def test_a_server_that_does_not_come_up_says_where_its_log_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    false = tmp_path / "false"
    false.write_text("#!/bin/sh\necho no luck >&2\nexit 1\n")
    false.chmod(0o755)
    monkeypatch.setattr("registry.seaweedfs._binary", lambda: false)
    with pytest.raises(StoreUnavailable, match=r"weed\.log"):
        LocalS3(tmp_path / "server").start()
    assert "no luck" in (tmp_path / "server" / "weed.log").read_text()


def test_a_detached_server_is_stopped_when_its_context_fails(tmp_path: Path) -> None:
    server = LocalS3(tmp_path, detach=True)
    try:
        with suppress(KeyboardInterrupt), server:
            url = server.endpoint_url
            raise KeyboardInterrupt
        assert not listens(url)
    finally:
        server.stop()


@pytest.mark.parametrize("mode", ["attached", "detach"])
def test_only_a_detached_server_outlives_its_parent(tmp_path: Path, mode: str) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path), mode]
    project = Path(registry.__file__).parent.parent
    with subprocess.Popen(command, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().decode().split()
        try:
            assert listens(url)
            if mode == "attached":
                parent.kill()  # what no handler and no context manager sees
                assert goes_down(url, 20)
            else:
                parent.communicate()
                assert not goes_down(url, 3)
        finally:
            parent.kill()
            if listens(url):
                os.killpg(int(pid), signal.SIGTERM)
    assert goes_down(url, 20)
