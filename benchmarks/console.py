"""The console's first page over a large fleet, in Chromium: how long until something is painted, as the browser says."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.console_fleet import fill_store
from benchmarks.verdicts import Bound, judge
from registry.console_output import Step
from registry.database import DatabaseSettings, opened_database
from registry.errors import InvalidInput, NotReady
from registry.keys.book import KeyBook
from registry.store.local import LocalStore

EXECUTABLE = Path("/usr/bin/chromium")
FIRST_PAINT = Bound(at_most=1.0)
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_READY_SECONDS = 120.0
_PAINTED = """() => new Promise((resolve) => {
  const told = () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
  if (told()) resolve(told());
  new PerformanceObserver(() => told() && resolve(told())).observe({ type: "paint", buffered: true });
})"""
_ADDRESSES = {"first": "/", "sorted": "/?sort=top1&dir=desc", "searched": "/?q=books", "last": "/?page=9999"}


def measure_console(*, tenants: int, rounds: int, step: Step) -> dict[str, Any]:
    """First contentful paint of the overview and how long its page takes to make, in seconds.

    Each round is a new browser profile, so nothing is in its cache; the console has read the records of all trainings.

    Raises:
        InvalidInput: there is no Chromium here.
    """
    if not EXECUTABLE.exists():
        raise InvalidInput("there is no Chromium at /usr/bin/chromium", remedy="apt-get install chromium")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        step(f"making a fleet of {tenants} tenants", 0.0)
        fill_store(LocalStore(folder / "store"), tenants)
        database = f"sqlite:///{folder / 'macrofleet.db'}"
        with opened_database(DatabaseSettings.model_validate({"url": database})) as opened:
            key = KeyBook(opened).create(None, ["operator"])[0]
        environment = {
            **os.environ,
            "MACROFLEET_STORE_URL": str(folder / "store"),
            "MACROFLEET_DATABASE_URL": database,
            "MACROFLEET_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "MACROFLEET_SERVERS": "",
            "PREFECT_API_URL": "",
        }
        step("starting the console", 0.3)
        began = time.perf_counter()
        with (folder / "log").open("wb") as log:
            ready = folder / "address"
            command = [sys.executable, "-m", "macrofleet", "console", "--port", "0", "--ready-file", str(ready)]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                address = _address(process, ready)
                started = time.perf_counter() - began
                paints, reading = _paint(address, key, rounds, step)
                answers = _answers(address, key)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
    worst = round(max(paints), 3)
    return {
        "tenants": tenants,
        "rounds": rounds,
        "started_seconds": round(started, 2),
        "records_read_seconds": round(reading, 2),
        "first_contentful_paint_seconds": {"median": round(statistics.median(paints), 3), "worst": worst},
        "page_milliseconds": answers,
        **judge({"first_contentful_paint_seconds": worst}, {"first_contentful_paint_seconds": FIRST_PAINT}),
    }


def _address(process: subprocess.Popen[bytes], ready: Path) -> str:
    until = time.monotonic() + _READY_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > until:
            raise NotReady("the console did not start")
        time.sleep(0.02)
    return ready.read_text().strip()


def _paint(address: str, key: str, rounds: int, step: Step) -> tuple[list[float], float]:
    """Seconds to the first contentful paint of each round, and those until all records were read."""
    from playwright.sync_api import sync_playwright

    paints = []
    began = time.perf_counter()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(EXECUTABLE), args=_ARGUMENTS)
        waiting = browser.new_page(base_url=address)
        _sign_in(waiting, key)
        while waiting.get_by_text("are being read").count():
            time.sleep(0.05)
            waiting.goto("/")
        reading = time.perf_counter() - began
        for round_ in range(rounds):
            step(f"painting {round_ + 1} of {rounds}", 0.5 + 0.5 * round_ / rounds)
            context = browser.new_context(base_url=address)
            # Signed in without the browser having seen a page of the console's: nothing is in its cache.
            with httpx.Client(base_url=address) as client:
                _enter(client, key)
                token = client.cookies["macrofleet_console"]
            context.add_cookies([{"name": "macrofleet_console", "value": token, "url": address}])
            page = context.new_page()
            page.goto("/")
            paints.append(float(page.evaluate(_PAINTED)) / 1000)
            assert page.locator("tbody tr").count()
            context.close()
        browser.close()
    return paints, reading


def _sign_in(page: Any, key: str) -> None:
    page.goto("/sign-in")
    page.fill("#key", key)
    page.click("button")
    page.wait_for_selector("h1:text-is('Fleet')")


def _enter(client: httpx.Client, key: str) -> None:
    page = client.get("/sign-in").text
    token = page.split('name="csrf" value="')[1].split('"')[0]
    client.post("/sign-in", data={"key": key, "csrf": token})


def _answers(address: str, key: str) -> dict[str, float]:
    """Median milliseconds for the page alone, as a client over HTTP sees it."""
    found = {}
    with httpx.Client(base_url=address) as client:
        _enter(client, key)
        for name, path in _ADDRESSES.items():
            times = []
            for _ in range(11):
                began = time.perf_counter()
                client.get(path).raise_for_status()
                times.append(time.perf_counter() - began)
            found[name] = round(statistics.median(times) * 1000, 1)
    return found
