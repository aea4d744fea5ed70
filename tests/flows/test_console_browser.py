"""The console in a browser: keyboard, phone, dark, live figures, and nothing that its policy forbids.

With MACROFLEET_SCREENSHOTS=1 the pictures of docs/console.md are made anew, in docs/img/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.console_fleet import console_names, fill_store
from flows.console.acceptance import MacroUse
from flows.console.rendering import NOTHING
from flows.console.servers import Servers
from flows.console.tracked_view import TrackedRow
from registry.fleet.state import read_fleet
from registry.store.local import LocalStore
from tests import chromium
from tests.flows.console_world import (
    Console,
    StandIn,
    make_console,
    put_tickets,
    running,
    some_days,
    standing_in,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = console_names(300)
TENANT = NAMES[0]
IMAGES = Path(__file__).parents[2] / "docs" / "img"
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
TICKET = "My parcel should have arrived on Monday. Where is it? If it is lost, I want my money back."
AUDIT = Path(__file__).with_name("console_audit.js").read_text()
# What a page's policy forbids, Playwright's own waiting for a function is too.
BUSY = f"[data-live=requests_per_second]:not(:text-is('{NOTHING}'))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not chromium.installed():
        pytest.skip(chromium.NOT_INSTALLED)
    with chromium.started() as made:
        yield made


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with standing_in(StandIn(ready=NAMES[::2])) as server:
        yield server


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, stand_in: StandIn) -> Console:
    folder = tmp_path_factory.mktemp("console")
    store = LocalStore(folder / "store")
    fill_store(store, len(NAMES))
    put_tickets(store, TENANT, 240)
    made = make_console(folder, store, servers=Servers((stand_in.url,)))
    made.feedback.answer = some_days()
    made.feedback.use = MacroUse(days=90, never_used=("m4", "m6", "m7"), never_suggested={"m5": 23, "m3": 9})
    entry = read_fleet(store).entries[TENANT]
    made.tracked.answer = [
        TrackedRow(number=number, version=str(version), aliases=[alias], run_id=f"{number}d6f3a9c" * 4, metrics=metrics)
        for number, version, alias, metrics in (
            (3, entry.candidate, "challenger", {"top1": 0.86, "top3": 0.96}),
            (2, entry.version, "champion", {"top1": 0.83, "top3": 0.93}),
        )
    ]
    return made


@pytest.fixture(scope="module")
def address(console: Console, browser: Browser) -> Iterator[str]:
    with running(console.app) as url:
        console.world.index.refresh_records()
        yield url


class Visit:
    """A page in a browser of its own, signed in; what the browser complains of is kept."""

    def __init__(self, browser: Browser, address: str, console: Console, **options: Any) -> None:
        self.context = browser.new_context(base_url=address, **options)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._said)
        self.page.goto("/sign-in")
        self.page.fill("#key", console.operator)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("h1:text-is('Fleet')")

    def _said(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)


Open = Any


@pytest.fixture
def visit(browser: Browser, address: str, console: Console) -> Iterator[Open]:
    made: list[Visit] = []

    def go(**options: Any) -> Visit:
        made.append(Visit(browser, address, console, **{"viewport": WIDE, **options}))
        return made[-1]

    yield go
    for one in made:
        one.context.close()
        assert one.complaints == []


def shoot(page: Page, name: str) -> None:
    """Take a picture for the documentation, where pictures are wanted."""
    if os.environ.get("MACROFLEET_SCREENSHOTS") == "1":
        IMAGES.mkdir(exist_ok=True)
        page.screenshot(path=IMAGES / f"console-{name}.png")


def test_live_figures_come_and_go(visit: Open, stand_in: StandIn, console: Console, monkeypatch: Any) -> None:
    page = visit().page
    page.wait_for_selector("text=1 of 1 servers answer")
    page.wait_for_selector(BUSY)
    assert page.text_content("[data-live=models_loaded]") == "612"
    assert page.text_content("[data-live=hit_rate]") == "98.5 %"
    assert page.text_content(f"[data-loaded='{sorted(NAMES)[0]}']") in {"0/1", "1/1"}
    page.click("summary:text-is('Servers')")
    assert "ready" in str(page.text_content("[data-live-servers]"))
    page.click("summary:text-is('Servers')")
    shoot(page, "fleet")
    monkeypatch.setattr(stand_in, "answer", lambda *_: (503, "text/plain", "away"))
    page.wait_for_selector("text=No server answers")
    assert page.text_content("[data-live=models_loaded]") == NOTHING
    assert page.text_content(f"[data-loaded='{sorted(NAMES)[0]}']") == NOTHING


def test_a_tenant_is_found_looked_at_and_pinned_by_keyboard_alone(visit: Open, console: Console) -> None:
    page = visit().page
    page.keyboard.press("/")
    page.keyboard.type(TENANT)
    page.keyboard.press("Enter")
    page.wait_for_url("**q=*")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == TENANT:
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_selector(f"h1:text-is('{TENANT}')")
    page.wait_for_selector("#standing + div >> text=Eligible for a model")
    page.wait_for_selector("#tracked + div >> text=champion")
    page.wait_for_selector("#acceptance + div svg")
    page.wait_for_selector("#macros + div >> text=3 macros were never applied")
    page.wait_for_selector("[data-tenant-servers] >> text=in memory")
    shoot(page, "tenant")
    page.focus("button:text-is('Pin')")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=is kept loaded on every server")
    assert read_fleet(console.store).entries[TENANT].keep_loaded
    page.focus("a:has-text('Roll back')")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=This is what changes")
    page.keyboard.press("Tab")


def test_macros_are_sorted_and_unfolded_by_keyboard_alone(visit: Open) -> None:
    page = visit(viewport=PHONE).page
    page.goto(f"/tenants/{TENANT}/macros")
    page.focus("summary")
    page.keyboard.press("Enter")
    assert page.is_visible("li:has-text('Macro 6')")
    page.focus("a:text-is('Weakest first')")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=weakest first")
    assert "Macro 3" in str(page.text_content("tbody tr >> nth=0"))
    shoot(page, "macros-phone")


def test_the_playground_marks_words(visit: Open) -> None:
    page = visit().page
    page.goto(f"/playground?tenant={TENANT}")
    page.fill("#subject", "Parcel not here")
    page.fill("#body", TICKET)
    page.click("button:text-is('Suggest')")
    page.wait_for_selector("mark.for:text-is('Parcel')")
    assert page.locator("article").count() == 3
    assert page.input_value("#body") == TICKET
    shoot(page, "playground")


def test_a_run_is_looked_into(visit: Open) -> None:
    page = visit().page
    page.click("nav >> text=Runs")
    page.click("tbody th a >> nth=0")
    page.click("nav >> text=not eligible")
    page.wait_for_selector("td:has-text('100 are needed')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_every_page_fits_reads_well_and_is_labelled(visit: Open, scheme: str, size: Any) -> None:
    one = visit(viewport=size, color_scheme=scheme)
    page = one.page
    paths = [
        "/",
        f"/tenants/{TENANT}",
        f"/tenants/{TENANT}/macros",
        "/playground",
        "/runs",
        "/nonsense",
        "/?q=nobody",
        "/?show=attention",
    ]
    for path in paths:
        page.goto(path)
        page.wait_for_selector("[aria-busy]", state="detached")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, "scrolls sideways")
        assert page.evaluate(AUDIT) == [], path
        assert page.locator("h1").count() == 1, path
    if size == PHONE and scheme == "dark":
        page.goto("/?show=attention")
        page.wait_for_selector("text=1 of 1 servers answer")
        page.wait_for_selector(BUSY)
        shoot(page, "phone-dark")
    one.complaints[:] = [text for text in one.complaints if "404" not in text]


def test_pages_work_without_scripts(visit: Open) -> None:
    page = visit(java_script_enabled=False).page
    page.fill("#q", TENANT)
    page.click("button:text-is('Search')")
    page.click(f"a:text-is('{TENANT}')")
    page.click("text=Count its tickets")
    page.wait_for_selector("text=Eligible for a model")


def test_who_is_signed_out_is_told(visit: Open, console: Console) -> None:
    one = visit()
    one.page.wait_for_selector("text=1 of 1 servers answer")
    one.context.clear_cookies()
    one.page.wait_for_selector("text=You were signed out")
    one.complaints[:] = [text for text in one.complaints if "401" not in text]
