"""bob approves less than alice asked for: a shorter time, a lower level, never more.

What is opened is the least of what those whose approval counts left of it.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import DatabaseError, transaction
from guardian.shortcuts import assign_perm, remove_perm

from approvals import administration, editing, narrowing, opening, policy, reductions
from approvals.errors import DebugflowError
from approvals.models import AccessLevel, AccessRequest, Grant, Policy, Vote
from approvals.narrowing import Less
from approvals.policy import AppliesTo
from approvals.sentences import event_sentence
from approvals.states import EndReason, GrantState, RequestState, StageState
from audit import clock as database_clock
from audit.log import timeline
from audit.models import Event
from tests.approvals.test_delegating import lend
from tests.approvals.test_extensions import LONGER, WINDOW, ask, extend
from tests.approvals.test_republishing import republish
from tests.world import HOUR, World, publish, save_level, stage

HALF = HOUR // 2


def less(level: AccessLevel | None = None, duration: int | None = None) -> Less:
    """That much less, by somebody who has read the level as it is now."""
    if level is None:
        return Less(duration=duration)
    level.refresh_from_db()
    return Less(duration=duration, level=level.pk, level_hash=narrowing.Lower(level).hash)


def approved(world: World, request: AccessRequest) -> Any:
    """What carol's approval, the last, opens."""
    world.vote(request, "carol")
    return Grant.objects.select_related("level", "beneficiary").get(request=request)


def refused(call: Any) -> tuple[str, str]:
    """The code, and what is said at the field or else for all."""
    with pytest.raises(DebugflowError) as caught:
        call()
    fields = getattr(caught.value, "fields", {})
    return caught.value.code, " ".join(fields.get("less", [])) or caught.value.message


def resave(world: World, level: AccessLevel, **changes: Any) -> None:
    fresh = AccessLevel.objects.select_related("target").get(pk=level.pk)
    for name, value in changes.items():
        setattr(fresh, name, value)
    administration.save_level(fresh, by=world.ada)


def told(request: AccessRequest, action: str) -> list[str]:
    events = timeline(f"request:{request.pk}").filter(action=action)
    return [event_sentence(event) for event in events]


