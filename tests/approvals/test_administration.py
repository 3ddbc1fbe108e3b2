"""ada sets things up through the verbs; what would harm is refused, and every refusal is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import Group
from django.db import connection

from approvals import access, administration, closing, grants, opening, provisioning, targets
from approvals.administration import PolicyDraft, StageDraft
from approvals.errors import Invalid, NotAllowed, ProvisionError, WrongState
from approvals.models import AccessLevel, Policy, PolicyVersion, Target
from approvals.policy import AppliesTo
from approvals.provisioning.base import Finding
from approvals.provisioning.memory import MemoryProvisioner
from approvals.states import GrantState
from audit.models import Event
from tests.approvals.admin_browser import staff
from tests.conftest import Clock
from tests.world import World, publish, save_level

BILLING = {
    "host": "127.0.0.1",
    "port": 1,
    "database": "billing",
    "user": "debugflow",
    "sslmode": "verify-full",
    "admin_database": "postgres",
    "quarantine": "dbgf_quarantine",
}
OLD, NEW = "old-canary-4Kd", "new-canary-8Wm"


def billing(**changes: Any) -> Target:
    values = {"name": "billing", "kind": "postgresql", "environment": "production"}
    return Target(**{**values, "config": BILLING, **changes})


def save(target: Target, world: World, **secrets: str) -> Target:
    return administration.save_target(target, by=world.ada, clear_secrets=secrets)


def stored_password(target: Target) -> str:
    return targets.provisioner(Target.objects.get(pk=target.pk)).secret_values["password"]


def refusals() -> list[tuple[str, str, str]]:
    rows = Event.objects.filter(action="administration.refused").order_by("id")
    return [(row.actor_name, row.subject_label, row.data["code"]) for row in rows]


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type], None]]:
    """Registers a kind of target for one test, under the name of its class."""

    def register(made: type) -> None:
        path = f"{__name__}:{made.__name__}"
        monkeypatch.setitem(provisioning.BUILT_IN, made.__name__.lower(), path)
        provisioning.paths.cache_clear()

    yield register
    monkeypatch.undo()
    provisioning.paths.cache_clear()


class Untidy(MemoryProvisioner):
    """Signs in, and has something else that should be mended."""

    def test(self) -> list[Finding]:
        return [Finding(ok=False, what="does not check the server's certificate", fix="Do.")]


class Watchful(MemoryProvisioner):
    """Notes whether whoever signs in holds a transaction open meanwhile."""

    seen: ClassVar[list[bool]] = []

    def signs_in(self) -> None:
        self.seen.append(connection.in_atomic_block)


class Meddled(MemoryProvisioner):
    """While somebody saves a target of this kind, others do `meanwhile`."""

    meanwhile: ClassVar[list[Callable[[], object]]] = []

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        if cls.meanwhile:
            cls.meanwhile.pop()()
        return super().address(config)


class TestNewSecrets:
    def test_one_that_signs_in_replaces_the_old_one(self, world: World):
        world.server.admin_password = NEW
        save(world.target, world, password=NEW)
        assert stored_password(world.target) == NEW

    def test_one_that_does_not_is_refused_and_the_old_one_stays(self, world: World):
        world.server.admin_password = OLD
        save(world.target, world, password=OLD)
        with pytest.raises(Invalid) as refused:
            save(world.target, world, password=NEW)
        assert refused.value.code == "no_sign_in"
        (line,) = refused.value.fields["password"]
        assert "old one stays" in line
        assert NEW not in line
        assert stored_password(world.target) == OLD
        assert refusals() == [("ada", "orders", "no_sign_in")]

    def test_a_target_that_is_down_keeps_the_old_one_and_the_reason_is_said(self, world: World):
        target = save(billing(), world, password=OLD)
        with pytest.raises(Invalid) as refused:
            save(target, world, password=NEW)
        assert refused.value.code == "no_sign_in"
        assert "Check that the server runs" in refused.value.fields["password"][0]
        assert stored_password(target) == OLD

    def test_other_findings_do_not_matter(self, world: World, kind: Any):
        kind(Untidy)
        target = save(billing(kind="untidy", config={"name": "shed"}), world, password=OLD)
        save(target, world, password=NEW)
        assert stored_password(target) == NEW

    def test_a_new_and_a_moved_target_have_none_to_lose(self, world: World):
        target = save(billing(), world)
        save(target, world, password=OLD)
        target.config = {**BILLING, "port": 2}
        save(target, world, password=NEW)
        assert stored_password(target) == NEW

    def test_one_that_no_key_can_read_is_replaced(self, world: World, settings: Any):
        settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
        save(world.target, world, password=NEW)
        assert stored_password(world.target) == NEW

    def test_the_target_is_asked_while_nothing_is_locked(
        self, committed: None, world: World, kind: Any
    ):
        kind(Watchful)
        target = save(billing(kind="watchful", config={"name": "tower"}), world, password=OLD)
        assert Watchful.seen == []
        save(target, world, password=NEW)
        assert Watchful.seen == [False]

    def test_one_that_was_not_tried_replaces_none_that_came_meanwhile(
        self, world: World, kind: Any
    ):
        kind(Meddled)
        target = save(billing(kind="meddled", config={"name": "a"}), world, password=OLD)
        theirs, mine = Target.objects.get(pk=target.pk), Target.objects.get(pk=target.pk)
        theirs.config = mine.config = {"name": "b"}
        Meddled.meanwhile.append(lambda: save(theirs, world, password="theirs-canary"))
        with pytest.raises(WrongState):
            save(mine, world, password=NEW)
        assert stored_password(target) == "theirs-canary"


class TestUnreadableSecrets:
    def test_the_error_says_what_to_do_and_may_pass(self, world: World, settings: Any):
        settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
        with pytest.raises(ProvisionError) as failed:
            targets.provisioner(world.target)
        assert (failed.value.code, failed.value.permanent) == ("secret_unreadable", False)
        assert "DEBUGFLOW_ENCRYPTION_KEYS" in failed.value.message
        assert "password" in failed.value.message

    def test_a_grant_that_waits_for_the_key_says_so_and_ends_once_it_is_back(
        self, world: World, clock: Clock, settings: Any
    ):
        grant = world.approved()
        opening.open_grant(grant.pk, worker="w1")
        grants.revoke(grant.pk, by=world.olga, reason="Done.")
        kept = settings.ENCRYPTION_KEYS
        settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
        closing.close_grant(grant.pk, worker="w1")
        told = Event.objects.get(action="grant.attempt_failed").data
        assert "DEBUGFLOW_ENCRYPTION_KEYS" in told["error"]
        settings.ENCRYPTION_KEYS = kept
        clock.forward(60)
        closing.close_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert grant.state == GrantState.ENDED

    def test_the_connection_test_shows_it(self, world: World, settings: Any):
        settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
        ((fine, what, _),) = administration.check_target(world.target)
        assert not fine
        assert "DEBUGFLOW_ENCRYPTION_KEYS" in what


class TestWhileAGrantHasNotEnded:
    @pytest.fixture
    def used(self, world: World) -> Target:
        """A PostgreSQL server on which alice's access has not ended."""
        world.approved()
        rows = Target.objects.filter(pk=world.target.pk)
        rows.update(kind="postgresql", config=BILLING, address="127.0.0.1:1/billing")
        return rows.get()

    @pytest.mark.parametrize(
        ("field", "value"),
        [("admin_database", "other"), ("quarantine", "other"), ("port", 2), ("user", "other")],
    )
    def test_what_would_stop_revocation_is_refused_by_its_name(
        self, world: World, used: Target, field: str, value: Any
    ):
        used.config = {**BILLING, field: value}
        with pytest.raises(WrongState) as refused:
            save(used, world)
        assert refused.value.code == "grants_open"
        assert field in refused.value.message
        assert refused.value.details["fields"] == [field]
        assert Target.objects.get(pk=used.pk).config == BILLING

    def test_so_are_another_trust_anchor_and_another_kind(self, world: World, used: Target):
        used.trust_anchor = "another"
        used.kind, used.config = "memory", {"name": "orders"}
        with pytest.raises(WrongState) as refused:
            save(used, world)
        assert {"kind", "trust_anchor"} <= set(refused.value.details["fields"])

    def test_the_rest_may_change_and_clears_no_secret(self, world: World, used: Target):
        used.description, used.config = "Bills.", {**BILLING, "database": "bills"}
        save(used, world)
        assert stored_password(used) == "admin"

    def test_without_a_grant_the_quarantine_may_change_and_keeps_the_secret(self, world: World):
        target = save(billing(), world, password=OLD)
        target.config = {**BILLING, "quarantine": "other"}
        save(target, world)
        assert stored_password(target) == OLD


