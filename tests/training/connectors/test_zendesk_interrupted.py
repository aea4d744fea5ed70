"""Runs that are ended from outside, as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import macrofleet
from benchmarks.zendesk_server import EMAIL, TOKEN, Fault, ZendeskServer
from registry.store.local import LocalStore
from tests.training.connectors.zendesk_world import small_account
from training.connectors.sync_state import SyncStore
from training.lake import Lake

PATIENCE_SECONDS = 60


@pytest.mark.usefixtures("heeding_ctrl_c")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["Ctrl-C", "SIGTERM", "SIGKILL"]
)
def test_a_run_that_is_ended_while_it_waits_is_gone_on_with(tmp_path: Path, number: signal.Signals) -> None:
    store = tmp_path / "store"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MACROFLEET_")} | {
        "PYTHONPATH": str(Path(macrofleet.__file__).parent),
        "MACROFLEET_ZENDESK_TOKEN": TOKEN,
        "MACROFLEET_ZENDESK_EMAIL": EMAIL,
    }
    with ZendeskServer(small_account(8)) as server:
        command = [
            sys.executable, "-m", "macrofleet", "--store", str(store), "tickets", "sync", "zendesk", "--tenant", "acme",
            "--subdomain", "shop", "--since", "2020-01-01", "--base-url", server.url, "--rate", "0", "--export-rate", "0",
            "--threads", "1", "--json",
        ]  # fmt: skip
        # The newest first: after three it is told to wait for ten minutes.
        server.fail("/api/v2/tickets/5/audits.json", [Fault(status=429, headers={"Retry-After": "600"})])
        running: list[subprocess.Popen[str]] = []

        def end(target: str) -> None:
            if "/tickets/5/" in target and running:
                running.pop().send_signal(number)

        server.on_request = end
        process = subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE)
        running.append(process)
        try:
            _, err = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()  # one that heeds no signal waits for ten minutes
        assert process.returncode != 0
        assert "Traceback" not in err
        state = SyncStore(LocalStore(store), "acme", "zendesk").load()
        assert state is not None
        assert len(state.read) == (0 if number == signal.SIGKILL else 1)
        done = subprocess.run(
            command, env=environment, text=True, capture_output=True, check=True, timeout=PATIENCE_SECONDS
        )
        report = json.loads(done.stdout)
        assert (report["added"], report["tickets"], report["waiting"]) == (8, 0, 0)
        assert report["audited"] == (8 if number == signal.SIGKILL else 5)
    assert len(Lake(LocalStore(store)).read("acme")) == 8
