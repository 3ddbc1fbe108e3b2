"""The inbox: its page and count, reading, and the links that mails hold."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from approvals.models import INBOX, Delivery
from approvals.notify import inbox
from tests.approvals.notify.telling import tell
from tests.approvals.smtp import Mailbox, text_of
from tests.pages import signed_in, text
from tests.world import World, publish, stage

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


@pytest.fixture
def asked(world: World) -> Any:
    """alice asks; bob is told."""
    request = world.submit(reason="<script>alert(1)</script> \u202egpj.exe")
    tell()
    return request


def entry_of(person: Any) -> Delivery:
    return inbox.entries(person).latest("pk")


def unread(person: Any) -> int:
    return inbox.unread(person).count()


class TestThePage:
    def test_empty_it_teaches(self, world: World):
        page = text(signed_in(world.mallory).get("/inbox/"))
        assert "You have not been told anything yet." in page
        assert "Nothing is new." in text(signed_in(world.mallory).get("/inbox/?show=new"))

    def test_it_tells_what_and_what_to_do(self, world: World, asked: Any):
        answer = signed_in(world.bob).get("/inbox/")
        page = text(answer)
        assert "alice asks for read-only on orders for 1 h" in page
        assert "Approve or deny it in “Database”" in page
        assert "<script>alert" not in answer.content.decode()
        assert "\u202e" not in page

    def test_the_count_is_beside_the_queue(self, world: World, asked: Any):
        assert "1 new for you" in text(signed_in(world.bob).get("/"))
        assert "new for you" not in text(signed_in(world.alice).get("/"))

    def test_what_another_was_told_is_not_ones_own(self, world: World, asked: Any):
        entry = entry_of(world.bob)
        mallory = signed_in(world.mallory)
        assert mallory.get(f"/inbox/{entry.pk}/").status_code == 404
        mallory.post("/inbox/read/", {"entry": entry.pk})
        mallory.post("/inbox/read/", {"until": entry.pk})
        assert unread(world.bob) == 1

    def test_a_long_one_is_walked_page_by_page(self, world: World, asked: Any):
        notice = entry_of(world.bob).notice
        for number in range(60):
            notice.pk, notice.key, notice.text = None, f"copy:{number}", f"number {number}"
            notice.save(force_insert=True)
            Delivery.objects.create(
                notice=notice,
                channel=INBOX,
                person=world.bob,
                urgent=False,
                since=notice.at,
                sent_at=notice.at,
            )
        bob, address, seen = signed_in(world.bob), "/inbox/", []
        while address:
            page = bob.get(address).content.decode()
            seen += re.findall(r'href="/inbox/(\d+)/"', page)
            older = re.search(r'rel="next" href="([^"]+)"', page)
            address = older[1].replace("&amp;", "&") if older else ""
        assert len(seen) == len(set(seen)) == 61
        assert seen == sorted(seen, key=int, reverse=True)

    @pytest.mark.parametrize("cursor", ["-1", "x", "1.5", "9" * 30])
    def test_a_made_up_cursor_breaks_nothing(self, world: World, cursor: str):
        assert signed_in(world.bob).get(f"/inbox/?from={cursor}").status_code == 200

    def test_it_is_sent_again_only_when_something_changed(self, world: World, asked: Any):
        bob = signed_in(world.bob)
        page = bob.get("/inbox/").content.decode()
        seen = re.search(r"seen=([\d.]+)", page)
        assert seen is not None
        assert bob.get(f"/inbox/?seen={seen[1]}", headers=HTMX).status_code == 204
        inbox.read(world.bob, entry_of(world.bob).pk)
        part = bob.get(f"/inbox/?seen={seen[1]}", headers=HTMX)
        assert part.status_code == 200
        assert "<html" not in part.content.decode()


class TestReading:
    def test_opening_one_leads_to_its_page(self, world: World, asked: Any):
        entry = entry_of(world.bob)
        answer = signed_in(world.bob).get(f"/inbox/{entry.pk}/")
        assert answer["Location"] == f"/requests/{asked.pk}/"
        assert unread(world.bob) == 0

    def test_one_can_be_marked_without_opening_it(self, world: World, asked: Any):
        answer = signed_in(world.bob).post("/inbox/read/", {"entry": entry_of(world.bob).pk})
        assert answer["Location"] == "/inbox/"
        assert unread(world.bob) == 0

    def test_all_means_all_that_were_shown(self, world: World, asked: Any):
        shown = entry_of(world.bob).pk
        world.submit("amir")
        tell()
        signed_in(world.bob).post("/inbox/read/", {"until": shown})
        assert unread(world.bob) == 1

    @pytest.mark.parametrize("sent", [{}, {"entry": "x"}, {"until": "9" * 40}, {"entry": "\0"}])
    def test_a_damaged_form_marks_nothing(self, world: World, asked: Any, sent: dict[str, str]):
        assert signed_in(world.bob).post("/inbox/read/", sent).status_code == 302
        assert unread(world.bob) == 1


class TestTheLinkInAMail:
    @pytest.fixture
    def link(self, world: World, mailbox: Mailbox) -> str:
        world.submit()
        tell()
        [message] = mailbox.to("bob@example.com")
        found = re.search(r"https://debugflow\.example\.com(/inbox/from/\S+)", text_of(message))
        assert found is not None
        return found[1]

    def test_it_asks_to_sign_in_and_comes_back(self, link: str):
        answer = Client().get(link)
        assert answer["Location"].startswith("/sign-in/?next=/inbox/from/")

    def test_the_first_opening_marks_it_read_and_later_ones_lead_there_too(
        self, world: World, link: str
    ):
        bob = signed_in(world.bob)
        for _ in range(2):
            answer = bob.get(link)
            assert answer["Location"].startswith("/requests/")
            assert unread(world.bob) == 0

    def test_it_decides_nothing(self, world: World, link: str):
        signed_in(world.bob).get(link)
        request = world.alice.access_requests.get()
        assert request.state == "pending"
        assert signed_in(world.bob).post(link).status_code == 405

    def test_somebody_else_is_told_whose_it_was(self, world: World, link: str):
        dan = signed_in(world.dan)
        page = text(dan.get(link, follow=True))
        assert "That link was sent to bob; you are signed in as dan." in page
        assert unread(world.bob) == unread(world.dan) == 1

    def test_it_gives_nobody_a_right(self, world: World, link: str):
        assert signed_in(world.mallory).get(link, follow=True).status_code == 404

    @pytest.mark.parametrize("change", ["x", "", ":a:b"])
    def test_a_forged_one_is_none(self, world: World, link: str, change: str):
        forged = f"/inbox/from/{link.split('/')[3][:-3]}{change}/"
        assert signed_in(world.bob).get(forged).status_code == 404


class TestOldNews:
    def test_what_asked_is_new_no_more_once_one_has_voted(self, world: World):
        publish(world, stage(world, "Both", "dba", "security"))
        request = world.submit()
        tell()
        world.vote(request, "bob")
        tell()
        assert unread(world.bob) == 0
        assert unread(world.dan) == 1, "it still waits for dan"

    def test_nor_once_the_stage_is_over(self, world: World, asked: Any):
        world.vote(asked, "bob")
        tell()
        assert [entry.notice.fact for entry in inbox.unread(world.dan)] == ["not_needed"]