class TestUnverifiedTargets:
    @pytest.fixture(autouse=True)
    def strict(self, settings: Any) -> None:
        settings.ALLOW_UNVERIFIED_TARGETS = False

    @pytest.mark.parametrize("sslmode", ["disable", "require", "verify-ca"])
    def test_in_production_another_could_stand_in_its_place(self, world: World, sslmode: str):
        with pytest.raises(Invalid) as refused:
            save(billing(config={**BILLING, "sslmode": sslmode}), world)
        assert refused.value.code == "unverified"
        assert "verify-full" in refused.value.message
        assert "DEBUGFLOW_ALLOW_UNVERIFIED_TARGETS" in refused.value.message
        assert refusals() == [("ada", "a new target", "unverified")]

    def test_elsewhere_and_verified_it_is_saved(self, world: World):
        save(billing(), world)
        save(
            billing(name="b", environment="staging", config={**BILLING, "sslmode": "disable"}),
            world,
        )
        assert refusals() == []
        assert Target.objects.filter(kind="postgresql").count() == 2

    def test_it_may_always_be_switched_off(self, world: World, settings: Any):
        settings.ALLOW_UNVERIFIED_TARGETS = True
        target = save(billing(config={**BILLING, "sslmode": "disable"}), world)
        settings.ALLOW_UNVERIFIED_TARGETS = False
        target.enabled = False
        save(target, world)
        target.enabled = True
        with pytest.raises(Invalid):
            save(target, world)

    def test_without_the_setting_it_is_refused(self, world: World, settings: Any):
        del settings.ALLOW_UNVERIFIED_TARGETS
        with pytest.raises(Invalid):
            save(billing(config={**BILLING, "sslmode": "disable"}), world)


