"""The queue: who finds what in it, in which order, page by page, and what its address may say."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client
from guardian.shortcuts import assign_perm

from approvals.models import AccessRequest, Decision, Vote
from approvals.states import RequestState
from approvals.views import queue_filters, queue_rows
from approvals.views.queue_filters import Place
from tests.pages import signed_in, text
from tests.world import World, publish, save_level, stage

HTMX = {"HX-Request": "true"}


@pytest.fixture
def sign_in(world: World):
    return lambda name: signed_in(world.people[name])


def listed(response: Any) -> list[int]:
    return [int(pk) for pk in re.findall(r'id="row-(\d+)"', response.content.decode())]


def beside(response: Any) -> int | None:
    found = re.search(r'id="pane"[^>]* data-request="(\d+)"', response.content.decode())
    return int(found[1]) if found else None


def many(world: World, count: int, who: str = "alice", **level: Any) -> list[AccessRequest]:
    """So many requests, each for a level of its own."""
    taken = world.target.levels.count()
    made = []
    for number in range(taken, taken + count):
        values = {"name": f"read-{number}", "rank": 10 + number, **level}
        asked_for = save_level(world, rights={"level": "read-only"}, **values)
        assign_perm("approvals.request_accesslevel", world.groups["developers"], asked_for)
        made.append(world.submit(who, level=asked_for))
    return made


def fields(response: Any, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', response.content.decode())
    assert found, f"no field {name}"
    return unescape(found[1])


def decide(client: Client, address: str, decision: str = "approve", **more: str) -> Any:
    """Send the form that is shown beside the queue at `address`."""
    page = client.get(address)
    sent = {name: fields(page, name) for name in ("scope_hash", "replaces", "queue", "then")}
    return client.post(
        f"/requests/{beside(page)}/vote/", {"decision": decision, **sent, **more}, follow=False
    )


def test_bob_finds_the_most_urgent_first_whatever_it_is_that_ends(world, sign_in):
    """The stage of the later one is due sooner than the whole of the earlier one."""
    slow = world.submit("alice")
    publish(world, stage(world, "Quick", "dba", deadline=600))
    quick = world.submit("amir")
    page = sign_in("bob").get("/queue/")
    assert listed(page) == [quick.pk, slow.pk]
    assert beside(page) == quick.pk
    assert "2 need you" in text(page)
    assert "next deadline" in text(page)
    assert "due in 10 min" in text(page)


def test_what_is_due_at_once_leaves_the_queue_before_any_sweeper_comes(world, sign_in, clock):
    publish(world, stage(world, "Quick", "dba", deadline=600))
    world.submit()
    clock.forward(600)
    assert listed(sign_in("bob").get("/queue/")) == []


def test_mallory_sees_nothing_in_the_queue_nor_beside_it(world, sign_in):
    request = world.submit()
    page = sign_in("mallory").get(f"/queue/?show=all&open={request.pk}")
    assert listed(page) == []
    assert beside(page) is None
    assert "does not exist, or you may not see it" in text(page)
    part = sign_in("mallory").get(
        f"/queue/?open={request.pk}", headers={**HTMX, "HX-Target": "pane"}
    )
    assert part.status_code == 404


def test_olga_sees_all_that_concerns_her_target_and_selects_none_of_it(world, sign_in):
    request = world.submit()
    assert listed(sign_in("olga").get("/queue/")) == []
    page = sign_in("olga").get("/queue/?show=all")
    assert listed(page) == [request.pk]
    assert 'name="chosen"' not in page.content.decode()
    assert 'data-decides="approve"' not in page.content.decode()


def test_a_request_in_two_of_doras_groups_is_listed_once(world, sign_in):
    publish(world, stage(world, "Both", "dba", "security"))
    request = world.submit()
    assert listed(sign_in("dora").get("/queue/")) == [request.pk]


@pytest.mark.slow
def test_a_walk_through_the_pages_meets_each_once_though_some_go_meanwhile(
    world, sign_in, monkeypatch
):
    monkeypatch.setattr(queue_rows, "PAGE", 3)
    asked = many(world, 8)
    bob = sign_in("bob")
    for scope, order in (("", 1), ("?show=all", -1)):
        met, address = [], f"/queue/{scope}"
        while address:
            page = bob.get(address)
            met += listed(page)
            found = re.search(r'rel="next" href="([^"]+)"', page.content.decode())
            address = unescape(found[1]) if found else ""
            if len(met) == 3:
                world.vote(asked[1 if order > 0 else 6], "dan", "deny", comment="No.")
        assert met == [request.pk for request in asked if request.pk in met][::order]
        assert len(met) in (8, 7)
        assert met[-1] == (asked[-1] if order > 0 else asked[0]).pk


@pytest.mark.slow
def test_the_head_counts_up_to_a_limit_and_says_so(world, sign_in, monkeypatch):
    many(world, 3)
    monkeypatch.setattr(queue_rows, "COUNTED", 2)
    assert "2+ need you" in text(sign_in("bob").get("/queue/"))


@pytest.mark.slow
def test_the_queue_costs_the_same_however_long_it_is(world, sign_in, django_assert_max_num_queries):
    many(world, 30)
    for who, address in (
        ("bob", "/queue/"),
        ("bob", "/queue/?show=all&q=orders&risk=low&group=dba&target=orders&requester=alice"),
        ("ada", "/queue/?show=all"),
        ("mallory", "/queue/?show=all"),
    ):
        client = sign_in(who)
        with django_assert_max_num_queries(16):
            assert client.get(address).status_code == 200


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("target=orders", "both"),
        ("target=elsewhere", "none"),
        ("risk=low", "alices"),
        ("risk=medium", "amirs"),
        ("requester=amir", "amirs"),
        ("requester=nobody", "none"),
        ("group=dba", "both"),
        ("group=security", "none"),
        ("group=no-such-group", "none"),
        ("q=HANG", "alices"),
        ("q=ops-7", "amirs"),
        ("q=amir", "amirs"),
        ("q=orders+slow", "amirs"),
        ("q=100%25", "none"),
        ("q=_", "none"),
        ("q=hang&risk=medium", "none"),
        ("show=all&q=slow&group=dba", "amirs"),
    ],
)
def test_filters_and_search_narrow_the_list(world, sign_in, query, found):
    first = world.submit("alice")
    second = world.submit("amir", level=world.write, reason="Too slow.", ticket="OPS-7")
    wanted = {"both": [first, second], "alices": [first], "amirs": [second], "none": []}[found]
    page = sign_in("bob").get(f"/queue/?{query}")
    assert sorted(listed(page)) == [request.pk for request in wanted]
    if not wanted:
        assert "Nothing matches." in text(page)


def test_filters_stay_in_every_link_of_the_page(world, sign_in):
    request = world.submit("alice")
    page = sign_in("bob").get("/queue/?q=hang&risk=low").content.decode()
    assert f'href="/queue/?risk=low&amp;q=hang&amp;open={request.pk}"' in page
    assert 'data-poll="/queue/?risk=low&amp;q=hang&amp;part=list"' in page


@pytest.mark.parametrize(
    ("query", "notice"),
    [
        ("show=everything", "The queue is either what needs you"),
        ("risk=enormous", "A risk is low, medium or high."),
        ("target=Not+A+Name", "No target can be called that."),
        ("target=%00", "No target can be called that."),
        ("group=%00", "No group can be called that."),
        ("requester=" + "x" * 151, "Nobody can be called that."),
        ("q=%00", "A search has at most"),
        ("q=" + "x" * 101, "A search has at most"),
        ("q=a+b+c+d+e+f+g", "A search has at most"),
        ("from=yesterday", "That place in the list could not be read"),
        ("from=1.2.3", "That place in the list could not be read"),
        ("from=999999999999999999.1", "That place in the list could not be read"),
        ("from=%D9%A3", "That place in the list could not be read"),
        ("open=first", "No request has such a number."),
    ],
)
def test_what_nobody_can_mean_is_left_out_and_said(world, sign_in, query, notice):
    request = world.submit()
    page = sign_in("bob").get(f"/queue/?{query}")
    assert page.status_code == 200
    assert notice in text(page)
    assert listed(page) == [request.pk]


def test_a_place_is_read_back_to_the_microsecond(world):
    world.submit()
    due = AccessRequest.objects.with_due().get().due_at + timedelta(microseconds=1)
    for place in (Place(7), Place(7, due)):
        assert Place.read(str(place)) == place


def test_the_address_says_the_same_when_it_is_read_again():
    said = "show=all&target=orders&risk=low&group=a%26b&requester=%2B&q=x+y&from=12&open=3"
    filters = queue_filters.read(QueryDict(said))
    assert filters.query(start=filters.start, opened=filters.opened) == said
    assert not filters.ignored


@pytest.mark.slow
def test_deciding_moves_on_to_the_next_and_keeps_the_filters(world, sign_in):
    first, second = world.submit("alice"), world.submit("amir")
    bob = sign_in("bob")
    done = decide(bob, "/queue/?q=hang")
    assert done.status_code == 302
    assert done["Location"] == f"/queue/?q=hang&open={second.pk}"
    page = bob.get(done["Location"])
    assert "Your vote on alice: read-only on orders counts." in text(page)
    assert beside(page) == second.pk
    assert listed(page) == [second.pk]
    assert Vote.objects.get().stage.request == first

    last = decide(bob, done["Location"])
    assert last["Location"] == "/queue/?q=hang"
    assert "Nothing matches." in text(bob.get("/queue/?q=hang"))
    assert "No one waits for you." in text(bob.get("/queue/"))


def test_a_denial_without_a_word_keeps_the_place_and_does_nothing(world, sign_in):
    first, second = world.submit("alice"), world.submit("amir")
    bob = sign_in("bob")
    refused = decide(bob, f"/queue/?q=hang&open={second.pk}", "deny", comment=" ")
    assert refused.status_code == 422
    assert beside(refused) == second.pk
    assert listed(refused) == [first.pk, second.pk]
    assert "Say why, so that they know what to do instead." in text(refused)
    assert f'data-here="/queue/?q=hang&amp;open={second.pk}"' in refused.content.decode()
    assert not Vote.objects.exists()


def test_what_was_typed_is_kept_when_it_will_not_do(world, sign_in):
    world.submit()
    refused = decide(sign_in("bob"), "/queue/", comment="Long. " * 400)
    assert refused.status_code == 422
    assert "Long. Long." in refused.content.decode()
    assert "Keep it within 2000 characters." in text(refused)


@pytest.mark.slow
def test_a_decision_sent_twice_counts_once_and_leads_back_to_the_queue(world, sign_in):
    publish(world, stage(world, "Two", "dba", minimum=2))
    request = world.submit()
    bob = sign_in("bob")
    page = bob.get("/queue/")
    sent = {name: fields(page, name) for name in ("scope_hash", "replaces", "queue", "then")}
    address = f"/requests/{request.pk}/vote/"
    assert bob.post(address, {"decision": "approve", **sent}).status_code == 302
    again = bob.post(address, {"decision": "approve", **sent})
    assert again.status_code == 409
    assert Vote.objects.count() == 1
    assert "Back to the queue" in text(again)


@pytest.mark.parametrize(
    "queue", ["//evil.example", "https://evil.example/?q=x", "%00&&=", "x" * 9]
)
def test_what_a_form_calls_its_queue_leads_nowhere_else(world, sign_in, queue):
    world.submit()
    page = sign_in("bob").get("/queue/")
    sent = {name: fields(page, name) for name in ("scope_hash", "replaces")}
    done = sign_in("bob").post(
        f"/requests/{beside(page)}/vote/",
        {"decision": "approve", **sent, "queue": queue, "then": "//evil.example"},
    )
    assert done["Location"].startswith("/queue/")
    assert "evil" not in done["Location"].partition("?")[0]
    assert "open" not in done["Location"]


def test_htmx_gets_only_what_is_beside_the_list(world, sign_in):
    first, second = world.submit("alice"), world.submit("amir")
    part = sign_in("bob").get(
        f"/queue/?q=hang&open={first.pk}&then={second.pk}",
        headers={**HTMX, "HX-Target": "pane"},
    )
    assert beside(part) == first.pk
    assert "<html" not in part.content.decode()
    assert listed(part) == []
    assert (fields(part, "queue"), fields(part, "then")) == ("q=hang", str(second.pk))


def test_a_poll_beside_the_queue_keeps_where_a_decision_leads(world, sign_in):
    publish(world, stage(world, "Two", "dba", minimum=2), stage(world, "Security", "security"))
    request = world.submit()
    bob = sign_in("bob")
    page = bob.get("/queue/?q=hang").content.decode()
    poll = unescape(re.search(r'id="live"[^>]*hx-get="([^"]+)"', page)[1])  # type: ignore[index]
    assert bob.get(poll, headers=HTMX).status_code == 204
    world.vote(request, "bob")
    moved = bob.get(poll, headers=HTMX)
    assert "you may change that" in text(moved)
    assert fields(moved, "queue") == "q=hang"


def test_the_list_answers_a_poll_only_when_it_changed(world, sign_in):
    first = world.submit("alice")
    bob = sign_in("bob")
    page = bob.get("/queue/").content.decode()
    poll = unescape(re.search(r'data-poll="([^"]+)"', page)[1])  # type: ignore[index]
    seen = re.search(r'data-seen="([^"]+)"', page)[1]  # type: ignore[index]
    assert bob.get(f"{poll}&seen={seen}").status_code == 204

    second = world.submit("amir")
    moved = bob.get(f"{poll}&seen={seen}")
    assert listed(moved) == [first.pk, second.pk]
    assert "<html" not in moved.content.decode()
    assert "2 need you" in unescape(moved.content.decode())
    assert second.scope_hash in moved.content.decode()


def test_a_decided_request_beside_the_list_says_what_it_is_now(world, sign_in):
    request = world.submit()
    world.vote(request, "dan", "deny", comment="No.")
    page = sign_in("bob").get(f"/queue/?open={request.pk}")
    assert beside(page) == request.pk
    assert "Denied" in text(page)
    assert 'data-decides="approve"' not in page.content.decode()


def test_hostile_text_is_shown_in_the_queue_and_does_nothing(world, sign_in):
    world.alice.username = "<b>alice</b>‮"
    world.alice.save()
    world.submit(reason="\n\n<script>alert(1)</script> ‮gpj.exe\nsecond line", ticket="<i>")
    body = sign_in("bob").get("/queue/?q=%3Cscript%3E").content.decode()
    assert "<script>alert" not in body
    assert "<b>alice" not in body
    assert "‮gpj" not in body
    assert 'value="&lt;script&gt;"' in body


def bulk(client: Client, decision: str, *chosen: str, **more: str) -> Any:
    return client.post("/queue/decide/", {"decision": decision, "chosen": chosen, **more})


def named(*requests: AccessRequest) -> list[str]:
    return [f"{request.pk}:{request.scope_hash}" for request in requests]


@pytest.mark.slow
def test_bob_approves_several_and_one_that_is_refused_stops_none(world, sign_in):
    first, second, third = many(world, 3)
    world.vote(second, "dan", "deny", comment="No.")
    bob = sign_in("bob")
    done = bulk(bob, "approve", *named(first, second, third), comment="Fine.", queue="q=hang")
    assert done["Location"] == "/queue/?q=hang&done=1"
    votes = Vote.objects.filter(voter=world.bob)
    assert [vote.stage.request for vote in votes] == [first, third]
    assert {vote.comment for vote in votes} == {"Fine."}
    assert [vote.scope_hash for vote in votes] == [first.scope_hash, third.scope_hash]

    page = bob.get(done["Location"])
    assert "2 approved, 1 refused" in text(page)
    assert "read-3 on orders refused: This request is denied" in text(page)
    assert "2 approved" in text(bob.get(done["Location"]))  # loading it again repeats nothing
    assert votes.count() == 2
    assert "2 approved" not in text(sign_in("dan").get(done["Location"]))


@pytest.mark.slow
def test_the_same_bulk_decision_sent_twice_counts_once(world, sign_in):
    publish(world, stage(world, "Two", "dba", minimum=2))
    asked = many(world, 2)
    bob = sign_in("bob")
    for _ in range(2):
        assert bulk(bob, "approve", *named(*asked)).status_code == 302
    assert Vote.objects.count() == 2
    assert "0 approved, 2 refused" in text(bob.get("/queue/?done=1"))


def test_a_scope_that_changed_since_it_was_read_is_refused_in_bulk_too(world, sign_in):
    request = world.submit()
    bob = sign_in("bob")
    bulk(bob, "approve", f"{request.pk}:{'0' * 64}")
    assert not Vote.objects.exists()
    assert "What is asked for has changed since you looked at it." in text(
        bob.get("/queue/?done=1")
    )


def test_nobody_decides_about_their_own_in_bulk(world, sign_in):
    request = world.submit()
    alice = sign_in("alice")
    bulk(alice, "approve", *named(request))
    assert not Vote.objects.exists()
    assert "Nobody decides about their own access" in text(alice.get("/queue/?done=1"))


@pytest.mark.slow
def test_mallory_learns_nothing_from_a_bulk_decision(world, sign_in):
    request = world.submit()
    mallory = sign_in("mallory")
    bulk(mallory, "approve", *named(request), f"{request.pk + 999}:{request.scope_hash}")
    assert not Vote.objects.exists()
    page = text(mallory.get("/queue/?done=1"))
    assert page.count("refused: It does not exist, or you may not see it.") == 2
    assert "alice" not in page


def test_a_bulk_denial_wants_a_word_and_keeps_the_selection(world, sign_in):
    first, second = world.submit("alice"), world.submit("amir")
    bob = sign_in("bob")
    refused = bulk(bob, "deny", *named(second), comment=" ")
    assert refused.status_code == 422
    assert "Say why, so that they know what to do instead." in text(refused)
    ticked = re.findall(r'name="chosen" value="(\d+):[^>]* checked', refused.content.decode())
    assert ticked == [str(second.pk)]
    assert not Vote.objects.exists()

    bulk(bob, "deny", *named(first, second), comment="Use the replica.")
    assert set(Vote.objects.values_list("decision", flat=True)) == {Decision.DENY}
    assert not AccessRequest.objects.filter(state=RequestState.PENDING).exists()
    assert "2 denied" in text(bob.get("/queue/?done=1"))


def test_more_than_fifty_at_once_are_refused_as_a_whole(world, sign_in):
    request = world.submit()
    chosen = [*named(request), *(f"{request.pk + number}:0" for number in range(1, 51))]
    refused = bulk(sign_in("bob"), "approve", *chosen, comment="All of it.")
    assert refused.status_code == 422
    assert "At most 50 are decided at once, and 51 were selected." in text(refused)
    assert "All of it." in refused.content.decode()
    assert not Vote.objects.exists()


@pytest.mark.parametrize(
    ("decision", "chosen"),
    [
        ("approve", []),
        ("approve", ["x:y", ":", "-1:a", "٣:a", "9" * 19 + ":a"]),
        ("allow", ["1:a"]),
    ],
)
def test_a_damaged_bulk_form_does_nothing(world, sign_in, decision, chosen):
    world.submit()
    assert bulk(sign_in("bob"), decision, *chosen).status_code == 422
    assert not Vote.objects.exists()
