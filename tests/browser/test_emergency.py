"""amir is on call: he opens without approval, and carol looks back at it, by the pages alone."""

from __future__ import annotations

import re

import pytest

from debugflow.embedded.story import cast
from tests.browser.conftest import People
from tests.browser.eyes import problems

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.usefixtures("nothing_asked")
def test_from_opening_to_looking_back(people: People):
    amir, carol = people("amir"), people("carol")
    amir.page.goto("/ask/")
    amir.page.get_by_role("link", name="Ask for read-only").first.click()
    amir.page.get_by_role("link", name="Open it without approval").click()
    opens = amir.page.get_by_role("button", name="Open for 15 min without approval")
    opens.wait_for()
    found = problems(amir)
    amir.page.get_by_label("Why it cannot wait").fill("Payments are down, and nobody answers.")
    amir.page.get_by_label(re.compile("^Your password")).fill(cast.PASSWORD)
    opens.click()
    amir.page.get_by_text("Type the target's name").wait_for()
    found += problems(amir)
    amir.page.get_by_label(re.compile("to confirm")).fill(cast.TARGET)
    amir.page.get_by_label(re.compile("^Your password")).fill(cast.PASSWORD)
    opens.click()
    amir.page.wait_for_url("**/requests/*/")
    amir.page.get_by_text("Nobody decides about their own access").wait_for()
    found += problems(amir)
    carol.page.goto("/")
    found += problems(carol)
    carol.page.get_by_role("link", name="All reviews").click()
    carol.page.get_by_role("link", name=re.compile("^amir: read-only")).first.click()
    carol.page.get_by_label("What you found").fill("He read what the incident needed.")
    carol.page.get_by_label(re.compile("^Take the access away")).check()
    found += problems(carol)
    carol.page.get_by_role("button", name="Needs action").click()
    carol.page.get_by_text("Your review counts.").wait_for()
    carol.page.goto("/reviews/")
    assert found + problems(carol) == []
    amir.page.reload()
    assert amir.page.get_by_text("He read what the incident needed.").first.is_visible()