def draft(world: World) -> PolicyDraft:
    stage = StageDraft(name="Database", groups={world.groups["dba"]: 1}, total=1)
    return PolicyDraft(applies_to=AppliesTo(), stages=[stage], max_duration=3600)


class TestPublishing:
    def test_a_version_follows_the_one_it_was_made_from(self, world: World):
        first = PolicyVersion.objects.get()
        second = administration.publish(world.policy, draft(world), based_on=first, by=world.ada)
        assert second.number == 2

    def test_over_a_newer_one_it_is_refused(self, world: World):
        first = PolicyVersion.objects.get()
        publish(world)
        for stale in (first, None):
            with pytest.raises(WrongState) as refused:
                administration.publish(world.policy, draft(world), based_on=stale, by=world.ada)
            assert refused.value.code == "newer_version"
            assert "Version 2" in refused.value.message
        assert refusals() == [("ada", "Production", "newer_version")] * 2
        assert world.policy.versions.count() == 2


def verbs(world: World) -> Mapping[str, tuple[str, Callable[[Any], Any]]]:
    """Every verb, with the permission it needs."""
    a = administration
    level = AccessLevel(
        target=world.target, name="new", rights={"level": "read-only"}, risk="low", rank=9
    )
    level.max_duration = 60
    first = PolicyVersion.objects.get()
    target, read, policy, unused = world.target, world.read, world.policy, world.write
    wording = draft(world)
    nobody: dict[str, dict[str, list[Any]]] = {"request_accesslevel": {"groups": [], "people": []}}
    return {
        "add target": ("add_target", lambda by: a.save_target(billing(), by=by, clear_secrets={})),
        "target": ("change_target", lambda by: a.save_target(target, by=by, clear_secrets={})),
        "add level": ("add_accesslevel", lambda by: a.save_level(level, by=by)),
        "level": ("change_accesslevel", lambda by: a.save_level(read, by=by)),
        "add policy": ("add_policy", lambda by: a.change_policy(Policy(name="P", rank=3), by=by)),
        "policy": ("change_policy", lambda by: a.change_policy(policy, by=by)),
        "publish": ("change_policy", lambda by: a.publish(policy, wording, based_on=first, by=by)),
        "delete": ("delete_accesslevel", lambda by: a.delete(unused, by=by)),
        "holders": ("change_accesslevel", lambda by: a.change_holders(read, nobody, by=by)),
    }