class TestWhatIsOpened:
    def test_is_the_shortest_time_and_the_lowest_level(self):
        names = ("looking", "read-only", "read-write")
        levels = {name: AccessLevel(name=name, rank=rank) for rank, name in enumerate(names)}
        asked = {"level": "read-write", "reach": "direct", "guardrails": [], "ticket": "T"}
        request = AccessRequest(level=levels["read-write"], duration=HOUR, scope=asked)
        for bob, carol, opens in (
            ((None, None), (None, None), (HOUR, "read-write")),
            ((HALF, None), (None, None), (HALF, "read-write")),
            ((None, None), (600, None), (600, "read-write")),
            ((HALF, None), (600, None), (600, "read-write")),
            ((None, "read-only"), (None, None), (HOUR, "read-only")),
            ((HALF, None), (None, "read-only"), (HALF, "read-only")),
            ((None, "read-only"), (900, "looking"), (900, "looking")),
            ((900, "looking"), (HALF, "read-only"), (900, "looking")),
        ):
            votes = [
                Vote(
                    pk=number,
                    reduced_duration=duration,
                    reduced_level=levels[name] if name else None,
                    reduced_scope={**asked, "level": name},
                )
                for number, (duration, name) in enumerate((bob, carol))
                if duration or name
            ]
            for given in (votes, votes[::-1]):
                what = reductions.outcome(request, given)
                assert (what.duration, what.level.name, what.less) == (*opens, bool(votes))
                assert what.scope == {**asked, "level": opens[1], "duration": opens[0]}

    def test_two_stages_each_take_something_away(self, world: World):
        request = world.submit(level=world.write)
        asked_for = request.scope_hash
        world.vote(request, "bob", less=less(duration=HALF))
        [vote] = Vote.objects.all()
        assert (vote.scope_hash, vote.reduced_level) == (asked_for, None)
        assert vote.reduced_scope == {**request.scope, "duration": HALF}
        world.vote(request, "carol", less=less(world.read))
        grant = Grant.objects.select_related("level", "beneficiary").get()
        request.refresh_from_db()
        assert (request.scope_hash, request.duration, request.level) == (
            asked_for,
            HOUR,
            world.write,
        )
        assert (grant.level, grant.duration) == (world.read, HALF)
        assert grant.scope["level"]["id"] == world.read.pk
        assert grant.scope_hash not in (asked_for, vote.reduced_hash)
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        account = world.server.accounts[grant.account]
        assert (grant.state, account.level) == (GrantState.ACTIVE, "read-only")
        assert account.valid_until == grant.expires_at
        assert grant.expires_at <= database_clock.now() + timedelta(seconds=HALF)
        assert told(request, "vote.cast") == [
            "bob approved only 30 min in “Database”.",
            "carol approved only read-only in “Security”.",
        ]
        assert told(request, "grant.scheduled") == [
            "carol scheduled the access: 30 min of read-only, less than was asked."
        ]

    def test_a_vote_that_is_replaced_takes_nothing_away(self, world: World):
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read, 600))
        world.vote(request, "bob", less=less(duration=HALF))
        world.vote(request, "bob")
        world.vote(request, "dan")
        grant = Grant.objects.get()
        assert (grant.scope, grant.scope_hash) == (request.scope, request.scope_hash)
        assert told(request, "vote.replaced") == [
            "bob approved only 30 min in “Two”.",
            "bob approved all that was asked in “Two”.",
        ]

    def test_nor_does_that_of_somebody_who_left_before_it_counted(self, world: World):
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read))
        world.groups["dba"].user_set.remove(world.bob)
        world.vote(request, "dan", less=less(duration=HALF))
        world.vote(request, "dora")
        grant = Grant.objects.get()
        assert (grant.level, grant.duration) == (world.write, HALF)

    def test_a_lent_vote_may_take_away_too(self, world: World):
        lend(world, "bob", "olga")
        request = world.submit(level=world.write)
        world.vote(request, "olga", less=less(world.read), on_behalf_of="bob")
        assert approved(world, request).level == world.read

    def test_weighed_anew_each_vote_keeps_what_it_took_away(self, world: World):
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read, HALF))
        republish(world, stage(world, "Database", "dba"), stage(world, "Last", "security"))
        [vote] = Vote.objects.counting()
        assert (vote.reduced_level, vote.reduced_duration) == (world.read, HALF)
        grant = approved(world, request)
        request.refresh_from_db()
        assert (grant.level, grant.duration) == (world.read, HALF)
        assert grant.scope["policy_version"] == request.policy_version_id
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert grant.state == GrantState.ACTIVE

    def test_weighed_anew_with_fewer_votes_it_opens_no_more_than_before(self, world: World):
        """Both had to approve and one is enough now: it is not whoever approved all of it."""
        publish(world, stage(world, "Two", "dba", minimum=2), stage(world, "Last", "security"))
        request = world.submit(level=world.write)
        world.vote(request, "dan")
        world.vote(request, "bob", less=less(world.read, HALF))
        republish(world, stage(world, "One", "dba"), stage(world, "Last", "security"))
        [vote] = Vote.objects.counting()
        assert vote.voter == world.bob
        grant = approved(world, request)
        assert (grant.level, grant.duration) == (world.read, HALF)

    def test_weighed_anew_a_lower_level_wants_the_people_of_its_own_policy(self, world: World):
        wary = administration.change_policy(Policy(name="Wary", rank=1), by=world.ada)
        only_read = AppliesTo(levels=[world.read.pk])
        publish(world, stage(world, "Two", "dba", minimum=2), policy=wary, applies_to=only_read)
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read))
        republish(world, stage(world, "One", "dba"))
        request.refresh_from_db()
        assert request.state == RequestState.PENDING
        assert Vote.objects.get(voter=world.bob).void_reason == "policy_changed"


