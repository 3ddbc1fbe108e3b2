"""ada's forms in the admin where two are needed: proposed and not done, whichever page it is."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.urls import reverse

from approvals import proposals, second_look
from approvals.models import AccessLevel, Policy, Proposal, Target
from approvals.states import ProposalState
from audit.models import Event
from tests.approvals import test_admin_verbs
from tests.approvals.admin_browser import admin_form, browser, filled, said, staff, url
from tests.approvals.test_admin_verbs import lived_in as lived_in
from tests.approvals.test_proposals import longer
from tests.approvals.test_second_look import two as two
from tests.conftest import Clock
from tests.world import World

PASSWORD = {"password1": "long-enough-7Kq", "password2": "long-enough-7Kq"}


def sent(world: World, page: str, **changes: Any) -> Any:
    """The answer to ada's form of this page with these changes in it."""
    ada = browser(world.ada)
    data = {**filled(admin_form(ada.get(page))), **changes}
    return ada.post(page, data, follow=True)


def only() -> Proposal:
    return Proposal.objects.get()


@pytest.mark.slow
def test_a_group_on_a_persons_page(two: World):
    page = url("user", "change", two.mallory.pk)
    answer = sent(two, page, groups=[two.groups["dba"].pk], first_name="Mal")
    assert answer.redirect_chain[-1][0] == url("proposal", "change", only().pk)
    assert "not done yet" in said(answer)[0]
    assert not two.mallory.groups.exists()
    assert not Event.objects.filter(action="account.changed").exists()
    text = answer.content.decode()
    assert "mallory is in dba, whose members decide about requests for production." in text
    assert "Withdraw it" in text
    assert "Agree, and do it now" not in text
    adam = browser(two.adam)
    text = adam.get(url("proposal", "change", only().pk)).content.decode()
    assert "Agree, and do it now" in text
    agree = reverse("admin:approvals_proposal_agree", args=[only().pk])
    assert adam.get(agree).status_code == 302
    assert only().state == ProposalState.PROPOSED
    assert adam.post(agree, {"digest": "another"}).status_code == 409
    assert adam.post(agree, {"digest": only().digest}).status_code == 302
    two.mallory.refresh_from_db()
    assert (two.mallory.first_name, two.mallory.groups.get()) == ("Mal", two.groups["dba"])
    again = adam.post(agree, {"digest": only().digest})
    assert again.status_code == 409
    assert Event.objects.filter(action="account.changed").count() == 1


def test_powers_given_to_a_group_or_with_an_account(two: World):
    """Permissions of a group people are in already; and groups that are sent with a new account,
    whose form has none."""
    sent(
        two, url("group", "change", two.groups["dba"].pk), permissions=permissions("change_policy")
    )
    assert not two.groups["dba"].permissions.exists()
    assert only().effects == ["The members of dba may change policy in the admin."]
    dba = [two.groups["dba"].pk]
    added = sent(two, url("user", "add"), username="erin", groups=dba, is_staff="on", **PASSWORD)
    erin = type(two.ada).objects.get(username="erin")
    assert added.redirect_chain[-1][0] == url("user", "change", erin.pk)
    assert (erin.is_staff, erin.groups.exists()) == (False, False)


def test_whoever_may_edit_accounts_switches_none_on_alone(two: World):
    """Not a superuser: it is proposed all the same, and a superuser agrees."""
    olga, gone = browser(staff(two.olga, "change_user", "view_user")), two.people["gone"]
    two.groups["dba"].user_set.add(gone)
    page = url("user", "change", gone.pk)
    olga.post(page, {**filled(admin_form(olga.get(page))), "is_active": "on"})
    found = only()
    assert found.effects[0] == "gone can sign in."
    assert proposals.agree(found.pk, by=two.ada, digest=found.digest).decided_by == two.ada
    gone.refresh_from_db()
    assert gone.is_active


def permissions(*names: str) -> list[int]:
    return list(Permission.objects.filter(codename__in=names).values_list("pk", flat=True))


@pytest.mark.slow
def test_a_password_of_somebody_who_decides(two: World):
    """It is agreed to first, and set once, by whoever proposed it."""
    page = reverse("admin:auth_user_password_change", args=[two.bob.pk])
    ada, old = browser(two.ada), password(two.bob)
    assert "Somebody else has to agree" in ada.get(page).content.decode()
    ada.post(page, PASSWORD)
    found = only()
    assert "long-enough" not in str(vars(found))
    assert found.effects == [
        "Whoever proposes this can sign in as bob, who is in dba, whose members decide about "
        "requests for production."
    ]
    proposals.agree(found.pk, by=two.adam, digest=found.digest)
    assert password(two.bob) == old
    assert "set the new password" in ada.get(url("proposal", "change", found.pk)).content.decode()
    browser(two.adam).post(page, PASSWORD)
    ada.post(page, {**PASSWORD, "password2": "something-else"})
    assert password(two.bob) == old
    ada.post(page, PASSWORD)
    assert password(two.bob) != old
    assert Event.objects.get(action="account.password_reset").actor_name == "ada"
    old = password(two.bob)
    ada.post(page, {"password1": "another-one-7Kq", "password2": "another-one-7Kq"})
    assert password(two.bob) == old


def password(person: Any) -> str:
    return str(type(person).objects.get(pk=person.pk).password)


