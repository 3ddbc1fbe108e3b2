"""bob approves less than alice asked for, on a phone, and carol reads what that leaves."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from debugflow.embedded.story import cast
from tests.browser.callers import Callers
from tests.browser.conftest import People
from tests.browser.eyes import problems
from tests.browser.people import WIDTHS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.usefixtures("nothing_asked")
def test_from_folding_it_out_to_what_is_opened(people: People, callers: Callers):
    asked = callers["alice"].ask("Orders hang since 10:40.", level=cast.READ_WRITE)
    address = f"/requests/{asked['id']}/"
    bob, carol = people("bob", width=WIDTHS["phone"]), people("carol")
    bob.page.goto(address)
    approves = bob.page.get_by_role("button", name="Approve 1 h", exact=True)
    bob.page.get_by_text("Approve with less", exact=True).first.click()
    expect(approves).to_be_hidden()
    bob.page.get_by_role("radio", name="30 min", exact=True).check()
    bob.page.get_by_role("radio", name=re.compile(f"^{cast.READ_ONLY}")).check()
    found = problems(bob)
    bob.page.get_by_role("button", name="Approve with less").click()
    expect(bob.page.locator("#messages")).to_contain_text("counts")
    carol.page.goto("/queue/")
    carol.page.get_by_text("Approve with less", exact=True).first.click()
    lower = carol.page.get_by_role("radio", name=re.compile(f"^{cast.READ_ONLY}"))
    expect(lower).to_be_visible()  # fetched now, and not for everybody who looks at the queue
    carol.page.goto(address)
    expect(carol.page.locator("#outcome")).to_contain_text(f"it opens 30 min of {cast.READ_ONLY}")
    found += problems(carol)
    carol.page.get_by_role("button", name="Approve 1 h", exact=True).click()
    expect(carol.page.locator("#live")).to_contain_text("with less: 30 min of")
    assert found + problems(carol) == []
