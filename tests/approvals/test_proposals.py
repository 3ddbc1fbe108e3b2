"""ada widens access, adam agrees: never the one who proposed it, and never the one who gains."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction

from approvals import administration, delegating, proposals
from approvals.administration import PolicyDraft
from approvals.errors import DebugflowError, Invalid, NotAllowed, Proposed, WrongState
from approvals.models import AccessLevel, AccessRequest, FourEyes, Proposal, Target, Vote
from approvals.notify import expanding, inbox
from approvals.policy import AppliesTo
from approvals.republishing import Pending
from approvals.sentences import event_sentence
from approvals.states import ProposalState
from audit.models import Event
from debugflow.accounts import powers
from debugflow.diagnosis import ledger
from debugflow.wording import ONE_SUPERUSER
from tests.approvals.admin_browser import staff
from tests.approvals.test_less import less
from tests.approvals.test_second_look import (
    NEVER_WAITS,
    WIDENS,
    as_admin,
    lent,
    rules_of_their_own,
)
from tests.approvals.test_second_look import two as two
from tests.conftest import Clock
from tests.world import HOUR, World, publish, stage

S = ProposalState


def proposed(act: Callable[[], Any]) -> Proposal:
    with pytest.raises(Proposed) as raised:
        act()
    return Proposal.objects.get(pk=raised.value.proposal_id)


def longer(world: World, *, hours: int = 5, by: Any = None) -> Proposal:
    """read-write on orders is to last longer."""

    def save() -> None:
        level = AccessLevel.objects.get(pk=world.write.pk)
        level.max_duration = hours * HOUR
        administration.save_level(level, by=by or world.ada)

    return proposed(save)


def joining(world: World, who: str, group: str = "dba") -> Proposal:
    user = world.people[who]

    def join() -> None:
        user.groups.add(world.groups[group])

    return proposed(lambda: as_admin(world, powers.account(user), join))


def agree(found: Proposal, person: Any) -> Proposal:
    return proposals.agree(found.pk, by=person, digest=found.digest)


def refused(act: Callable[[], Any], code: str) -> str:
    with pytest.raises(DebugflowError) as raised:
        act()
    assert raised.value.code == code
    return raised.value.message


def lasts(world: World) -> int:
    return AccessLevel.objects.get(pk=world.write.pk).max_duration // HOUR


@pytest.mark.parametrize("name", WIDENS)
def test_what_is_agreed_to_is_done_as_it_was_proposed(two: World, settings: Any, name: str):
    """Of every kind: the same change by the same verb, once, with both names in the log, after
    words that say what it widens."""
    if "rules of its own" in name:
        rules_of_their_own(two, settings)
    act, told = WIDENS[name]
    found = proposed(lambda: act(two))
    assert told in " ".join(found.effects)
    before = Event.objects.latest("id").pk
    done = agree(found, two.adam)
    assert (done.state, done.decided_by) == (S.CARRIED_OUT, two.adam)
    events = list(Event.objects.filter(pk__gt=before, actor_type="user").order_by("id"))
    assert len(events) >= 2
    assert {(event.actor_name, event.on_behalf_of_name) for event in events} == {("adam", "ada")}
    assert events[-1].action == "proposal.carried_out"
    assert event_sentence(events[0]).endswith(", as ada had proposed.")
    assert events[-1].data["effects"] == found.effects
    with pytest.raises(WrongState):
        agree(found, two.adam)


def test_nothing_is_done_before_somebody_agrees(two: World):
    found = longer(two)
    assert lasts(two) == 4
    assert found.differences == [["Lasts at most", "4 h", "5 h"]]
    agree(found, two.adam)
    assert lasts(two) == 5


def test_a_whole_form_waits_with_the_part_that_widens(two: World):
    level = AccessLevel.objects.get(pk=two.write.pk)
    level.max_duration, level.description = 5 * HOUR, "Careful."
    found = proposed(lambda: administration.save_level(level, by=two.ada))
    assert AccessLevel.objects.get(pk=two.write.pk).description == ""
    agree(found, two.adam)
    assert AccessLevel.objects.get(pk=two.write.pk).description == "Careful."


def test_who_may_not_agree(two: World):
    found = longer(two)
    editor = staff(two.olga, "change_policy")
    amir = type(two.ada).objects.get(pk=two.amir.pk)
    amir.is_superuser = True  # and a developer, who may ask for the level
    amir.save()
    for person, code in (
        (two.ada, "self_approval"),
        (amir, "self_approval"),
        (editor, "not_admin"),
        (two.mallory, "not_admin"),
    ):
        words = {"by": person, "digest": found.digest}
        refused(partial(proposals.agree, found.pk, **words), code)
        refused(partial(proposals.deny, found.pk, note="No.", **words), code)
    assert lasts(two) == 4
    told = Event.objects.filter(action="agree.refused").values_list("actor_name", "data__code")
    assert set(told) == {
        ("ada", "self_approval"),
        ("amir", "self_approval"),
        ("olga", "not_admin"),
        ("mallory", "not_admin"),
    }


def test_whoever_holds_the_same_right_may_agree(two: World):
    """Which is another one where something is added."""
    found = longer(two)
    assert agree(found, staff(two.olga, "change_accesslevel")).state == S.CARRIED_OUT
    fields = {"target": two.target, "rights": {"level": "read-only"}, "risk": "low", "rank": 7}
    level = AccessLevel(name="all", max_duration=HOUR, **fields)
    by = staff(two.bob, "add_accesslevel")
    found = proposed(lambda: administration.save_level(level, by=by))
    refused(lambda: agree(found, two.olga), "not_admin")
    agree(found, staff(two.carol, "add_accesslevel"))
    assert AccessLevel.objects.filter(name="all").exists()


def test_nobody_agrees_to_more_for_themselves(two: World):
    """Superusers included: adam is to decide about production."""
    found = joining(two, "adam")
    assert found.beneficiaries == [two.adam.pk]
    refused(lambda: agree(found, two.adam), "self_approval")
    eva = type(two.ada).objects.create_superuser("eva", "eva@example.com", "a long password")
    agree(found, eva)
    assert two.adam.groups.filter(name="dba").exists()


def test_the_database_knows_it_as_well(two: World):
    found = joining(two, "adam")
    wrong: list[dict[str, Any]] = [
        {"decided_by": two.ada},
        {"state": S.CARRIED_OUT, "decided_by": two.adam, "decided_at": found.proposed_at},
        {"state": S.CARRIED_OUT},
        {"arguments": {}},
        {"beneficiaries": []},
    ]
    for changes in wrong:
        with pytest.raises(DatabaseError), transaction.atomic():
            Proposal.objects.filter(pk=found.pk).update(**changes)
    with pytest.raises(DatabaseError), transaction.atomic():
        found.delete()
    with pytest.raises(DatabaseError), transaction.atomic():
        FourEyes.objects.update(since=None)


@pytest.mark.slow
def test_whoever_proposed_it_is_who_made_it(two: World):
    """bob changes what alice waits for, and adam agrees: bob does not vote on it. ada has what
    waits weighed anew under other rules: all but her own."""
    request, two.people["bob"] = two.submit(), staff(two.bob, "change_accesslevel")
    level = AccessLevel.objects.get(pk=two.read.pk)
    level.rights = {"level": "read-write"}
    agree(proposed(lambda: administration.save_level(level, by=two.bob)), two.adam)
    with pytest.raises(NotAllowed):
        two.vote(request, "bob")
    two.groups["developers"].user_set.add(two.ada)
    own, base = two.submit("ada"), two.policy.versions.get()
    draft = PolicyDraft(
        applies_to=AppliesTo(), max_duration=8 * HOUR, stages=[stage(two, "Any", "dba")]
    )
    again = partial(administration.publish, two.policy, draft, based_on=base, by=two.ada)
    agree(proposed(partial(again, pending=Pending.RE_EVALUATE)), two.adam)
    assert AccessRequest.objects.get(pk=request.pk).policy_version.number == 2
    assert AccessRequest.objects.get(pk=own.pk).policy_version.number == 1


@pytest.mark.slow
def test_nor_is_a_lower_level_approved_by_whoever_proposed_what_it_is(two: World):
    """bob and ada approve; she proposes other rights for what bob left of it, and adam agrees."""
    two.groups["dba"].user_set.add(two.ada)
    agree(proposed(lambda: publish(two, stage(two, "Three", "dba", minimum=3))), two.adam)
    request = two.submit(level=two.write)
    two.vote(request, "bob", less=less(two.read))
    two.vote(request, "ada")
    level = AccessLevel.objects.get(pk=two.read.pk)
    level.rights = {"level": "read-write"}
    agree(proposed(lambda: administration.save_level(level, by=two.ada)), two.adam)
    request.refresh_from_db()
    assert (request.round, request.last_edited_by) == (2, two.ada)
    assert not Vote.objects.counting().exists()
    with pytest.raises(NotAllowed):
        two.vote(request, "ada")


def test_whoever_proposed_a_loan_has_chosen_who_votes(two: World):
    """ada has mallory vote for bob, and adam agrees: not about what ada asks for."""
    act = partial(delegating.delegate, two.bob.pk, by=two.ada, lending=lent("mallory"))
    agree(proposed(act), two.adam)
    two.groups["developers"].user_set.add(two.ada)
    with pytest.raises(NotAllowed):
        two.vote(two.submit("ada"), "mallory")
    two.vote(two.submit("alice"), "mallory")


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda world: NEVER_WAITS["a level lasts less"](world),
        lambda world: NEVER_WAITS["a level is switched off"](world),
        lambda world: NEVER_WAITS["a level is described"](world),
        lambda world: NEVER_WAITS["a target is switched off"](world),
        lambda world: agree(longer(world, hours=6), world.adam),
        lambda world: world.groups["developers"].user_set.add(world.mallory),
    ],
    ids=["narrowed", "off", "described", "target off", "longer already", "more people gain"],
)
def test_what_changed_meanwhile_is_not_overwritten(two: World, meanwhile: Any):
    found = longer(two)
    meanwhile(two)
    now = lasts(two)
    refused(lambda: agree(found, two.adam), "changed_since")
    found.refresh_from_db()
    assert (found.state, lasts(two)) == (S.FAILED, now)
    assert "has changed since" in found.note


def test_what_cannot_be_done_any_more_says_why(two: World):
    level = AccessLevel(
        target=two.target, name="all", rights={"level": "read-only"}, risk="low", rank=7
    )
    level.max_duration = HOUR
    found = proposed(lambda: administration.save_level(level, by=two.ada))
    same = AccessLevel.objects.get(pk=two.read.pk)
    same.name = "all"
    administration.save_level(same, by=two.ada)
    refused(lambda: agree(found, two.adam), "invalid")
    other = proposed(lambda: WIDENS["another group may ask"][0](two))
    two.groups["nobody"].delete()
    refused(lambda: agree(other, two.adam), "gone")
    notes = Proposal.objects.order_by("pk").values_list("state", "note")
    assert list(notes) == [
        (S.FAILED, "Access level with this Target and Name already exists."),
        (S.FAILED, "What it was about is not there any more."),
    ]


def test_whoever_proposed_it_may_still_do_so(two: World):
    found = longer(two)
    two.ada.is_active = False
    two.ada.save()
    refused(lambda: agree(found, two.adam), "changed_since")
    assert "ada may not propose this any more" in Proposal.objects.get().note


def test_whoever_agrees_is_active_by_then(two: World):
    found = longer(two)
    type(two.ada).objects.filter(pk=two.adam.pk).update(is_active=False)
    refused(lambda: agree(found, two.adam), "not_admin")
    assert Proposal.objects.get().state == S.PROPOSED


def test_what_nobody_agrees_to_expires(two: World, clock: Clock):
    found = longer(two)
    clock.forward(proposals.LASTS.total_seconds() - 60)
    assert proposals.expire_due() == 0
    clock.forward(61)
    refused(lambda: agree(found, two.adam), "wrong_state")
    assert proposals.expire_due() == 1
    assert Proposal.objects.get().state == S.EXPIRED
    assert lasts(two) == 4
    assert longer(two).pk != found.pk


def test_what_is_proposed_twice_waits_once(two: World):
    first, again, other = longer(two), longer(two), longer(two, hours=6)
    assert first == again
    assert first != other
    assert Event.objects.filter(action="proposal.proposed").count() == 2


def test_names_of_any_length_have_room(two: World):
    lender, to = (f"{name}{'x' * 140}" for name in ("bob", "mallory"))
    for name, longer_name in (("bob", lender), ("mallory", to)):
        type(two.ada).objects.filter(username=name).update(username=longer_name)
    act = partial(delegating.delegate, two.bob.pk, by=two.ada, lending=lent(to))
    found = proposed(act)
    assert found.summary == f"Let {to} vote for {lender}"[:300]
    assert agree(found, two.adam).state == S.CARRIED_OUT


def test_it_is_taken_back_or_denied_with_a_reason(two: World):
    found = longer(two)
    refused(lambda: proposals.withdraw(found.pk, by=two.adam), "not_yours")
    assert proposals.withdraw(found.pk, by=two.ada).state == S.WITHDRAWN
    refused(lambda: proposals.withdraw(found.pk, by=two.ada), "wrong_state")
    found = longer(two)
    words = {"by": two.adam, "digest": found.digest}
    with pytest.raises(Invalid):
        proposals.deny(found.pk, note=" ", **words)
    refused(lambda: proposals.deny(found.pk, note="No.", by=two.adam, digest="x"), "changed_since")
    done = proposals.deny(found.pk, note="Four hours are enough.", **words)
    assert (done.state, done.note, lasts(two)) == (S.DENIED, "Four hours are enough.", 4)
    refused(lambda: agree(found, two.adam), "wrong_state")


def test_no_secret_waits(two: World):
    """A new address with a password for it: the password is typed once somebody has agreed."""
    target = Target.objects.get(pk=two.target.pk)
    target.config = {"name": "billing"}
    with pytest.raises(Invalid) as raised:
        administration.save_target(target, by=two.ada, clear_secrets={"password": "canary-3Xk"})
    assert raised.value.code == "secret_in_proposal"
    assert not Proposal.objects.exists()


def test_until_there_is_a_second_superuser_one_decides(world: World, settings: Any):
    """And the log says so. Then two are needed, for ever: to switch the second one off is no way
    back."""
    assert ledger.second_person() == []
    settings.FOUR_EYES = True
    level = AccessLevel.objects.get(pk=world.write.pk)
    level.max_duration = 5 * HOUR
    administration.save_level(level, by=world.ada)
    alone = Event.objects.get(action="four_eyes.passed_over")
    assert (alone.data["because"], alone.actor_name) == ("nobody_else", "ada")
    assert wrong_with_it() == "alone"
    adam = type(world.ada).objects.create_superuser("adam", "adam@example.com", "a long password")

    def switch_off() -> None:
        adam.is_active = False
        adam.save()

    as_admin(world, powers.account(adam), switch_off)
    assert wrong_with_it() == "stuck"
    longer(world, hours=6)


def wrong_with_it() -> str:
    """How four eyes stand, which the doctor tells as wrong."""
    (finding,) = ledger.second_person()
    standing = proposals.standing()
    assert (finding.ok, finding.what) == (False, ONE_SUPERUSER[standing])
    return standing


def test_at_the_console_one_decides(two: World):
    level = AccessLevel.objects.get(pk=two.write.pk)
    level.max_duration = 5 * HOUR
    with proposals.at_the_console():
        administration.save_level(level, by=two.ada)
    assert Event.objects.get(action="four_eyes.passed_over").data["because"] == "console"


@pytest.mark.slow
def test_people_are_told(two: World):
    found = longer(two)
    expanding.expand_due()
    (entry,) = inbox.entries(two.adam)
    assert entry.notice.text == "ada proposes: Change the level read-write on orders"
    assert entry.notice.link == f"/admin/approvals/proposal/{found.pk}/change/"
    assert not inbox.entries(two.ada).exists()
    assert proposals.waiting_for(two.adam, found.proposed_at) == [found]
    agree(found, two.adam)
    expanding.expand_due()
    (entry,) = inbox.entries(two.ada)
    assert entry.notice.text == "adam agreed, and it is done: Change the level read-write on orders"


def test_a_verb_that_is_not_watched_is_noticed(two: World, monkeypatch: pytest.MonkeyPatch):
    found = longer(two)
    change = proposals.Change("level.save", "", lambda arguments, by: None)
    monkeypatch.setitem(proposals._changes, "level.save", change)
    with pytest.raises(RuntimeError, match="does not run inside"):
        agree(found, two.adam)


def test_of_two_who_agree_at_once_one_does_it(committed: None, two: World):
    found = longer(two)
    eva = type(two.ada).objects.create_superuser("eva", "eva@example.com", "a long password")
    start, answers = threading.Barrier(2), []

    def decide(person: Any) -> None:
        start.wait()
        try:
            answers.append(agree(found, person).state)
        except WrongState as error:
            answers.append(error.code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=decide, args=[one]) for one in (two.adam, eva)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [S.CARRIED_OUT, "wrong_state"]
    assert Event.objects.filter(action="accesslevel.changed").count() == 1
    assert Proposal.objects.get().state == S.CARRIED_OUT