class TestNoLess:
    def test_what_is_not_less_is_refused(self, world: World):
        request = world.submit(level=world.write)
        other = save_level(world, name="admin", rank=3, rights={"level": "read-write"})
        elsewhere = AccessLevel.objects.create(
            target=administration.save_target(
                type(world.target)(
                    name="other", kind="memory", environment="staging", config={"name": "other"}
                ),
                by=world.ada,
                clear_secrets={"password": "admin"},
            ),
            name="none",
            risk="low",
            rank=0,
            max_duration=HOUR,
        )
        lower = "Choose a lower level of the same target."
        shorter = "Shorter than the 1 h that were asked for."
        for asked, why in (
            (Less(), "Say how much less: a shorter time, a lower level, or both."),
            (less(duration=0), shorter),
            (less(duration=-60), shorter),
            (less(duration=HOUR), shorter),
            (less(duration=2 * HOUR), shorter),
            (less(world.write), lower),
            (less(other), lower),
            (less(elsewhere), lower),
            (Less(level=2**40), lower),
        ):
            assert refused(lambda asked=asked: world.vote(request, "bob", less=asked)) == (
                "not_less",
                why,
            )
        code, said = refused(lambda: world.vote(request, "bob", "deny", less=less(world.read)))
        assert (code, said) == ("not_less", "A denial gives nothing, so there is no less of it.")
        # Whoever may not vote at all is told that, and nothing of levels.
        assert refused(lambda: world.vote(request, "mallory", less=Less()))[0] == "not_eligible"
        assert not Vote.objects.exists()
        assert {"not_less"} < {
            event.data["code"] for event in Event.objects.filter(action="vote.refused")
        }

    def test_a_level_that_alice_could_not_have_is_not_given_instead(self, world: World):
        request = world.submit(level=world.write, duration=HOUR)

        def why() -> str:
            code, said = refused(lambda: world.vote(request, "bob", less=less(world.read)))
            assert code == "not_less"
            return said.removeprefix("read-only cannot be given instead: ")

        resave(world, world.read, max_duration=HALF)
        assert why() == (
            "read-only lasts up to 30 min, the limit of the level read-only: give it for a "
            "shorter time."
        )
        remove_perm("approvals.request_accesslevel", world.groups["developers"], world.read)
        assert why() == "alice may not ask for it."
        assign_perm("approvals.request_accesslevel", world.groups["developers"], world.read)
        AccessLevel.objects.filter(pk=world.read.pk).update(summarised_at=None)
        assert why() == "it has not been checked on its target yet."
        AccessLevel.objects.filter(pk=world.read.pk).update(enabled=False)
        assert why() == "it is switched off."
        assert self.offered(request) == []
        resave(world, world.read, max_duration=HOUR, enabled=True)
        assert self.offered(request) == ["read-only"]

    def offered(self, request: AccessRequest) -> list[str]:
        stages = policy.load_chain(request).stages
        return [one.level.name for one in narrowing.offered(request, stages)]

    def test_nor_one_whose_policy_wants_more_people_than_this_chain(self, world: World):
        """A lower rank is no proof: who decides about it, its own policy says."""
        request = world.submit(level=world.write)
        reads = Policy.objects.create(name="Reads", rank=1)
        only = AppliesTo(levels=[world.read.pk])
        owners: Any = {"fallback_group": world.groups["owners"]}
        for stages, more, wanted in (
            ((stage(world, "One", "dba"),), {}, True),
            ((stage(world, "One", "dba", **owners),), {}, True),
            ((stage(world, "Either", "dba", "owners", minimum=0, total=1),), {}, True),
            ((stage(world, "Both", "dba", "security"),), {}, True),
            ((stage(world, "One", "dba"),), {"allow_delegation": False}, False),
            ((stage(world, "One", "dba"),), {"review_all": True}, False),
            ((stage(world, "Owner", "owners"),), {}, False),
            ((stage(world, "Two", "dba", minimum=2),), {}, False),
            ((stage(world, "Three", "dba", "security", minimum=1, total=3),), {}, False),
        ):
            publish(world, *stages, policy=reads, applies_to=only, **more)
            assert self.offered(request) == (["read-only"] if wanted else [])
        code, said = refused(lambda: world.vote(request, "bob", less=less(world.read)))
        assert (code, said) == (
            "not_less",
            "read-only cannot be given instead: Reads v9 asks for others, or for more, than this "
            "chain. alice can ask for it.",
        )
        # Nor where others may stand in here whom that policy does not ask.
        publish(world, stage(world, "One", "dba"), policy=reads, applies_to=only)
        publish(world, stage(world, "One", "dba", **owners))
        assert self.offered(world.submit("amir", level=world.write)) == []

    def test_nor_one_that_changed_since_it_was_read(self, world: World):
        request = world.submit(level=world.write)
        seen = less(world.read)
        world.server.levels["read-only"] = ("may read more",)
        resave(world, world.read)
        assert refused(lambda: world.vote(request, "bob", less=seen))[0] == "scope_changed"
        assert not Vote.objects.exists()

    def test_no_token_gives_a_level_of_more_risk_than_it_may(self, world: World):
        request = world.submit(level=world.write)
        resave(world, world.write, risk="low")
        resave(world, world.read, risk="medium")
        vote = partial(world.vote, request, "bob", less=less(world.read), risks=("low",))
        assert refused(vote)[0] == "token_risk"


