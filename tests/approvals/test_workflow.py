"""Asking and deciding: what is refused, and what one vote does. The cast is in tests.world."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from approvals import administration, policy, workflow
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import AccessLevel, AccessRequest, Candidate, Grant, Vote
from approvals.policy import AppliesTo
from approvals.states import GrantState, RequestState, StageState
from audit import clock as database_clock
from audit.models import Event
from tests.approvals.admin_browser import staff
from tests.world import HOUR, World, over, publish, save_level, stage

SAVEPOINT = 2  # statements that stand, inside a test's transaction, for BEGIN and COMMIT


def refusal(code: str) -> Event:
    return Event.objects.filter(action__endswith=".refused", data__code=code).latest("id")


def verb_says(world: World, request: AccessRequest, who: str, decision: str) -> str | None:
    """The code with which the verb refuses, or None; what it did is undone."""
    before = transaction.savepoint()
    try:
        world.vote(request, who, decision)
    except NotAllowed as refused:
        return refused.code
    finally:
        transaction.savepoint_rollback(before)
    return None


class TestAsking:
    def test_it_freezes_what_was_asked(self, world: World):
        request = world.submit(ticket="INC-7")
        assert request.scope == {
            "beneficiary": world.alice.pk,
            "target": {"id": world.target.pk, "address": "memory:orders", "trust_anchor": ""},
            "level": {
                "id": world.read.pk,
                "rights": {"level": "read-only"},
                "summary": ["may read"],
            },
            "reach": "direct",
            "guardrails": [],
            "duration": HOUR,
            "start": None,
            "reason": "Orders hang since 10:40.",
            "ticket": "INC-7",
            "policy_version": world.policy.current_id or request.policy_version_id,
        }

    def test_mallory_may_not_ask(self, world: World):
        with pytest.raises(NotAllowed) as refused:
            world.submit("mallory")
        assert refused.value.code == "not_requestable"

    def test_a_superuser_may_not_ask_for_what_was_not_assigned(self, world: World):
        with pytest.raises(NotAllowed):
            world.submit("ada")

    @pytest.mark.parametrize(
        ("wish", "field"),
        [
            ({"reason": "  "}, "reason"),
            ({"reason": "x" * 2001}, "reason"),
            ({"reason": "nul \x00"}, "reason"),
            ({"duration": 0}, "duration"),
            ({"duration": -5}, "duration"),
            ({"duration": 4 * HOUR + 1}, "duration"),
            ({"ticket": "x" * 101}, "ticket"),
        ],
    )
    def test_bad_input_names_its_field(self, world: World, wish, field):
        with pytest.raises(Invalid) as refused:
            world.submit(**wish)
        assert list(refused.value.fields) == [field]
        assert not AccessRequest.objects.exists()

    def test_the_limit_says_whose_it_is(self, world: World):
        publish(world, max_duration=600)
        with pytest.raises(Invalid) as refused:
            world.submit(duration=601)
        assert "policy Production" in refused.value.fields["duration"][0]

    @pytest.mark.parametrize("seconds", [-60, 31 * 86400])
    def test_a_start_in_the_past_or_too_far_ahead_is_refused(self, world: World, seconds):
        start = database_clock.now() + timedelta(seconds=seconds)
        with pytest.raises(Invalid) as refused:
            world.submit(starts_at=start)
        assert "starts_at" in refused.value.fields

    def test_a_start_without_a_zone_is_refused(self, world: World):
        start = (database_clock.now() + timedelta(hours=1)).replace(tzinfo=None)
        with pytest.raises(Invalid):
            world.submit(starts_at=start)

    def test_a_ticket_is_wanted_where_the_policy_says_so(self, world: World):
        publish(world, ticket_required=True)
        with pytest.raises(Invalid) as refused:
            world.submit()
        assert "ticket" in refused.value.fields
        assert world.submit(ticket="INC-7").state == RequestState.PENDING

    def test_the_same_twice_is_a_conflict_that_names_the_first(self, world: World):
        first = world.submit()
        with pytest.raises(WrongState) as refused:
            world.submit()
        assert refused.value.details["request"] == first.pk
        assert world.submit("amir").pk != first.pk

    def test_an_unchecked_level_is_refused(self, world: World):
        AccessLevel.objects.filter(pk=world.read.pk).update(summarised_at=None)
        with pytest.raises(NotAllowed) as refused:
            world.submit()
        assert refused.value.code == "not_checked"

    def test_asking_rings_nobody_before_the_chain_is_complete(self, world: World):
        world.submit()
        assert not Grant.objects.exists()


class TestPolicies:
    def test_no_match_is_a_refusal_that_says_why_for_each(self, world: World):
        publish(world, applies_to=AppliesTo(environments=["staging"], risks=["medium"]))
        with pytest.raises(Invalid) as refused:
            world.submit()
        assert refused.value.code == "no_policy"
        assert "it is for staging, and orders is production" in refused.value.message
        assert "medium risk, and this level is low risk" in refused.value.message

    def test_no_policy_at_all_approves_nothing(self, world: World):
        world.policy.enabled = False
        administration.change_policy(world.policy, by=world.ada)
        with pytest.raises(Invalid) as refused:
            world.submit()
        assert refused.value.code == "no_policy"
        assert refusal("no_policy").actor_name == "alice"

    def test_the_first_match_by_rank_wins(self, world: World):
        early = administration.change_policy(type(world.policy)(name="First", rank=1), by=world.ada)
        publish(world, stage(world, "Only", "security"), policy=early)
        assert world.submit().policy_version.policy == early

    @pytest.mark.parametrize(
        "conditions",
        [
            {"labels": {"team": "shop"}},
            {"levels": [0]},
            {"requester_groups": [0]},
            {"environments": ["development"]},
        ],
    )
    def test_each_condition_can_fail(self, world: World, conditions):
        publish(world, applies_to=AppliesTo(**conditions))
        with pytest.raises(Invalid):
            world.submit()

    def test_a_chain_nobody_could_fill_is_refused_naming_the_stage(self, world: World):
        publish(world, stage(world, "Database", "dba"), stage(world, "Board", "nobody"))
        with pytest.raises(Invalid) as refused:
            world.submit()
        assert refused.value.code == "unfillable"
        assert "“Board”" in refused.value.message
        assert "1 of nobody" in refused.value.message

    def test_one_person_cannot_be_planned_for_two_places(self, world: World):
        world.groups["nobody"].user_set.add(world.dora)
        world.groups["dba"].user_set.set([world.dora])
        publish(world, stage(world, "Database", "dba"), stage(world, "Board", "nobody"))
        with pytest.raises(Invalid) as refused:
            world.submit()
        assert refused.value.code == "unfillable"

    def test_a_fallback_group_stands_in_for_who_is_missing(self, world: World):
        board = stage(world, "Board", "nobody", fallback_group=world.groups["owners"])
        publish(world, stage(world, "Database", "dba"), board)
        request = world.submit()
        world.vote(request, "bob")
        world.vote(request, "olga")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    def test_a_request_keeps_the_version_it_was_asked_under(self, world: World):
        request = world.submit()
        publish(world, stage(world, "Everybody", "owners"))
        world.vote(request, "bob")
        world.vote(request, "carol")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED
        assert request.policy_version.number == 1

    def test_a_published_version_never_changes(self, world: World):
        world.policy.refresh_from_db()
        version: Any = world.policy.current
        for change in (
            lambda: type(version).objects.filter(pk=version.pk).update(max_duration=1),
            lambda: version.stages.update(total=9),
            lambda: version.stages.first().stage_groups.update(minimum=0),
            lambda: version.stages.all().delete(),
            lambda: version.stages.create(order=9, name="Sneaky", total=1),
        ):
            with pytest.raises(DatabaseError, match="never changes"), transaction.atomic():
                change()  # type: ignore[no-untyped-call]

    @pytest.mark.parametrize("wrong", ["none", "no group", "second factor", "total", "quorum"])
    def test_what_could_not_work_is_not_published(self, world: World, wrong):
        drafts = {
            "none": [],
            "no group": [administration.StageDraft(name="Empty", groups={}, total=1)],
            "second factor": [stage(world, "Strict", "dba", needs_second_factor=True)],
            "total": [stage(world, "Short", "dba", "security", total=1)],
            "quorum": [stage(world, "Undeniable", "dba", deny_quorum=0)],
        }
        draft = administration.PolicyDraft(
            applies_to=AppliesTo(), stages=drafts[wrong], max_duration=HOUR
        )
        first = world.policy.versions.get()
        with pytest.raises(Invalid):
            administration.publish(world.policy, draft, based_on=first, by=world.ada)
        assert world.policy.versions.count() == 1


class TestDeciding:
    @pytest.mark.parametrize("who", ["alice", "mallory", "ada", "carol", "olga"])
    def test_who_is_not_asked_in_this_stage_may_not_vote(self, world: World, who):
        request = world.submit()
        for decision in ("approve", "deny"):
            with pytest.raises(NotAllowed) as refused:
                world.vote(request, who, decision)
        codes = {"alice": "self_approval", "carol": "wrong_stage"}
        assert refused.value.code == codes.get(who, "not_eligible")
        assert refusal(refused.value.code).actor_name == who
        assert not Vote.objects.exists()

    def test_nobody_decides_about_themselves_even_as_a_member(self, world: World):
        world.groups["dba"].user_set.add(world.alice)
        request = world.submit()
        with pytest.raises(NotAllowed) as refused:
            world.vote(request, "alice")
        assert refused.value.code == "self_approval"
        assert not Candidate.objects.filter(user=world.alice).exists()

    def test_the_database_refuses_ones_own_vote_too(self, world: World):
        request = world.submit()
        with pytest.raises(DatabaseError, match="about themselves"), transaction.atomic():
            Vote.objects.create(
                stage=request.stages.first(),
                voter=world.alice,
                decision="approve",
                scope_hash=request.scope_hash,
                voted_at=database_clock.now(),
            )

    def test_the_database_refuses_a_grant_without_a_completed_chain(self, world: World):
        grant = world.approved()
        Grant.objects.filter(pk=grant.pk)
        request = world.submit("amir")
        grant.pk, grant.request = None, request
        with pytest.raises(DatabaseError, match="completed chain"), transaction.atomic():
            grant.save(force_insert=True)

    def test_the_database_refuses_a_grant_whose_stages_did_not_pass(self, world: World):
        """Even to whoever writes an approved state past every verb."""
        grant = world.approved()
        request = world.submit("amir")
        AccessRequest.objects.filter(pk=request.pk).update(
            state=RequestState.APPROVED, decided_at=database_clock.now()
        )
        for name in ("scope", "scope_hash", "beneficiary_id", "duration"):
            setattr(grant, name, getattr(request, name))
        grant.pk, grant.request = None, request
        with pytest.raises(DatabaseError, match="completed chain"), transaction.atomic():
            grant.save(force_insert=True)

    @pytest.mark.parametrize("decision", ["banana", "", "APPROVE"])
    def test_a_decision_is_to_approve_or_to_deny(self, world: World, decision):
        request = world.submit()
        with pytest.raises(Invalid):
            world.vote(request, "bob", decision)

    def test_the_same_form_twice_is_a_conflict(self, world: World):
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit()
        world.vote(request, "bob", replaces=0)
        with pytest.raises(WrongState) as refused:
            world.vote(request, "bob", replaces=0)
        assert refused.value.code == "voted_already"
        assert refusal("voted_already").actor_name == "bob"
        world.vote(request, "bob", "deny", replaces=Vote.objects.get().pk)

    def test_one_person_fills_one_place_in_the_whole_chain(self, world: World):
        request = world.submit()
        world.vote(request, "dora")
        with pytest.raises(NotAllowed) as refused:
            world.vote(request, "dora")
        assert refused.value.code == "already_counted"

    def test_who_is_needed_later_may_not_be_spent_now(self, world: World):
        world.groups["security"].user_set.set([world.dora])
        request = world.submit()
        with pytest.raises(NotAllowed) as refused:
            world.vote(request, "dora")
        assert refused.value.code == "needed_later"
        world.vote(request, "bob")
        world.vote(request, "dora")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    def test_a_joiner_after_submission_is_no_candidate(self, world: World):
        request = world.submit()
        world.groups["dba"].user_set.add(world.mallory)
        with pytest.raises(NotAllowed) as refused:
            world.vote(request, "mallory")
        assert refused.value.code == "not_eligible"

    @pytest.mark.parametrize("how", ["left", "deactivated"])
    def test_who_left_may_not_vote_and_their_open_vote_stops_counting(self, world: World, how):
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit()
        world.vote(request, "bob")
        if how == "left":
            world.groups["dba"].user_set.remove(world.bob)
        else:
            type(world.bob).objects.filter(pk=world.bob.pk).update(is_active=False)
        with pytest.raises(NotAllowed):
            world.vote(request, "bob")
        world.vote(request, "dan")
        request.refresh_from_db()
        assert request.state == RequestState.PENDING
        world.vote(request, "dora")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    def test_a_vote_of_a_passed_stage_stands_when_its_author_leaves(self, world: World):
        request = world.submit()
        world.vote(request, "bob")
        world.groups["dba"].user_set.remove(world.bob)
        world.vote(request, "carol")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    def test_a_stale_scope_is_a_conflict(self, world: World):
        request = world.submit()
        with pytest.raises(WrongState) as refused:
            world.vote(request, "bob", scope_hash="0" * 64)
        assert refused.value.code == "scope_changed"

    def test_a_denial_ends_it_and_says_why(self, world: World):
        request = world.submit()
        with pytest.raises(Invalid):
            world.vote(request, "bob", "deny", comment=" ")
        world.vote(request, "bob", "deny", comment="Use the replica.")
        request.refresh_from_db()
        assert request.state == RequestState.DENIED
        assert [s.state for s in request.stages.all()] == [StageState.DENIED, StageState.CLOSED]
        with pytest.raises(WrongState):
            world.vote(request, "dan")

    def test_a_deny_quorum_of_two_wants_two(self, world: World):
        publish(world, stage(world, "Database", "dba", deny_quorum=2))
        request = world.submit()
        world.vote(request, "bob", "deny")
        request.refresh_from_db()
        assert request.state == RequestState.PENDING
        world.vote(request, "dan", "deny")
        request.refresh_from_db()
        assert request.state == RequestState.DENIED

    def test_a_vote_may_be_replaced_while_its_stage_is_open(self, world: World):
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit()
        world.vote(request, "bob")
        world.vote(request, "bob", "deny")
        request.refresh_from_db()
        assert request.state == RequestState.DENIED
        rows = list(Vote.objects.values_list("decision", "replaced_at"))
        assert [decision for decision, _ in rows] == ["approve", "deny"]
        assert [replaced is None for _, replaced in rows] == [False, True]

    def test_approving_twice_is_still_one_person(self, world: World):
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit()
        world.vote(request, "bob")
        world.vote(request, "bob")
        request.refresh_from_db()
        assert request.state == RequestState.PENDING
        assert Vote.objects.counting().count() == 1

    def test_one_person_in_two_groups_of_a_stage_counts_once(self, world: World):
        publish(world, stage(world, "Both", "dba", "security"))
        request = world.submit()
        world.vote(request, "dora")
        request.refresh_from_db()
        assert request.state == RequestState.PENDING
        world.vote(request, "bob")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    def test_a_vote_is_at_most_eleven_queries(self, world: World, django_assert_max_num_queries):
        """The last vote of a chain does most: it approves the request and makes the grant."""
        request = world.submit()
        for who in ("bob", "carol"):
            with django_assert_max_num_queries(11 + SAVEPOINT):
                workflow.vote(
                    request.pk,
                    by=world.people[who],
                    decision="approve",
                    scope_hash=request.scope_hash,
                )

    def test_permitted_actions_and_the_verbs_agree(self, world: World):
        request = world.submit()
        for who, person in world.people.items():
            chain = policy.load_chain(request)
            for name in ("approve", "deny"):
                told = policy.permitted_actions(request, chain, person)[name]
                assert (told.code if told else None) == verb_says(world, request, who, name)

    def test_the_queue_in_sql_agrees_with_the_rule(self, world: World):
        first, second = world.submit(), world.submit("amir")
        world.vote(second, "bob")
        for person in world.people.values():
            listed = set(AccessRequest.objects.all().waiting_for(person))
            allowed = {
                request
                for request in AccessRequest.objects.all()
                if policy.may_vote(request, policy.load_chain(request), person, "deny") is None
            }
            assert listed == allowed, person
        assert first in AccessRequest.objects.all().waiting_for(world.dan)


class TestClocks:
    def test_pending_runs_out_even_if_no_sweeper_came(self, world: World, clock):
        request = world.submit()
        clock.forward(86400)
        late: Any = policy.permitted_actions(request, policy.load_chain(request), world.bob)
        assert late["approve"].code == late["deny"].code == "wrong_state"
        assert not AccessRequest.objects.all().waiting_for(world.bob)
        with pytest.raises(WrongState):
            world.vote(request, "bob")
        assert over() == {request.pk}
        workflow.expire(request.pk)
        request.refresh_from_db()
        assert request.state == RequestState.EXPIRED
        assert not Grant.objects.exists()

    def test_a_stage_deadline_expires_the_request(self, world: World, clock):
        first = stage(world, "Database", "dba", deadline=60)
        publish(world, first, stage(world, "Security", "security", deadline=60))
        request = world.submit()
        clock.forward(59)
        world.vote(request, "bob")
        clock.forward(59)
        assert workflow.expire(request.pk) is None
        clock.forward(1)
        with pytest.raises(WrongState):
            world.vote(request, "carol")
        assert over() == {request.pk}
        workflow.expire(request.pk)
        request.refresh_from_db()
        assert request.state == RequestState.EXPIRED

    def test_a_window_that_has_passed_expires_the_request(self, world: World, clock):
        start = database_clock.now() + timedelta(hours=2)
        request = world.submit(starts_at=start)
        clock.forward(3 * HOUR + 1)
        assert over() == {request.pk}
        workflow.expire(request.pk)
        request.refresh_from_db()
        assert request.state == RequestState.EXPIRED

    @pytest.mark.parametrize("gone", ["requester", "level", "target", "policy"])
    def test_what_a_request_stood_on_is_gone(self, world: World, gone):
        request = world.submit()
        if gone == "requester":
            type(world.alice).objects.filter(pk=world.alice.pk).update(is_active=False)
        elif gone == "level":
            world.read.enabled = False
            world.read.save()
        elif gone == "target":
            world.target.enabled = False
            world.target.save()
        else:
            world.policy.enabled = False
            world.policy.save(update_fields=["enabled"])
        with pytest.raises(WrongState):
            world.vote(request, "bob")
        assert not AccessRequest.objects.all().waiting_for(world.bob)
        assert over() == {request.pk}
        workflow.expire(request.pk)
        request.refresh_from_db()
        assert request.state == RequestState.CANCELLED

    def test_nothing_is_over_while_nothing_is(self, world: World):
        request = world.submit()
        assert not over()
        assert workflow.expire(request.pk) is None


class TestCancelling:
    def test_alice_takes_it_back(self, world: World):
        request = world.submit()
        workflow.cancel(request.pk, by=world.alice)
        request.refresh_from_db()
        assert request.state == RequestState.CANCELLED
        assert {s.state for s in request.stages.all()} == {StageState.CLOSED}
        with pytest.raises(WrongState):
            workflow.cancel(request.pk, by=world.alice)

    @pytest.mark.parametrize("who", ["bob", "ada", "mallory"])
    def test_nobody_else_does(self, world: World, who):
        request = world.submit()
        with pytest.raises(NotAllowed):
            workflow.cancel(request.pk, by=world.people[who])

    def test_an_approved_one_is_not_taken_back(self, world: World):
        grant = world.approved()
        with pytest.raises(WrongState):
            workflow.cancel(grant.request_id, by=world.alice)
        assert grant.state == GrantState.SCHEDULED


class TestScopeChanges:
    def test_a_changed_level_voids_the_votes_and_begins_anew(self, world: World):
        request = world.submit()
        world.vote(request, "bob")
        old = request.scope_hash
        world.server.levels["read-only"] = ("may read", "may read salaries")
        administration.save_level(world.read, by=world.ada)
        request.refresh_from_db()
        assert request.scope_hash != old
        assert request.round == 2
        assert request.scope["level"]["summary"] == ["may read", "may read salaries"]
        assert Vote.objects.get().void_reason == "scope_changed"
        assert [s.state for s in request.stages.filter(round=2)] == ["open", "waiting"]
        world.vote(request, "bob")
        world.vote(request, "carol")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    def test_whoever_changed_it_last_does_not_vote_on_it(self, world: World):
        request = world.submit()
        world.server.levels["read-only"] = ("may read", "more")
        administration.save_level(world.read, by=staff(world.bob, "change_accesslevel"))
        with pytest.raises(NotAllowed) as refused:
            world.vote(request, "bob")
        assert refused.value.code == "self_approval"

    def test_a_save_that_changes_nothing_voids_nothing(self, world: World):
        request = world.submit()
        world.vote(request, "bob")
        world.read.description = "For looking around"
        administration.save_level(world.read, by=world.ada)
        request.refresh_from_db()
        assert request.round == 1
        assert Vote.objects.counting().count() == 1

    def test_a_target_that_moves_changes_the_scope(self, world: World):
        request = world.submit()
        world.vote(request, "bob")
        world.target.config = {"name": "elsewhere"}
        administration.save_target(world.target, by=world.ada, clear_secrets={})
        request.refresh_from_db()
        assert request.round == 2
        assert request.scope["target"]["address"] == "memory:elsewhere"

    def test_a_change_that_leaves_nobody_cancels(self, world: World):
        request = world.submit()
        world.groups["security"].user_set.clear()
        world.server.levels["read-only"] = ("may read", "more")
        administration.save_level(world.read, by=world.ada)
        request.refresh_from_db()
        assert request.state == RequestState.CANCELLED
        assert "“Security”" in request.decision_note


class TestTargets:
    def test_a_move_clears_the_secret(self, world: World):
        assert world.target.secrets
        world.target.config = {"name": "elsewhere"}
        administration.save_target(world.target, by=world.ada, clear_secrets={})
        world.target.refresh_from_db()
        assert world.target.secrets == {}

    def test_a_move_is_refused_while_a_grant_has_not_ended(self, world: World):
        world.approved()
        world.target.config = {"name": "elsewhere"}
        with pytest.raises(WrongState) as refused:
            administration.save_target(world.target, by=world.ada, clear_secrets={})
        assert refused.value.code == "grants_open"

    def test_a_secret_is_sealed_for_its_place(self, world: World):
        sealed = world.target.secrets["password"]
        assert "admin" not in sealed
        with connection.cursor() as cursor:
            cursor.execute("SELECT secrets::text FROM approvals_target")
            assert "admin" not in cursor.fetchone()[0]

    @pytest.mark.parametrize("field", [{"reach": "gateway"}, {"risk": "high"}])
    def test_what_is_not_built_is_refused_with_a_reason(self, world: World, field):
        with pytest.raises(Invalid) as refused:
            save_level(world, name="read-only", rank=3, **field)
        assert "gateway" in str(refused.value.fields)
        level = AccessLevel(
            target=world.target, name="x", rank=9, max_duration=1, **{"risk": "low", **field}
        )
        with pytest.raises(DatabaseError), transaction.atomic():
            level.save()
