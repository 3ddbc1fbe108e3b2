"""Chromium, from Debian's package; not a test. As a script it installs it, or says why not."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from debugflow.embedded.spawn import signal_group
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
REQUIRED = "DEBUGFLOW_REQUIRE_BROWSER"
"""Set where its absence is a failure and no reason to leave tests out."""
FETCHED_WITHIN = 300  # seconds for the script; a test waits as long as for any other package


def missing() -> str:
    """Install it if it is not there; why it is not to be had, or nothing."""
    return packages.missing("chromium", PROGRAM)


@contextmanager
def started() -> Iterator[Browser]:
    """A browser with a Playwright of its own; afterwards neither is left.

    It is killed and not asked to close: that was seen to wait for ever.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=[*OPTIONS])
        group = os.getpgid(process_of(browser))
        try:
            yield browser
        finally:
            signal_group(group, signal.SIGKILL)


def process_of(browser: Browser) -> int:
    """Of the browser itself, which Playwright has made the leader of a group of its own."""
    told = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")
    [process] = [one["id"] for one in told["processInfo"] if one["type"] == "browser"]
    return int(process)


if __name__ == "__main__":
    why = packages.missing("chromium", PROGRAM, within=FETCHED_WITHIN)
    sys.stdout.write(f"{why}. Its tests cannot run.\n" if why else f"{PROGRAM} is there.\n")
    sys.exit(bool(why))
