"""Chromium, from Debian's package; not a test. As a script it installs it, or says why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests import packages

PROGRAM = Path("/usr/bin/chromium")
# As root there is no sandbox to be had; and it must not look for its maker's servers.
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def missing() -> str:
    """Install it if it is not there; why it is not to be had, or nothing."""
    return packages.missing("chromium", PROGRAM)


@contextmanager
def started() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=[*OPTIONS])
        try:
            yield browser
        finally:
            browser.close()


if __name__ == "__main__":
    why = missing()
    sys.stdout.write(f"{why}. Its tests will be left out.\n" if why else f"{PROGRAM} is there.\n")
