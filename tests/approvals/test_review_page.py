"""Looking back: whom a look back waits for, however many others there are, and its own page."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection

from approvals import closing, grants, opening, reviews
from approvals.models import Grant, Review, ServiceAccount
from audit import clock as time
from tests.approvals.test_emergency import break_glass, publish_emergency
from tests.approvals.test_less import HALF, less
from tests.conftest import Clock
from tests.pages import signed_in, text
from tests.world import World, owe_review


@pytest.fixture
def ready(world: World) -> World:
    """alice is on call; security is told of emergencies."""
    world.groups["oncall"] = Group.objects.create(name="oncall")
    world.groups["oncall"].user_set.add(world.alice)
    publish_emergency(world, emergency_tells=world.groups["owners"])
    return world


def waits(world: World) -> dict[str, list[int]]:
    """For whom each waits, as the list has it; which is as the verb would say, one by one."""
    now, found = time.now(), {}
    for name, person in world.people.items():
        listed = list(reviews.waiting_for(person, now).values_list("pk", flat=True))
        able = [
            one.pk
            for one in reviews.visible(person).order_by("due_at", "pk")
            if reviews.may_review(one, person, now) is None
        ]
        assert listed == able, name
        if listed:
            found[name] = listed
    return found


@pytest.mark.slow
def test_it_waits_for_whoever_may_give_it_and_nobody_else(ready: World, clock: Clock):
    usual = owe_review(ready.approved("amir", level=ready.write))
    urgent = Grant.objects.get(request=break_glass(ready)).review
    asked = ("bob", "dan", "dora", "carol", "chen")
    both = [one.pk for one in sorted((usual, urgent), key=lambda one: (one.due_at, one.pk))]
    assert waits(ready) == {**dict.fromkeys(asked, both), "olga": [urgent.pk]}
    ready.groups["dba"].user_set.remove(ready.bob)
    ready.people["dan"].is_active = False
    ready.dan.save()
    ServiceAccount.objects.create(account=ready.dora, made_by=ready.ada, made_at=time.now())
    assert waits(ready) == {"carol": both, "chen": both, "olga": [urgent.pk]}
    ready.groups["security"].user_set.clear()
    assert waits(ready) == {"olga": both, "ada": [usual.pk]}, "nobody else is left for one of them"
    reviews.review(urgent.pk, by=ready.olga, outcome="justified", note="Needed.", end_access=True)
    clock.forward(2 * 86400)
    assert waits(ready) == {"olga": [usual.pk], "ada": [usual.pk]}


@pytest.mark.slow
def test_a_thousand_of_others_hide_none(world: World, django_assert_max_num_queries):
    """What is overdue comes first, and none of it is carol's."""
    mine = owe_review(world.approved())
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH r AS (INSERT INTO approvals_accessrequest (kind, state, requester_id,
                    beneficiary_id, last_edited_by_id, target_id, level_id, policy_version_id,
                    reason, ticket, duration, scope, scope_hash, round, submitted_at,
                    pending_until, decided_at, decision_note)
                SELECT 'emergency', 'bypassed', requester_id, beneficiary_id, last_edited_by_id,
                    target_id, level_id, policy_version_id, reason, ticket, duration, scope,
                    scope_hash, 1, submitted_at, pending_until, decided_at, ''
                FROM approvals_accessrequest, generate_series(1, 1000) WHERE id = %(request)s
                RETURNING *),
            s AS (INSERT INTO approvals_requeststage (request_id, round, "order", name, state,
                    minima, group_names, stand_ins, total, deny_quorum)
                SELECT id, 1, 0, 'None', 'skipped', '{}', '{}', '{}', 1, 1 FROM r
                RETURNING request_id)
            SELECT count(*) FROM s
            """,
            {"request": mine.grant.request_id},
        )
        cursor.execute(
            """
            WITH g AS (INSERT INTO approvals_grant (request_id, beneficiary_id, target_id,
                    level_id, state, scope, scope_hash, duration, approved_at, opens_at,
                    activate_before, end_reason, end_code, end_note, connection, secret, lease,
                    attempts, last_error)
                SELECT r.id, r.beneficiary_id, r.target_id, r.level_id, 'scheduled', r.scope,
                    r.scope_hash, r.duration, r.submitted_at, r.submitted_at, r.submitted_at, '',
                    '', '', '{}', '', '', 0, ''
                FROM approvals_accessrequest r WHERE r.kind = 'emergency' RETURNING id,
                    beneficiary_id)
            INSERT INTO approvals_review (grant_id, person_id, emergency, opened_at, due_at,
                    remind_at, reminders, outcome, note)
                SELECT id, beneficiary_id, false, now(), now() + interval '1 min', now(), 0, '',
                    '' FROM g
            """
        )
    with django_assert_max_num_queries(4):
        assert list(reviews.waiting_for(world.carol, time.now())) == [mine]
    assert reviews.waiting_for(world.olga, time.now()).count() == 1000, "nobody else is there"
    page = text(signed_in(world.olga).get("/reviews/"))
    assert "These are the most urgent" in page


@pytest.mark.slow
def test_its_page_tells_what_became_of_it(world: World, clock: Clock):
    request = world.submit(level=world.write, reason="Orders hang since 10:40.")
    world.vote(request, "bob", less=less(world.read, HALF))
    world.vote(request, "carol")
    grant: Any = Grant.objects.get()
    opening.open_grant(grant.pk, worker="w1")
    clock.forward(600)
    grants.release(grant.pk, by=world.alice)
    closing.close_grant(grant.pk, worker="w1")
    review = owe_review(Grant.objects.get())
    page = signed_in(world.bob).get(f"/reviews/{review.pk}/")
    said = text(page)
    assert "10 min" in said
    assert "of 30 min" in said
    for words in ("Orders hang since 10:40.", "only 30 min of read-only", "Released"):
        assert words in said
    assert "30 min of read-only less than was asked may read What was asked" in said
    assert "Justified" in said, "and it is given here"
    done = signed_in(world.bob).post(
        f"/reviews/{review.pk}/", {"outcome": "justified", "note": "Fine."}, follow=True
    )
    assert done.redirect_chain == [(f"/reviews/{review.pk}/", 302)]
    assert "bob" in text(done)
    assert "Fine." in text(done)
    for who, status in (("alice", 200), ("olga", 200), ("amir", 404), ("mallory", 404)):
        assert signed_in(world.people[who]).get(f"/reviews/{review.pk}/").status_code == status
    assert f'href="/reviews/{review.pk}/"' in (
        signed_in(world.alice).get(f"/requests/{request.pk}/").content.decode()
    )
    assert Review.objects.get().reviewed_by == world.bob
