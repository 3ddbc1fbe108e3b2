"""The browser itself goes, whatever state it is in, and takes no other test with it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from debugflow.embedded.spawn import born
from tests.browser import chromium

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_one_that_answers_no_more_is_gone_afterwards(has_chromium: None):
    with chromium.started() as browser:
        browser.new_context().new_page()
        process = chromium.process_of(browser)
        os.kill(process, signal.SIGSTOP)
    assert born(process) is None


def test_django_works_afterwards_in_the_same_process(has_chromium: None):
    """It refuses to where an event loop runs, which Playwright makes it believe."""
    with chromium.started():
        assert asyncio._get_running_loop() is not None
    assert asyncio._get_running_loop() is None
