"""Services of infra/compose.yaml as processes of this machine: what a container engine would do with the file, without one.

Each service has a network of its own (`tests.workers.hosts`), in which it finds the others by the names that the file gives
them, and reaches those that it shares a network with in the file. It has a root of its own: an overlay over this machine's,
with volumes, secrets and `tmpfs` where the file mounts them, and read-only where it says so. Commands, variables, users,
health checks and what is waited for are the file's and those of the project's Dockerfiles. Programs are this machine's: those
of the environment that runs the tests stand in for our images, Debian's PostgreSQL and Prometheus and the wheels of SeaweedFS
and Envoy for those of others.

Needs root, `ip` and a kernel that has overlays.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import envoy

from registry.seaweedfs import _binary
from tests.infra.composition import Composition, Service
from tests.infra.images import INFRA, PROJECT, Image
from tests.workers.hosts import Hosts

_PATH = "/opt/macrofleet/bin:/usr/local/bin:/usr/bin:/bin"
# What PostgreSQL's image does before it starts its server, as far as the file makes use of it.
_POSTGRES = """
bin=$(ls -d /usr/lib/postgresql/*/bin | sort --version-sort | tail -1)
data=/var/lib/postgresql/data
if [ ! -s $data/PG_VERSION ]; then
    $bin/initdb -D $data -U postgres --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS --no-sync
    echo 'host all all all scram-sha-256' >> $data/pg_hba.conf
    $bin/pg_ctl -D $data -w -o "-c listen_addresses='' -c unix_socket_directories=/run/postgresql" start
    export PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"
    for script in /docker-entrypoint-initdb.d/*; do bash "$script"; done
    $bin/pg_ctl -D $data -w -m fast stop
fi
exec $bin/postgres -D $data -c listen_addresses='*' -c unix_socket_directories=/run/postgresql -c fsync=off
"""


@dataclass(frozen=True)
class _Foreign:
    """An image of somebody else's, by what of it is here.

    Attributes:
        entrypoint: what it puts before a service's command.
        user: whom it goes on as.
    """

    entrypoint: tuple[str, ...] = ()
    user: str = "10001:10001"


_OTHERS = {
    "postgres": _Foreign(("bash", "-ec", _POSTGRES), "postgres:postgres"),
    # It has five capabilities to begin with, and gives them up for a user of its own.
    "chrislusf/seaweedfs": _Foreign(("weed",)),
    "envoyproxy/envoy": _Foreign(),
    "prom/prometheus": _Foreign(("prometheus",), "nobody:nogroup"),
}


@dataclass
class Started:
    """A service that was started.

    Attributes:
        process: its first process.
        log: what it says.
        environment: what it was started with.
        user: whom it runs as.
    """

    process: subprocess.Popen[bytes]
    log: Path
    environment: Mapping[str, str]
    user: str

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]


@dataclass
class Composed:
    """The composition, as a context; leaving it ends everything.

    Args:
        composition: what is started of it is asked for with `up`.
        folder: for volumes, roots and logs.
        patience: seconds that one service may take to become healthy, or to end where it runs once.
    """

    composition: Composition
    folder: Path
    patience: float = 240.0
    _started: dict[str, Started] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _runs: int = 0

    def __enter__(self) -> Self:
        self.hosts = self._stack.enter_context(Hosts(sorted(self.composition.services)))
        services = self.composition.services.values()
        for service in services:
            self.hosts.forbid(service.name, [other.name for other in services if not other.networks & service.networks])
        names = {"localhost": "127.0.0.1"} | {
            name: self.hosts.addresses[service.name] for service in services for name in service.names
        }
        (self.folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in names.items()))
        return self

    def __exit__(self, *_: object) -> None:
        for started in reversed(self._started.values()):
            started.process.terminate()
        deadline = time.monotonic() + 15
        for started in self._started.values():
            with suppress(subprocess.TimeoutExpired):
                started.process.wait(max(0.0, deadline - time.monotonic()))
        self._stack.close()  # whoever still runs is killed with the namespaces
        for started in self._started.values():
            started.process.wait()

    def up(self, *names: str) -> None:
        """Start services, whom they wait for first, and return when all of `names` are healthy, or have ended well."""
        for name in names:
            self._start(name)
        for name in names:
            service = self.composition.services[name]
            self._wait(name, ended=service.spec.get("restart") == "no")

    def log(self, name: str) -> str:
        """The end of what a service said."""
        return self._started[name].said()

    def environment(self, name: str) -> dict[str, str]:
        """A service's variables, those of its image included."""
        service = self.composition.services[name]
        image = service.image
        own = image.final.pairs("ENV") if image else {}
        return {**own, **service.environment, "PATH": _PATH, "PYTHONPATH": "/opt/project", "LC_ALL": "C.UTF-8"}

    def run(
        self,
        *command: str,
        service: str = "command",
        entrypoint: Sequence[str] | None = None,
        mounted: Mapping[str, Path] | None = None,
        **changed: str | None,
    ) -> subprocess.CompletedProcess[str]:
        """`docker compose run --rm`: a command in the place of the service's own, and what came of it.

        Args:
            entrypoint: in the place of the service's.
            mounted: folders of this machine, by where they are to be read (`--volume`).
            changed: variables that are set otherwise, or, None, not at all.
        """
        before = entrypoint if entrypoint is not None else self.composition.services[service].spec.get("entrypoint", ())
        environment = {**self.environment(service), **{k: v for k, v in changed.items() if v is not None}}
        for name in [name for name, value in changed.items() if value is None]:
            environment.pop(name, None)
        self._runs += 1
        words, _ = self._words(service, [*before, *command], root=f"run-{self._runs}", mounted=mounted or {})
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, check=False, timeout=self.patience, stdin=subprocess.DEVNULL
        )  # fmt: skip

    def shared(self, volume: str) -> Path:
        """Where a volume is on this machine."""
        return self.folder / "volumes" / volume

    def _start(self, name: str) -> None:
        if name in self._started:
            return
        service = self.composition.services[name]
        wanted = service.spec.get("depends_on", {})
        conditions = {each: {} for each in wanted} if isinstance(wanted, list) else wanted
        for other, spec in conditions.items():
            if other == "grafana":  # there is none here
                continue
            self._start(other)
            condition = spec.get("condition", "service_started")
            if condition != "service_started":
                self._wait(other, ended=condition == "service_completed_successfully")
        entrypoint, command = list(service.spec.get("entrypoint", ())), list(service.spec.get("command", ()))
        image = service.image
        if image is not None:
            stage = image.final
            entrypoint = entrypoint or (stage.the("ENTRYPOINT").arguments if stage.every("ENTRYPOINT") else [])
            command = command or stage.the("CMD").arguments
        else:
            entrypoint = entrypoint or list(self._foreign(service).entrypoint)
        environment = self.environment(name)
        words, user = self._words(name, [*entrypoint, *(word.replace("$$", "$") for word in command)], root=name)
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            # As container engines do it: who opens /dev/stdout anew has to be its owner.
            _give(log, user)
            process = subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self._started[name] = Started(process, log, environment, user)

    def _wait(self, name: str, *, ended: bool) -> None:
        """Until a service has ended well, or is healthy by its own check."""
        started = self._started[name]
        if ended:
            assert started.process.wait(self.patience) == 0, f"{name}: {started.said()}"
            return
        check = self._health_check(self.composition.services[name])
        deadline = time.monotonic() + self.patience
        inside = ["nsenter", "--target", str(started.process.pid), "--mount", "--net", "--root", "env", "--chdir=/"]
        while True:
            assert started.process.poll() is None, f"{name} ended: {started.said()}"
            done = subprocess.run(
                [*inside, *_as(started.user), *check], env=started.environment, capture_output=True, check=False
            )
            if done.returncode == 0:
                return
            assert time.monotonic() < deadline, f"{name} is not healthy: {done.stderr.decode()} {started.said()}"
            time.sleep(0.5)

    @staticmethod
    def _health_check(service: Service) -> list[str]:
        if "healthcheck" in service.spec:
            kind, *words = service.spec["healthcheck"]["test"]
            assert kind == "CMD"
            return list(words)
        assert service.image is not None
        return service.image.final.the("HEALTHCHECK").arguments

    @staticmethod
    def _foreign(service: Service) -> _Foreign:
        return _OTHERS[service.spec["image"].rpartition(":")[0]]

    def _user(self, service: Service) -> str:
        image: Image | None = service.image
        if image is not None:
            return image.final.the("USER").rest
        named = service.spec.get("user")
        return named if named and ":" in named else self._foreign(service).user

    def _words(
        self, name: str, command: Sequence[str], *, root: str, mounted: Mapping[str, Path] | None = None
    ) -> tuple[list[str], str]:
        """A command as it is started in a service's network and root; and its user."""
        service = self.composition.services[name]
        user = self._user(service)
        image = service.image
        folder = image.final.every("WORKDIR")[-1] if image is not None and image.final.every("WORKDIR") else "/"
        script = "\n".join(["set -eu", *self._mounts(service, self.folder / "roots" / root, user, mounted or {})])
        inner = shlex.join(["env", "--chdir", folder, *_as(user), *command])
        script += f"\nexec /usr/sbin/chroot {shlex.quote(str(self.folder / 'roots' / root / 'root'))} {inner}"
        return self.hosts.command(name, "/bin/sh", "-c", script), user

    def _mounts(self, service: Service, base: Path, user: str, mounted: Mapping[str, Path]) -> list[str]:
        """What makes a service's root, in lines of a shell."""
        root = base / "root"
        base.mkdir(parents=True)

        def bound(source: Path | str, target: str, *, read_only: bool = False) -> list[str]:
            there = f"{root}{target}"
            made = f"mkdir -p {there}" if Path(source).is_dir() else f"mkdir -p {Path(there).parent} && touch {there}"
            lines = [made, f"mount --bind {source} {there}"]
            return [*lines, f"mount -o remount,bind,ro {there}"] if read_only else lines

        lines = [
            "mount --make-rprivate /",
            f"mount -t tmpfs tmpfs {base}",  # what changes in an overlay may not lie in what it is over
            f"mkdir {base}/upper {base}/work {root}",
            f"mount -t overlay overlay -o lowerdir=/,upperdir={base}/upper,workdir={base}/work {root}",
            # Where an interpreter may be that the images' users could not get to otherwise; in the overlay alone.
            f"chmod 0755 {root}/root",
            f"echo macrofleet:x:10001:10001::/var/lib/macrofleet:/usr/sbin/nologin >> {root}/etc/passwd",
            *(f"mount --rbind /{each} {root}/{each}" for each in ("proc", "dev", "sys")),
            f"cp {self.folder}/hosts {root}/etc/hosts",
            f"ln -sf {_binary()} {root}/usr/local/bin/weed",
            f"ln -sf {Path(envoy.__file__).parent}/_bin/envoy {root}/usr/local/bin/envoy",
            f"mkdir -p {root}/opt/macrofleet {root}/opt/project",
            f"mount --bind {sys.prefix} {root}/opt/macrofleet",
            f"mount --bind {PROJECT} {root}/opt/project",
        ]
        for entry in service.spec.get("tmpfs", ()):
            target, _, options = entry.partition(":")
            lines += [f"mkdir -p {root}{target}", f"mount -t tmpfs -o {options} tmpfs {root}{target}"]
        for entry in service.spec.get("secrets", ()):
            name, target = (
                (entry, f"/run/secrets/{entry}") if isinstance(entry, str) else (entry["source"], entry["target"])
            )
            file = Path(self.composition.document["secrets"][name]["file"]).name
            lines += bound(service.secrets / file, target, read_only=True)
        for volume in service.spec.get("volumes", ()):
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                lines += bound((INFRA / source).resolve(), target, read_only=mode == ["ro"])
                continue
            place = self.shared(source)
            if not place.exists():
                place.mkdir(parents=True)
                place.chmod(0o700)
                _give(place, user)
            lines += bound(place, target, read_only=mode == ["ro"])
        image = service.image
        if image is not None and image.volume not in {target for _, target in service.mounts}:
            # The image's own volume is then one without a name.
            unnamed, there = f"{base}/volume", f"{root}{image.volume}"
            lines += [f"install --directory --owner={user.partition(':')[0]} --mode=0700 {unnamed}"]
            lines += [f"mkdir -p {there}", f"mount --bind {unnamed} {there}"]
        for target, own in mounted.items():
            lines += bound(own, target, read_only=True)
        return [*lines, f"mount -o remount,ro {root}"] if service.spec.get("read_only") else lines


def _give(path: Path, user: str) -> None:
    who, group = (int(part) if part.isdigit() else part for part in user.split(":"))
    shutil.chown(path, who, group)


def _as(user: str) -> list[str]:
    """What gives up root: user, group, capabilities, and that there is no way back."""
    who, _, group = user.partition(":")
    return [
        "setpriv", f"--reuid={who}", f"--regid={group}", "--clear-groups", "--no-new-privs", "--bounding-set=-all",
        "--inh-caps=-all",
    ]  # fmt: skip


def available() -> bool:
    """Whether what stands in for the images of others is here."""
    postgres = any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return postgres and all(map(shutil.which, ("nsenter", "setpriv", "wget", "curl", "prometheus")))
