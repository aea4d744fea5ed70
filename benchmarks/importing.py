"""`macrofleet bench import`: tickets with their audits out of a stand-in for Zendesk, without a rate limit."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.processes import processor_seconds, usage
from benchmarks.verdicts import Bound, judge
from benchmarks.zendesk_server import EMAIL, TOKEN
from registry.console_output import Step
from registry.store.local import LocalStore
from training.connectors.client import HelpDesk
from training.connectors.pace import Pace
from training.connectors.zendesk import credentials
from training.connectors.zendesk_sync import SyncOptions, ZendeskSync
from training.lake import Lake

BOUNDS = {
    "tickets_per_second": Bound(at_least=1000),
    "memory_growth_mb": Bound(at_most=32),
    "missing": Bound(at_most=0),
    "added_again": Bound(at_most=0),
}
# Of the tickets; before that, what grows are pools, caches and connections.
_WARM = 0.2


def measure_import(*, tickets: int, threads: int, step: Step) -> dict[str, Any]:
    """Import an account of made-up tickets, nine in ten with a macro, each with four audits; masking is on.

    Server and importer are processes of their own on the same cores; the store is a local folder.

    Returns:
        `tickets_per_second`: from the first request to the last example in the lake; `memory_growth_mb`: of the importer's
        anonymous memory, from a fifth of the audits on to the most it had; `missing`: tickets with a macro and without an
        example; `added_again`: examples that a second import of everything adds or changes.
    """
    memory: list[tuple[float, int]] = []

    def watched(text: str, share: float) -> None:
        memory.append((share, usage(os.getpid()).anonymous))
        step(text, 0.9 * share)

    with tempfile.TemporaryDirectory(prefix="macrofleet-import-") as folder, _account(tickets) as url:
        store = LocalStore(Path(folder))
        before = processor_seconds(os.getpid())
        first = _run(store, url, threads, watched)
        processor = processor_seconds(os.getpid()) - before
        examples = {example.ticket_id for example in Lake(store).read(_TENANT)}
        missing = sum(bool(number % 10) and str(number) not in examples for number in range(1, tickets + 1))
        step("importing everything again", 0.9)
        for key in [found.key for found in store.list() if "/sync/" in found.key]:
            store.delete(key)
        second = _run(store, url, threads, lambda _text, _share: None)
    warm = [value for share, value in memory if share >= _WARM]
    figures = {
        "tickets_per_second": round(tickets / first["seconds"], 1),
        "memory_growth_mb": round((max(warm) - warm[0]) / 1e6, 1),
        "missing": missing,
        "added_again": second["added"] + second["changed"] + second["removed"],
    }
    return {
        "bench": "import",
        **figures,
        **judge(figures, BOUNDS),
        "importer_processor_seconds": round(processor, 2),
        "first": first,
        "second": second,
        "settings": {"tickets": tickets, "threads": threads, "store": "local folder"},
        "machine": describe_machine(),
    }


_TENANT = "bench"


def _run(store: LocalStore, url: str, threads: int, step: Step) -> dict[str, Any]:
    options = SyncOptions(since=0, rate=0, threads=threads)
    with HelpDesk(url, credentials(TOKEN, EMAIL)) as desk:
        run = ZendeskSync(store, _TENANT, desk, account="bench", options=options, exports=Pace(None), step=step)
        return run.run().as_dict()


@contextmanager
def _account(tickets: int) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.zendesk_server", str(tickets)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()