VERBS = (
    "add target",
    "target",
    "add level",
    "level",
    "add policy",
    "policy",
    "publish",
    "delete",
    "holders",
)


class TestWhoMay:
    @pytest.mark.parametrize("name", VERBS)
    def test_mallory_may_not_and_the_log_tells(self, world: World, name: str):
        before = Event.objects.count()
        _, call = verbs(world)[name]
        with pytest.raises(NotAllowed) as refused:
            call(world.mallory)
        assert refused.value.code == "not_admin"
        assert [(who, code) for who, _, code in refusals()] == [("mallory", "not_admin")]
        assert Event.objects.count() == before + 1

    @pytest.mark.parametrize("name", VERBS)
    def test_whoever_holds_the_permission_may(self, world: World, name: str):
        permission, call = verbs(world)[name]
        call(staff(world.mallory, permission))
        assert refusals() == []

    @pytest.mark.parametrize("name", VERBS)
    def test_whoever_has_left_may_not(self, world: World, name: str):
        world.ada.is_active = False
        _, call = verbs(world)[name]
        with pytest.raises(NotAllowed):
            call(world.ada)

    def test_a_refusal_outlives_the_change_and_names_what_is_stored(
        self, committed: None, world: World
    ):
        world.target.name = "Not A Name"
        with pytest.raises(Invalid):
            save(world.target, world)
        assert refusals() == [("ada", "orders", "invalid")]
        with pytest.raises(Invalid):
            administration.change_policy(Policy(name="", rank=1), by=world.ada)
        with pytest.raises(Invalid):
            save_level(world, name="no-such", rank=5)
        assert refusals()[1:] == [
            ("ada", "a new policy", "invalid"),
            ("ada", "a new access level", "invalid"),
        ]


class TestDeleting:
    def test_what_nothing_refers_to_goes_with_its_permissions(self, world: World):
        pk = world.write.pk
        administration.delete(world.write, by=world.ada)
        assert not AccessLevel.objects.filter(pk=pk).exists()
        told = Event.objects.get(action="accesslevel.deleted")
        assert (told.actor_name, told.subject_id) == ("ada", str(pk))

    def test_what_is_in_use_stays(self, world: World):
        for used in (world.target, world.policy):
            with pytest.raises(WrongState) as refused:
                administration.delete(used, by=world.ada)
            assert refused.value.code == "in_use"
            assert "Switch it off instead" in refused.value.message
        assert Target.objects.filter(pk=world.target.pk).exists()
        assert [code for _, _, code in refusals()] == ["in_use", "in_use"]

    def test_what_somebody_else_has_deleted_is_gone(self, world: World):
        again = AccessLevel.objects.get(pk=world.write.pk)
        administration.delete(world.write, by=world.ada)
        with pytest.raises(WrongState) as refused:
            administration.delete(again, by=world.ada)
        assert refused.value.code == "gone"


class TestHolders:
    def test_exactly_those_hold_it_afterwards_and_one_event_tells(self, world: World):
        wanted = {"request_accesslevel": {"groups": [world.groups["dba"]], "people": [world.olga]}}
        administration.change_holders(world.read, wanted, by=world.ada)
        assert world.read in access.requestable_levels(world.bob)
        assert world.read in access.requestable_levels(world.olga)
        assert world.read not in access.requestable_levels(world.alice)
        told = Event.objects.get(action="permissions.changed")
        assert told.subject_label == "read-only on orders"
        assert [one.get("group") or one["user"] for one in told.data["given"]] == ["dba", "olga"]
        assert [one["group"] for one in told.data["taken"]] == ["developers"]
        administration.change_holders(world.read, wanted, by=world.ada)
        assert Event.objects.filter(action="permissions.changed").count() == 1

    def test_a_permission_that_is_none_of_the_objects_is_refused(self, world: World):
        dba: list[Group] = [world.groups["dba"]]
        for name in ("change_target", "request_accesslevel", "no_such"):
            with pytest.raises(Invalid):
                administration.change_holders(
                    world.target, {name: {"groups": dba, "people": []}}, by=world.ada
                )
