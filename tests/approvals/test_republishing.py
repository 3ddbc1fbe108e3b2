"""ada publishes while requests wait: they are kept, weighed anew with what fits, or cancelled."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg
import pytest

from approvals import administration, republishing, workflow
from approvals.administration import PolicyDraft
from approvals.errors import Invalid, WrongState
from approvals.models import AccessRequest, Grant, Policy, RequestStage, Vote
from approvals.policy import AppliesTo
from approvals.republishing import Pending
from approvals.states import RequestState, StageState
from audit.log import timeline
from audit.models import Event
from tests.approvals.admin_browser import browser, url
from tests.approvals.test_admin_policies import form_data, send
from tests.approvals.test_races import at_once, until_blocked, vote
from tests.conftest import Control
from tests.world import HOUR, World, publish, stage


def republish(world: World, *stages: Any, pending: str = Pending.RE_EVALUATE, **draft: Any) -> Any:
    """Another version of the policy; the same stages where none are given."""
    stages = stages or (stage(world, "Database", "dba"), stage(world, "Security", "security"))
    values: dict[str, Any] = {"applies_to": AppliesTo(), "max_duration": 8 * HOUR, **draft}
    policy = Policy.objects.get(pk=world.policy.pk)
    return administration.publish(
        policy,
        PolicyDraft(stages=stages, **values),
        based_on=policy.current,
        by=world.ada,
        pending=pending,
    )


def told(request: AccessRequest) -> list[str]:
    return [event.action for event in timeline(f"request:{request.pk}")]


def opened(request: AccessRequest) -> RequestStage:
    return RequestStage.objects.get(request=request, state=StageState.OPEN)


class TestKeeping:
    def test_is_what_happens_unless_somebody_chooses(self, world: World):
        request = world.submit()
        before = told(request)
        publish(world, stage(world, "Security", "security"))
        request.refresh_from_db()
        assert (request.policy_version.number, told(request)) == (1, before)
        world.vote(request, "bob")
        world.vote(request, "carol")
        assert Grant.objects.get().request == request

    def test_against_the_last_vote_at_once_both_are_done(self, committed: None, world: World):
        """And it is approved under the version it was asked under, however strict the new one."""
        publish(world, stage(world, "Database", "dba"))
        for number in range(4):
            request = world.submit()
            stricter = partial(
                republish,
                world,
                stage(world, f"Strict {number}", "dba", "security"),
                pending="keep",
            )
            voted, published = at_once(vote(world, request, "bob"), stricter)
            assert not isinstance(voted, Exception)
            assert not isinstance(published, Exception)
            request.refresh_from_db()
            assert request.state == RequestState.APPROVED
            assert request.policy_version != published
            publish(world, stage(world, "Database", "dba"))


class TestWeighingAnew:
    def test_the_chain_begins_under_the_new_version(self, world: World):
        request = world.submit()
        version = republish(world, stage(world, "Security", "security", minimum=2))
        request.refresh_from_db()
        assert (request.policy_version, request.round) == (version, 2)
        assert (opened(request).name, opened(request).total) == ("Security", 2)
        event = timeline(f"request:{request.pk}").get(action="accessrequest.reevaluated")
        assert (event.actor_name, event.data["before"]) == ("ada", "Production v1")
        assert event.scope_hash == request.scope_hash != event.data["scope_hash_before"]

    def test_votes_that_still_fit_stay_and_others_are_void(self, world: World):
        request = world.submit()
        seen = request.scope_hash
        world.vote(request, "bob")
        republish(
            world, stage(world, "Database", "dba", minimum=2), stage(world, "Last", "security")
        )
        [counts] = Vote.objects.counting().filter(stage__request=request)
        assert (counts.voter, counts.stage, counts.scope_hash) == (
            world.bob,
            opened(request),
            seen,
        )
        republish(world, stage(world, "Security", "security"))
        assert not Vote.objects.counting().filter(stage__request=request).exists()
        assert told(request).count("vote.carried") == 1
        voided = timeline(f"request:{request.pk}").get(action="vote.voided")
        assert voided.data["reason"] == "policy_changed"

    def test_a_stage_that_they_fill_passes_and_the_next_one_opens(self, world: World):
        request = world.submit()
        world.vote(request, "bob")
        republish(world)
        assert opened(request).name == "Security"
        assert opened(request).round == 2

    def test_a_shorter_chain_that_they_complete_is_approved(self, world: World):
        request = world.submit()
        world.vote(request, "bob")
        republish(world, stage(world, "Database", "dba"))
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED
        assert Grant.objects.get().scope_hash == request.scope_hash

    def test_whoever_has_left_meanwhile_counts_no_more(self, world: World):
        request = world.submit()
        world.vote(request, "bob")
        world.groups["dba"].user_set.remove(world.bob)
        republish(world)
        assert opened(request).name == "Database"
        assert not Vote.objects.counting().filter(stage__request=request).exists()

    def test_the_time_to_decide_may_become_shorter_and_never_longer(self, world: World):
        request = world.submit()
        before = request.pending_until
        republish(world, pending_ttl=7 * 86400)
        request.refresh_from_db()
        assert request.pending_until == before
        republish(world, pending_ttl=HOUR)
        request.refresh_from_db()
        assert (request.pending_until - request.submitted_at).total_seconds() == HOUR

    @pytest.mark.parametrize(
        ("draft", "why"),
        [
            ({"max_duration": HOUR // 2}, "Production v2 allows up to 30 min."),
            ({"ticket_required": True}, "Production v2 wants a ticket."),
            (
                {"applies_to": AppliesTo(environments=["staging"])},
                "No policy governs this any more.",
            ),
        ],
    )
    def test_what_it_does_not_allow_is_cancelled_and_why_is_said(
        self, world: World, draft: Any, why: str
    ):
        request = world.submit()
        republish(world, **draft)
        request.refresh_from_db()
        assert (request.state, request.decision_note) == (RequestState.CANCELLED, why)

    def test_so_is_what_nobody_could_decide(self, world: World):
        request = world.submit()
        republish(world, stage(world, "Database", "nobody"))
        request.refresh_from_db()
        assert request.state == RequestState.CANCELLED
        assert "Nobody could fill the stage “Database”" in request.decision_note

    def test_another_policy_may_govern_it_now(self, world: World):
        request = world.submit()
        other = Policy.objects.create(name="Rest", rank=90)
        publish(world, stage(world, "All", "security"), policy=other)
        republish(world, applies_to=AppliesTo(environments=["staging"]))
        request.refresh_from_db()
        assert str(request.policy_version) == "Rest v1"

    def test_requests_of_other_policies_are_left_alone(self, world: World):
        other = Policy.objects.create(name="First", rank=1)
        publish(world, policy=other)
        request = world.submit()
        before = told(request)
        republish(world, stage(world, "Security", "security"))
        assert told(request) == before

    def test_access_that_was_approved_stays(self, world: World):
        grant = world.approved()
        republish(world, max_duration=60)
        grant.refresh_from_db()
        assert (grant.duration, grant.state) == (HOUR, "scheduled")

    def test_against_a_vote_at_once_nothing_counts_twice(self, committed: None, world: World):
        """The vote comes first and is carried, or last and is told that the scope has changed."""
        for _ in range(4):
            request = world.submit()
            voted, published = at_once(vote(world, request, "bob"), partial(republish, world))
            assert not isinstance(published, Exception)
            count = Vote.objects.counting().filter(stage__request=request).count()
            late = isinstance(voted, WrongState)
            assert (count, opened(request).name) == ((0, "Database") if late else (1, "Security"))
            workflow.cancel(request.pk, by=world.alice)


class TestCancelling:
    def test_all_that_wait_are_told_to_ask_again(self, world: World):
        requests = [world.submit(), world.submit("amir", world.write)]
        republish(world, pending=Pending.CANCEL)
        for request in requests:
            request.refresh_from_db()
            assert request.state == RequestState.CANCELLED
            assert "Ask again." in request.decision_note

    def test_against_the_last_vote_at_once_one_of_them_decides(self, committed: None, world: World):
        """Approved and with a grant, or cancelled and without: never a grant of what is cancelled,
        nor a vote that is taken and comes to nothing without a word."""
        publish(world, stage(world, "Database", "dba"))
        for _ in range(4):
            request = world.submit()
            again = partial(
                republish, world, stage(world, "Database", "dba"), pending=Pending.CANCEL
            )
            voted, published = at_once(vote(world, request, "bob"), again)
            assert not isinstance(published, Exception)
            request.refresh_from_db()
            late = isinstance(voted, WrongState)
            assert request.state == (RequestState.CANCELLED if late else RequestState.APPROVED)
            assert Grant.objects.filter(request=request).count() == (0 if late else 1)
            said = [one for one in told(request) if one in ("vote.cast", "grant.scheduled")]
            assert said == ([] if late else ["vote.cast", "grant.scheduled"])

    @pytest.mark.parametrize("first", ["vote", "publication"])
    def test_whoever_waits_for_the_other_sees_what_it_did(
        self, committed: None, world: World, control: Control, first: str
    ):
        """Either of them has the request's lock when the other comes."""
        publish(world, stage(world, "Database", "dba"))
        request = world.submit()
        cast = vote(world, request, "bob")
        cancel = partial(republish, world, stage(world, "Other", "dba"), pending=Pending.CANCEL)
        ahead, behind = (cast, cancel) if first == "vote" else (cancel, cast)
        with psycopg.connect(control.url()) as other, ThreadPoolExecutor(2) as pool:
            # What tells people of either is written last, with the request locked.
            other.execute("LOCK TABLE approvals_notice IN SHARE MODE")
            had = pool.submit(at_once, ahead)
            until_blocked(control)
            waits = pool.submit(at_once, behind)
            until_blocked(control, 2)
            other.commit()
            results = [had.result(timeout=10)[0], waits.result(timeout=10)[0]]
        request.refresh_from_db()
        assert not isinstance(results[0], Exception)
        assert isinstance(results[1], WrongState) == (first == "publication")
        decided = RequestState.APPROVED if first == "vote" else RequestState.CANCELLED
        assert request.state == decided
        assert Grant.objects.count() == (first == "vote")

    def test_more_than_can_be_settled_at_once_are_refused_and_nothing_is_published(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(republishing, "MOST", 1)
        world.submit()
        world.submit("amir")
        with pytest.raises(Invalid, match="Publish and keep them"):
            republish(world, pending=Pending.CANCEL)
        world.policy.refresh_from_db()
        assert world.policy.current is not None
        assert world.policy.current.number == 1

    def test_a_choice_that_is_none_is_refused(self, world: World):
        with pytest.raises(Invalid):
            republish(world, pending="forget")


class TestInTheAdmin:
    @pytest.mark.slow
    def test_the_effect_tells_each_request_and_changes_nothing(self, world: World):
        request = world.submit()
        world.vote(request, "bob")
        world.approved("amir")
        ada, events = browser(world.ada), Event.objects.count()
        answer = send(ada, world, rehearse="yes", pending="re_evaluate")
        page = answer.content.decode()
        assert "Nothing is published yet." in page
        assert (
            f"request {request.pk}</a> of alice goes under Production v2, with 1 of 1 vote" in page
        )
        assert "Access that was approved under it (1 open or to be opened) stays" in page
        assert Event.objects.count() == events
        request.refresh_from_db()
        assert request.round == 1

    def test_what_was_chosen_is_done(self, world: World):
        request = world.submit()
        send(browser(world.ada), world, pending="cancel")
        request.refresh_from_db()
        assert request.state == RequestState.CANCELLED

    def test_unless_chosen_requests_are_kept(self, world: World):
        request = world.submit()
        ada = browser(world.ada)
        assert form_data(ada, world)["pending"] == "keep"
        ada.post(url("policy", "publish", world.policy.pk), form_data(ada, world))
        request.refresh_from_db()
        assert request.state == RequestState.PENDING