class TestDrift:
    @pytest.mark.parametrize("change", ["rights", "off", "rank of it", "rank of the asked"])
    def test_of_the_lower_level_voids_that_vote_and_the_stage_goes_on(self, world: World, change):
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read))
        match change:
            case "rights":
                world.server.levels["read-only"] = ("may read more",)
                resave(world, world.read)
            case "off":
                resave(world, world.read, enabled=False)
            case "rank of it":
                resave(world, world.read, rank=9)
            case _:
                resave(world, world.write, rank=0)
        request.refresh_from_db()
        assert (request.round, request.stages.get(state=StageState.OPEN).name) == (1, "Two")
        void = Vote.objects.get(stage__request=request, voided_at__isnull=False)
        assert (void.voter, void.void_reason) == (world.bob, "reduced_level_changed")
        assert told(request, "vote.voided") == [
            "ada made the vote of bob void: the lower level that it was for is not what it was."
        ]
        world.vote(request, "bob", less=less(duration=600))
        # Whoever changed it has edited it last, and does not decide about it.
        assert request.last_edited_by == world.ada

    def test_a_passed_stage_does_not_stand_without_it(self, world: World):
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read))
        world.server.levels["read-only"] = ("may read more",)
        resave(world, world.read)
        request.refresh_from_db()
        assert (request.round, request.state) == (2, RequestState.PENDING)
        assert request.stages.get(state=StageState.OPEN).name == "Database"
        assert not Vote.objects.counting().exists()
        assert told(request, "accessrequest.begun_anew") == [
            "ada changed read-only, which had been approved instead, so the chain began anew."
        ]
        world.vote(request, "bob", less=less(world.read))
        grant = approved(world, request)
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert (grant.state, grant.level) == (GrantState.ACTIVE, world.read)

    def test_nor_does_the_vote_of_whoever_changed_it(self, world: World):
        """ada approves, and changes then what it is to be: she has edited what she approved."""
        world.groups["security"].user_set.add(world.ada)
        publish(world, stage(world, "Three", "dba", "security", minimum=1, total=3))
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read))
        world.vote(request, "ada")
        resave(world, world.read, enabled=False)
        request.refresh_from_db()
        assert (request.round, request.last_edited_by) == (2, world.ada)
        assert not Vote.objects.counting().exists()
        reasons = set(Vote.objects.values_list("void_reason", flat=True))
        assert reasons == {"reduced_level_changed", "begun_anew"}
        refused(lambda: world.vote(request, "ada"))

    def test_nor_does_a_chain_that_nobody_could_fill_without_them(self, world: World):
        world.groups["watch"] = Group.objects.create(name="watch")
        world.groups["watch"].user_set.add(world.ada)
        publish(world, stage(world, "Two", "dba", minimum=2), stage(world, "Last", "watch"))
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read))
        resave(world, world.read, enabled=False)
        request.refresh_from_db()
        assert (request.round, request.state) == (2, RequestState.CANCELLED)
        assert "watch" in request.decision_note

    def test_a_shorter_time_is_no_matter_of_the_lower_level(self, world: World):
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(duration=HALF))
        resave(world, world.read, enabled=False)
        assert Vote.objects.counting().count() == 1

    def test_after_the_approval_only_what_is_opened_matters(self, world: World):
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read))
        grant = approved(world, request)
        world.server.levels["read-write"] = ("may read", "may write all")
        resave(world, world.write)
        request.refresh_from_db()
        assert reductions.opens(request, []).level == world.read, "whatever becomes of votes"
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert grant.state == GrantState.ACTIVE
        request = world.submit("amir", level=world.write)
        world.vote(request, "bob", less=less(world.read))
        grant = approved(world, request)
        world.server.levels["read-only"] = ("may read all",)
        resave(world, world.read)
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert (grant.state, grant.end_reason, grant.end_code) == (
            GrantState.ENDED,
            EndReason.FAILED,
            "scope_changed",
        )

    def test_an_edit_voids_it_like_any(self, world: World):
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read))
        wish = world.wish(duration=2 * HOUR)
        editing.edit(request.pk, by=world.alice, wish=wish, scope_hash=request.scope_hash)
        assert not Vote.objects.counting().exists()


