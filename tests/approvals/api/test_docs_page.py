"""The page to try the API on: signed in only, with nothing of anybody else's in it."""

from __future__ import annotations

import re

import pytest
from django.contrib.staticfiles import finders
from django.test import Client

from tests.approvals.admin_browser import INLINE
from tests.world import World

PAGE = "/api/v1/docs/"
LOADED = re.compile(r'(?:src|href)="(/static/[^"]+)"')


@pytest.mark.slow
def test_whoever_has_not_signed_in_is_sent_to_do_so(db: None):
    answer = Client().get(PAGE)
    assert (answer.status_code, answer["Location"]) == (302, f"/sign-in/?next={PAGE}")


def test_all_it_loads_is_served_by_us_and_nothing_is_inline(world: World):
    client = Client()
    client.force_login(world.alice)
    page = client.get(PAGE)
    html = page.content.decode()
    assert page.status_code == 200
    assert not INLINE.search(html)
    assert "script-src 'self'" in page["Content-Security-Policy"]
    assert "unsafe" not in page["Content-Security-Policy"]
    assert not re.search(r'(?:src|href)="(?:https?:)?//', html)
    loaded = LOADED.findall(html)
    assert len(loaded) == 6
    assert [path for path in loaded if not finders.find(path.removeprefix("/static/"))] == []
