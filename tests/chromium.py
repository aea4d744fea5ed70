"""A headless Chromium of the tests' own: Debian's package `chromium`, driven by Playwright, whose own download is not used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EXECUTABLE = Path("/usr/bin/chromium")
NOT_INSTALLED = "Chromium is not installed: apt-get install chromium"
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


def installed() -> bool:
    """Whether it can be started here."""
    return EXECUTABLE.exists()


@contextmanager
def started() -> Iterator[Browser]:
    """The browser, as long as the context lasts."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(EXECUTABLE), args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
