"""A PostgreSQL server of the tests' own: Debian's package `postgresql`, a free port, a temporary folder."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Self

_HOST = "127.0.0.1"
_USER = "macrofleet"
_STOP_SECONDS = 30.0
_ATTEMPTS = 3
NOT_INSTALLED = "PostgreSQL is not installed: apt-get install postgresql"


def installed() -> bool:
    """Whether its server can be started here."""
    return _programs() is not None


class LocalPostgres:
    """A server that lives as long as the context; what it keeps goes with it.

    It refuses to run as root, so root starts it as the package's user, in a folder that is that user's.
    """

    def __init__(self) -> None:
        self.password = secrets.token_urlsafe(12)
        self._folder = Path(tempfile.mkdtemp(prefix="macrofleet-postgresql-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, on the port it had before if there was one, and return when it takes connections."""
        for _ in range(1 if self._port else _ATTEMPTS):  # somebody else may take the port meanwhile
            port = self._port or _free_port()
            with (self._folder / "log").open("ab") as log:
                options = {"listen_addresses": _HOST, "unix_socket_directories": self._folder, "fsync": "off"}
                command = [_program("postgres"), "-D", f"{self._folder}/data", "-p", str(port)]
                command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
                self._process = subprocess.Popen(
                    self._as_its_user(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            if self._ready(port):
                self._port = port
                return
            self.stop()
        raise AssertionError(f"PostgreSQL did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop it and end its connections; stopping twice does nothing."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def database(self, driver: str = "postgresql") -> str:
        """The address of a new, empty database."""
        name = f"test_{uuid.uuid4().hex}"
        self.run("createdb", "-h", _HOST, "-p", str(self._port), "-U", _USER, name)
        return f"{driver}://{_USER}:{self.password}@{_HOST}:{self._port}/{name}"

    def _initialise(self) -> None:
        password = self._folder / "password"
        password.write_text(self.password)
        if owner := _owner():
            for path in (self._folder, password):
                shutil.chown(path, owner.pw_uid, owner.pw_gid)
        self.run(
            "initdb", "-D", f"{self._folder}/data", "-U", _USER, "--auth=scram-sha-256", f"--pwfile={password}",
            "--encoding=UTF8", "--no-sync",
        )  # fmt: skip

    def _ready(self, port: int) -> bool:
        process = self._process
        assert process is not None
        command = [_program("pg_isready"), "-q", "-h", _HOST, "-p", str(port), "-t", "1"]
        for _ in range(300):
            if subprocess.run(command, check=False).returncode == 0:
                return True
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            return False
        return False

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs, which must succeed."""
        done = subprocess.run(
            self._as_its_user([_program(program), *arguments]),
            env={**os.environ, "PGPASSWORD": self.password, "LC_ALL": "C.UTF-8"},
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    @staticmethod
    def _as_its_user(command: list[str]) -> list[str]:
        """A server that is not stopped ends with the tests' process all the same."""
        owner = _owner()
        drop = [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"] if owner else []
        return ["setpriv", *drop, "--pdeathsig", "INT", *command]


def _owner() -> pwd.struct_passwd | None:
    """Whom root starts it as."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _programs() -> Path | None:
    """Where the newest version's programs are; Debian puts the server's on nobody's PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


def _program(name: str) -> str:
    folder = _programs()
    assert folder is not None, NOT_INSTALLED
    return str(folder / name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