class TestLongerAccess:
    @pytest.fixture
    def near_end(self, world: World, clock: Any) -> Any:
        """alice's half hour of read-only, of an hour of read-write that she asked for."""
        publish(world, **LONGER, bridge=300)
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read, HALF + 600))
        grant = approved(world, request)
        opening.open_grant(grant.pk, worker="w1")
        clock.forward(HALF + 600 - WINDOW + 1)
        grant.refresh_from_db()
        return grant

    def test_prolongs_the_lower_level_and_may_be_given_for_less(self, world: World, near_end: Any):
        before = near_end.expires_at
        request = ask(world, near_end, duration=HOUR)
        assert request.scope["level"]["id"] == world.read.pk
        for asked, why in (
            (less(duration=HOUR), "Shorter than the 1 h that were asked for."),
            (less(duration=300), "More than 5 min, which the policy bridges by itself."),
            (
                Less(level=world.read.pk),
                "Longer access is for the level that is open: only its time can be less.",
            ),
        ):
            assert refused(lambda asked=asked: world.vote(request, "carol", less=asked)) == (
                "not_less",
                why,
            )
        world.vote(request, "carol", less=less(duration=HALF))
        grant = extend(near_end)
        assert grant.expires_at == before + timedelta(seconds=HALF)
        assert world.server.accounts[grant.account].valid_until == grant.expires_at
        [said] = timeline(f"request:{grant.request_id}").filter(action="grant.extending")
        assert event_sentence(said) == (
            "carol agreed that the access goes on for 30 min more, less than was asked, "
            "extension 1."
        )

    def test_the_database_lets_it_go_no_further_than_that(self, world: World, near_end: Any):
        """Even for whoever writes votes and states past every verb."""
        request = ask(world, near_end, duration=HOUR)
        last = request.stages.get(state=StageState.OPEN)
        Vote.objects.create(
            stage=last,
            voter=world.carol,
            decision="approve",
            scope_hash=request.scope_hash,
            voted_at=database_clock.now(),
            reduced_duration=HALF,
            reduced_scope={**request.scope, "duration": HALF},
            reduced_hash="h",
        )
        request.stages.filter(pk=last.pk).update(state=StageState.PASSED)
        decided = {"state": RequestState.APPROVED, "decided_at": database_clock.now()}
        AccessRequest.objects.filter(pk=request.pk).update(**decided)
        agreed = Grant.objects.filter(pk=near_end.pk)
        with pytest.raises(DatabaseError, match="completed chain"), transaction.atomic():
            agreed.update(extended_count=1, extended_until=request.wanted_until)
        until = near_end.expires_at + timedelta(seconds=HALF)
        assert agreed.update(extended_count=1, extended_until=until) == 1


class TestTheDatabase:
    def test_refuses_a_grant_of_more_than_the_least(self, world: World):
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read, HALF))
        grant = approved(world, request)
        asked = {"scope": request.scope, "scope_hash": request.scope_hash}
        more: list[dict[str, Any]] = [
            {**asked, "duration": HOUR, "level": world.write},
            {"duration": HOUR, "scope": {**grant.scope, "duration": HOUR}},
            {"level": world.write},
            {"scope_hash": request.scope_hash},
        ]
        for changes in more:
            with pytest.raises(DatabaseError, match="completed chain"), transaction.atomic():
                Grant.objects.filter(pk=grant.pk).update(**changes)

    def test_refuses_a_vote_for_more_or_for_something_else(self, world: World):
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read, HALF))
        [vote] = Vote.objects.all()
        kept: Any = vote.reduced_scope
        never: list[dict[str, Any]] = [
            {"reduced_duration": HOUR, "reduced_scope": {**kept, "duration": HOUR}},
            {"reduced_duration": 60},
            {"reduced_level": world.write},
            {"reduced_level": None},
            {"reduced_scope": {**kept, "beneficiary": world.mallory.pk}},
            {"reduced_scope": {**kept, "target": {**kept["target"], "address": "elsewhere"}}},
        ]
        for changes in never:
            with pytest.raises(DatabaseError, match="takes away"), transaction.atomic():
                Vote.objects.filter(pk=vote.pk).update(**changes)
        half: list[dict[str, Any]] = [
            {"reduced_hash": ""},
            {"decision": "deny"},
            {"reduced_scope": None},
        ]
        for changes in half:
            with pytest.raises(DatabaseError, match="whole_approval"), transaction.atomic():
                Vote.objects.filter(pk=vote.pk).update(**changes)
