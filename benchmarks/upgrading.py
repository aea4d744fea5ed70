"""A rehearsal of an upgrade and of going back: servers of two releases take turns over one store and one disk tier.

    python -m benchmarks.upgrading --old REVISION

The older release's code comes from this repository's history. Both servers' disk, store and feedback are the same; callers ask
the one that traffic is sent to without pause, and are turned to the next one when that is ready, as a proxy does. Before going
back, this release writes what operators write: a new version, limits, a holdback, a catalogue. Nothing may fail, the older
server has to follow what the newer release wrote, and every feedback that was answered has to be in the store at the end.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.fleets import publish_tenants, tenant_names
from flows.local_server import LocalServer, store_environment
from registry.catalogue import Macro, make_catalogue, read_catalogue, write_catalogue
from registry.feedback.records import Feedback, read_feedback
from registry.fleet.control import hold_back, limit
from registry.fleet.state import read_fleet
from registry.model.program import publish_program, read_spec
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store

_TENANTS = 12
_CALLERS = 4
_TICKET = {"ticket": {"id": "1", "subject": "My parcel has not arrived, where is it?"}}


class Callers:
    """Ask one address after the other without pause, from threads of their own, and count what is answered.

    Attributes:
        url: whom to ask; may be changed at any time.
        statuses: of suggestions and of feedback; "lost" where there was no answer.
        accepted: feedback by tenant that was answered with 202.
    """

    def __init__(self, url: str, tenants: list[str]) -> None:
        self.url = url
        self.statuses: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self._tenants = tenants
        self._stop = threading.Event()
        self._counting = threading.Lock()

    @contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(_CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _ask(self, number: int) -> None:
        turn = number
        connection, whose = None, ""
        while not self._stop.is_set():
            turn += 1
            tenant = self._tenants[turn % len(self._tenants)]
            if connection is None or whose != self.url:
                whose = self.url
                parts = urlsplit(whose)
                connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
            told = {
                "suggestion_id": f"s{number}-{turn}",
                "applied": "m1",
                "shown": ["m1"],
                "event_id": f"e{number}-{turn}",
            }
            status = _post(connection, f"/v1/tenants/{tenant}/suggestions", _TICKET)
            heard = _post(connection, f"/v1/tenants/{tenant}/feedback", told) if turn % 8 == 0 else ""
            with self._counting:
                self.statuses[f"suggestions {status}"] += 1
                if heard:
                    self.statuses[f"feedback {heard}"] += 1
                    self.accepted[tenant] += heard == "202"


def _post(connection: http.client.HTTPConnection, path: str, body: Mapping[str, object]) -> str:
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except (OSError, http.client.HTTPException) as problem:
        connection.close()
        return f"lost ({type(problem).__name__})"


def rehearse(old: Path, program: Path, folder: Path, *, seconds: float) -> dict[str, object]:
    """Upgrade, go on, go back.

    Args:
        old: the older release's code.
        program: `bag`, exported.
        seconds: under load after each change.

    Returns:
        What the report says; `failed` and `not_followed` have to be empty.
    """
    settings = StoreSettings(url=str(folder / "store"))
    store = open_store(settings)
    tenants = tenant_names(_TENANTS)
    digest = publish_program(store, program)
    publish_tenants(store, tenants, program=digest, spec=read_spec(program), seed=1)
    environment = {
        **store_environment(settings),
        "MACROFLEET_DISK_FOLDER": str(folder / "disk"),
        "MACROFLEET_ACCESS": "open",
        "MACROFLEET_TRUSTED_PROGRAMS": digest,
        "MACROFLEET_SIGNING_KEY": "0123456789abcdef0123456789abcdef",
        "MACROFLEET_FLEET_POLL_SECONDS": "0.5",
        "MACROFLEET_REQUEST_TIMEOUT_MS": "10000",
        "PYTHONPATH": "",
    }

    def server(name: str, code: Path) -> LocalServer:
        (folder / name).mkdir()
        return LocalServer(folder / name, environment, code=code)

    new = Path(__file__).parents[1]
    with ExitStack() as stack:
        before = stack.enter_context(server("old", old))
        callers = Callers(before.url, tenants)
        with callers.asking():
            time.sleep(seconds)
            upgraded = stack.enter_context(server("new", new))
            callers.url = upgraded.url
            before.stop()
            _write_as_operators_do(store, tenants, digest, program)
            time.sleep(seconds)
            after = stack.enter_context(server("old-again", old))
            callers.url = after.url
            upgraded.stop()
            time.sleep(seconds)
            followed = _versions(after.url, tenants)
    wanted = {tenant: entry.version for tenant, entry in read_fleet(store).entries.items()}
    kept = {tenant: sum(isinstance(one, Feedback) for one in read_feedback(store, tenant)) for tenant in tenants}
    failed = {status: count for status, count in callers.statuses.items() if not status.endswith((" 200", " 202"))}
    return {
        "answers": dict(callers.statuses),
        "failed": failed,
        "not_followed": {tenant: told for tenant, told in followed.items() if told != wanted[tenant]},
        "feedback_accepted": sum(callers.accepted.values()),
        "feedback_lost": sum((callers.accepted - Counter(kept)).values()),
    }


def _write_as_operators_do(store: ObjectStore, tenants: list[str], digest: str, program: Path) -> None:
    """Everything that this release writes and the other one will read."""
    publish_tenants(store, tenants[:3], program=digest, spec=read_spec(program), seed=2)
    limit(store, tenants[3:5], concurrency=32, requests_per_second=100_000)
    hold_back(store, tenants[4:6], 0.1)
    found = read_catalogue(store, tenants[6])
    macros = [Macro(id=f"m{number}", title=f"Renamed {number}") for number in range(5)]
    write_catalogue(store, tenants[6], make_catalogue(macros), etag=found[1] if found else None)


def _versions(url: str, tenants: list[str]) -> dict[str, str]:
    parts = urlsplit(url)
    found = {}
    for tenant in tenants:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        connection.request(
            "POST", f"/v1/tenants/{tenant}/suggestions", json.dumps(_TICKET), {"Content-Type": "application/json"}
        )
        answer = json.loads(connection.getresponse().read())
        found[tenant] = str(answer.get("model_version") or answer.get("detail"))
        connection.close()
    return found


def main() -> None:
    """Rehearse, print the report, and exit with 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="a revision of this repository: a tag or a commit")
    parser.add_argument("--seconds", type=float, default=5.0, help="under load after each change")
    given = parser.parse_args()
    from registry.model.runtime import limit_threads

    limit_threads()
    from training.programs.export import build_program

    with tempfile.TemporaryDirectory(prefix="macrofleet-upgrade-") as name:
        folder = Path(name)
        archive = subprocess.run(
            ["git", "archive", given.old],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            check=True,
        )
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder / "code", filter="data")
        build_program("bag", folder / "bag")
        report = rehearse(folder / "code", folder / "bag", folder, seconds=given.seconds)
    print(json.dumps({"old": given.old, **report}, indent=1))  # noqa: T201
    sys.exit(0 if not (report["failed"] or report["not_followed"] or report["feedback_lost"]) else 1)


if __name__ == "__main__":
    main()