def test_an_old_leave_is_none(two: World, clock: Clock):
    page = reverse("admin:auth_user_password_change", args=[two.bob.pk])
    ada, old = browser(two.ada), password(two.bob)
    ada.post(page, PASSWORD)
    proposals.agree(only().pk, by=two.adam, digest=only().digest)
    clock.forward(proposals.LEAVE.total_seconds() + 1)
    ada.post(page, PASSWORD)
    assert (password(two.bob), Proposal.objects.count()) == (old, 2)


def test_other_passwords_are_set_at_once(two: World):
    """Of somebody who may nothing, and one's own."""
    for person in (two.mallory, two.ada):
        old = password(person)
        page = reverse("admin:auth_user_password_change", args=[person.pk])
        browser(two.ada).post(page, PASSWORD)
        assert password(person) != old
        two.ada.refresh_from_db()


def test_publishing_and_holders(two: World):
    ada, page = browser(two.ada), url("policy", "publish", two.policy.pk)
    shown = ada.get(page).context
    stages = shown["stages"]
    answer = ada.post(page, filled(shown["form"], stages.management_form, *stages), follow=True)
    assert answer.redirect_chain[-1][0] == url("proposal", "change", only().pk)
    assert two.policy.versions.count() == 1
    groups = [two.groups[name].pk for name in ("developers", "nobody")]
    ada.post(url("accesslevel", "holders", two.read.pk), {"request_accesslevel_groups": groups})
    assert Proposal.objects.count() == 2


@pytest.mark.slow
def test_who_sees_proposals(two: World):
    proposals.withdraw(longer(two, hours=6).pk, by=two.ada)
    found = longer(two)
    proposals.withdraw(longer(two, hours=7).pk, by=two.ada)
    assert (
        browser(two.adam).get(url("proposal", "changelist")).context["cl"].result_list[0] == found
    )
    page, listing = url("proposal", "change", found.pk), url("proposal", "changelist")
    for given, sees in (("change_accesslevel", True), ("view_grant", False)):
        olga = browser(staff(two.olga, given))
        assert (olga.get(listing).status_code == 200) is sees
        assert (olga.get(page).status_code == 200) is sees
    other = browser(staff(two.bob, "change_policy"))
    assert str(found) not in other.get(listing).content.decode()
    assert browser(two.adam).post(page, {"state": "carried_out"}).status_code == 403
    home = browser(two.adam).get("/").content.decode()
    assert "Change the level read-write on orders" in home
    assert "To be agreed to" not in browser(two.ada).get("/").content.decode()


def test_denying_needs_a_reason_and_keeps_it(two: World):
    found, adam = longer(two), browser(two.adam)
    deny = reverse("admin:approvals_proposal_deny", args=[found.pk])
    assert adam.post(deny, {"digest": found.digest, "note": ""}).status_code == 422
    wrong = adam.post(deny, {"digest": "", "note": "Too long."})
    assert (wrong.status_code, "Too long." in wrong.content.decode()) == (409, True)
    adam.post(deny, {"digest": found.digest, "note": "Too long."})
    assert only().note == "Too long."


def test_the_overview_says_when_there_is_nobody_else(world: World, settings: Any):
    page, ada = reverse("admin:index"), browser(world.ada)
    assert "one superuser" not in ada.get(page).content.decode()
    settings.FOUR_EYES = True
    assert "one superuser" in ada.get(page).content.decode()


def everything(world: World) -> dict[Any, second_look.Look]:
    """What people can do in production, read off each thing that gives it."""
    kinds: Any = (type(world.ada), Group, Policy, Target, AccessLevel)
    every = [one for kind in kinds for one in kind.objects.all()]
    return {one: second_look.look(one) for one in every}


@pytest.mark.slow
def test_nothing_that_widens_is_done_by_one(lived_in: World, settings: Any, monkeypatch: Any):
    """Every page of the admin is walked with four eyes on: what widens is proposed only, and
    afterwards nothing gives anybody more than before."""
    monkeypatch.setattr("approvals.provisioning.memory.MemoryProvisioner.rehearsal", False)
    settings.FOUR_EYES = True
    wider: dict[str, Any] = {
        "user": {"groups": [lived_in.groups["security"].pk], "is_staff": "on"},
        "group": {"permissions": permissions("change_policy")},
        "target": {"environment": "staging"},
        "accesslevel": {"max_duration": "9 h"},
        "policy": {"rank": "71"},
    }
    monkeypatch.setattr(test_admin_verbs, "CHANGED", {**test_admin_verbs.CHANGED, **wider})
    ada, proposed, before_all = browser(lived_in.ada), set(), everything(lived_in)
    for model in admin.site._registry:
        for what, page, data in test_admin_verbs.attempts(ada, model, lived_in):
            known = Proposal.objects.count()
            _, rows = ada.post(page, data), Proposal.objects.count()
            if rows > known:
                proposed.add((model._meta.model_name, what))
    wanted = {(name, "change") for name in wider if name != "policy"}
    assert wanted | {("accesslevel", "add")} <= proposed
    after_all = everything(lived_in)
    looks = [(before_all[one], after_all[one]) for one in after_all if one in before_all]
    assert [gain.text for before, after in looks for gain in second_look.gains(before, after)] == []
