"""ada sets up targets and levels in the admin; what the verbs refuse, the forms say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from guardian.models import GroupObjectPermission

from approvals import access, provisioning, secrets
from approvals.admin.fields import RowsField, schema_fields
from approvals.errors import Invalid
from approvals.models import AccessLevel, Target
from approvals.provisioning.base import Finding
from approvals.provisioning.memory import MemoryProvisioner
from approvals.provisioning.postgresql.config import ServerConfig
from audit.models import Event
from tests.approvals.admin_browser import admin_form, browser, errors, filled, said, staff, url
from tests.world import World

PASSWORD = "correct-horse-7Kq"
BILLING = {
    "name": "billing",
    "environment": "production",
    "labels": "team=billing\ntier=1",
    "enabled": "on",
    "config_host": "db1.example.com",
    "config_port": "5432",
    "config_database": "billing",
    "config_user": "debugflow",
    "config_sslmode": "verify-full",
    "config_admin_database": "postgres",
    "config_quarantine": "dbgf_quarantine",
    "secret_password": PASSWORD,
}


@pytest.fixture
def ada(world: World) -> Client:
    return browser(world.ada)


def add_target(ada: Client, **changes: str) -> Any:
    return ada.post(url("target", "add"), {**BILLING, **changes}, follow=True)


def change(ada: Client, model: str, pk: int, **changes: Any) -> Any:
    """Open the change page, change some fields and send all of them."""
    page = url(model, "change", pk)
    data = {**filled(admin_form(ada.get(page))), **changes}
    return ada.post(page, data, follow=True)


def password_of(target: Target) -> str:
    sealed = target.secrets["password"]
    return secrets.unseal(sealed, table="target", key=str(target.pk), field="password")


def test_ada_adds_a_target_through_the_verb(ada: Client):
    response = add_target(ada)
    target = Target.objects.get(name="billing")
    assert target.kind == "postgresql"
    assert target.address == "db1.example.com:5432/billing"
    assert target.config["port"] == 5432
    assert target.labels == {"team": "billing", "tier": "1"}
    assert password_of(target) == PASSWORD
    assert not any("no password stored" in message for message in said(response))
    event = Event.objects.get(action="target.created", subject_label="billing")
    assert (event.actor_name, event.data["secrets_replaced"]) == ("ada", ["password"])
    assert PASSWORD not in bytes(event.canonical).decode()


def test_without_a_password_the_page_says_that_nothing_can_be_opened(ada: Client):
    response = add_target(ada, secret_password="")
    assert any("no password stored" in message for message in said(response))


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("config_port", "70000", "less than or equal to 65535"),
        ("config_port", "many", "whole number"),
        ("config_host", "db1;rm -rf", "match pattern"),
        ("config_host", "", "required"),
        ("config_sslmode", "never", "not one of the available choices"),
        ("config_user", "x" * 64, "1 to 63 bytes"),
        ("labels", "team", "name=value"),
        ("labels", "a=1\na=2", "twice"),
        ("name", "Not A Name", "lower-case"),
        ("environment", "moon", "not one of the available choices"),
        ("config_database", "a\x00b", "Null characters"),
    ],
)
def test_a_wrong_field_is_named_and_the_rest_stays_filled(
    ada: Client, field: str, value: str, why: str
):
    response = add_target(ada, **{field: value})
    form = admin_form(response)
    assert why in " ".join(errors(form)[field]), errors(form)
    assert PASSWORD not in response.content.decode()
    assert form["config_quarantine"].value() == "dbgf_quarantine"
    assert not Target.objects.filter(name="billing").exists()


def test_a_name_that_is_taken_is_said_in_words(ada: Client):
    form = admin_form(add_target(ada, name="orders"))
    assert errors(form)["name"] == ["Target with this Name already exists."]
    assert Event.objects.filter(action="administration.refused", actor_name="ada").count() == 1


@pytest.mark.slow
def test_an_empty_password_keeps_the_stored_one_and_a_new_host_clears_it(ada: Client):
    add_target(ada, config_host="127.0.0.1", config_port="1")
    target = Target.objects.get(name="billing")
    change(ada, "target", target.pk, description="Bills.")
    target.refresh_from_db()
    assert (target.description, password_of(target)) == ("Bills.", PASSWORD)

    page = ada.get(url("target", "change", target.pk)).content.decode()
    assert "One is stored" in page
    assert "clears it" in page

    refused = change(ada, "target", target.pk, secret_password="another-one-9Zx")
    target.refresh_from_db()
    assert password_of(target) == PASSWORD
    assert "the old one stays" in str(errors(admin_form(refused)))
    assert "another-one-9Zx" not in refused.content.decode()

    response = change(ada, "target", target.pk, config_host="db2.example.com")
    target.refresh_from_db()
    assert target.secrets == {}
    assert any("no password stored" in message for message in said(response))


def test_spaces_in_a_password_are_kept(ada: Client):
    add_target(ada, secret_password="  two words ")
    assert password_of(Target.objects.get(name="billing")) == "  two words "


def test_a_target_in_use_does_not_move_and_the_form_says_why(ada: Client, world: World):
    world.approved()
    response = change(ada, "target", world.target.pk, config_name="elsewhere", description="New")
    form = admin_form(response)
    assert "have not ended" in errors(form)["__all__"][0]
    assert form["description"].value() == "New"
    world.target.refresh_from_db()
    assert world.target.config == {"name": "orders"}
    refused = Event.objects.get(action="administration.refused")
    assert (refused.subject_label, refused.data["code"]) == ("orders", "grants_open")


def test_the_kind_is_chosen_once_whatever_is_sent(ada: Client, world: World):
    change(ada, "target", world.target.pk, kind="postgresql", address="evil:1/x")
    world.target.refresh_from_db()
    assert (world.target.kind, world.target.address) == ("memory", "memory:orders")


class Shelf(MemoryProvisioner):
    """A second kind that is offered."""

    label = "Shelf"
    rehearsal: ClassVar[bool] = False

    def summarise(self, rights: Mapping[str, Any]) -> tuple[str, ...]:
        """Every level of it is unsafe."""
        found = ["owns table <orders>", "may sign in (LOGIN)"]
        raise Invalid(f"It cannot be handed out: {'; '.join(found)}.", problems=found)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(provisioning.BUILT_IN, "shelf", f"{__name__}:Shelf")
    provisioning.paths.cache_clear()
    yield
    monkeypatch.undo()
    provisioning.paths.cache_clear()


def test_with_more_than_one_kind_ada_chooses_first(ada: Client, shelf: None):
    page = ada.get(url("target", "add")).content.decode()
    assert "Which kind of target is it?" in page
    assert "?kind=shelf" in page
    assert "?kind=memory" not in page
    chosen = ada.get(url("target", "add"), {"kind": "shelf"})
    assert "config_name" in admin_form(chosen).fields
    rehearsal = ada.get(url("target", "add"), {"kind": "memory"}).content.decode()
    assert "Which kind of target is it?" in rehearsal


@pytest.mark.slow
def test_every_problem_of_a_level_is_an_entry_of_its_own(ada: Client, world: World, shelf: None):
    page = url("target", "add") + "?kind=shelf"
    ada.post(page, {"name": "shelf", "environment": "staging", "config_name": "shelf"})
    target = Target.objects.get(name="shelf")
    response = ada.post(f"{url('accesslevel', 'add')}?target={target.pk}", new_level())
    listed = errors(admin_form(response))["__all__"]
    assert listed == [
        "This was refused for 2 reasons:",
        "owns table <orders>",
        "may sign in (LOGIN)",
    ]
    assert "<li>owns table &lt;orders&gt;</li>" in response.content.decode()
    assert not target.levels.exists()


def test_a_refusal_is_kept_although_the_change_is_rolled_back(committed: None, world: World):
    world.approved()
    change(browser(world.ada), "target", world.target.pk, config_name="elsewhere")
    assert Event.objects.filter(action="administration.refused").count() == 1
    assert not Event.objects.filter(action="target.changed").exists()
    world.target.refresh_from_db()
    assert world.target.config == {"name": "orders"}


def test_the_connection_is_tested_by_a_post_only(ada: Client, world: World):
    page = url("target", "test", world.target.pk)
    assert ada.get(page).status_code == 302
    found = ada.post(page)
    assert found.context["findings"] == [(True, "orders lives in this process", "")]
    assert "All is fine" in found.content.decode()


def test_a_target_that_does_not_answer_is_a_row_and_not_an_error(ada: Client):
    add_target(ada, config_host="127.0.0.1", config_port="1", config_sslmode="disable")
    target = Target.objects.get(name="billing")
    found = ada.post(url("target", "test", target.pk))
    assert found.context["fine"] is False
    assert PASSWORD not in found.content.decode()


def test_a_form_of_another_site_changes_nothing(world: World):
    ada = Client(enforce_csrf_checks=True)
    ada.force_login(world.ada)
    for page in (
        url("target", "change", world.target.pk),
        url("accesslevel", "delete", world.write.pk),
    ):
        assert ada.post(page, {"post": "yes"}).status_code == 403
    assert AccessLevel.objects.filter(pk=world.write.pk).exists()


@pytest.mark.slow
def test_looking_is_not_changing(world: World):
    viewer = browser(staff(world.mallory, "view_target", "view_accesslevel", "view_policy"))
    page = viewer.get(url("target", "change", world.target.pk))
    assert page.status_code == 200
    assert "secret_password" not in page.content.decode()
    assert "Test connection" not in page.content.decode()
    assert viewer.get(url("accesslevel", "change", world.read.pk)).status_code == 200
    assert viewer.get(url("policy", "change", world.policy.pk)).status_code == 200
    refused = [
        url("target", "test", world.target.pk),
        url("target", "holders", world.target.pk),
        url("accesslevel", "holders", world.read.pk),
        url("policy", "publish", world.policy.pk),
        url("target", "change", world.target.pk),
        url("target", "delete", world.target.pk),
        url("target", "add"),
    ]
    assert [viewer.post(address, {}).status_code for address in refused] == [403] * len(refused)


def test_ada_says_who_may_do_what_and_the_log_tells(ada: Client, world: World):
    page = url("accesslevel", "holders", world.read.pk)
    form = ada.get(page).context["form"]
    assert form["request_accesslevel_groups"].value() == [world.groups["developers"].pk]
    assert world.read not in access.requestable_levels(world.mallory)

    ada.post(page, {"request_accesslevel_people": [world.mallory.pk]})
    assert world.read in access.requestable_levels(world.mallory)
    assert world.read not in access.requestable_levels(world.alice)
    told = Event.objects.get(action="permissions.changed").data
    assert [one["user"] for one in told["given"]] == ["mallory"]
    assert [one["group"] for one in told["taken"]] == ["developers"]


def test_an_owner_is_one_by_name_and_saving_twice_tells_nothing_new(ada: Client, world: World):
    page = url("target", "holders", world.target.pk)
    data = filled(ada.get(page).context["form"])
    before = Event.objects.count()
    ada.post(page, data)
    assert Event.objects.count() == before
    ada.post(page, {**data, "own_target_groups": [world.groups["dba"].pk]})
    assert world.target in access.owned_targets(world.bob)
    assert world.target not in access.owned_targets(world.olga)


def test_nobody_unknown_is_given_anything(ada: Client, world: World):
    page = url("target", "holders", world.target.pk)
    before = list(GroupObjectPermission.objects.values_list("group", "permission"))
    response = ada.post(page, {"own_target_groups": ["999999", "x"], "own_target_people": ["0"]})
    assert set(response.context["form"].errors) == {"own_target_groups", "own_target_people"}
    assert list(GroupObjectPermission.objects.values_list("group", "permission")) == before


@pytest.mark.slow
def test_what_others_refer_to_is_not_deleted_and_the_page_says_what_to_do(
    ada: Client, world: World
):
    for model, pk in (("target", world.target.pk), ("policy", world.policy.pk)):
        response = ada.post(url(model, "delete", pk), {"post": "yes"}, follow=True)
        assert "Switch it off instead" in said(response)[0]
    world.submit()
    ada.post(url("accesslevel", "delete", world.read.pk), {"post": "yes"})
    world.target.refresh_from_db()
    world.read.refresh_from_db()
    world.policy.refresh_from_db()


def test_a_level_nobody_asked_for_is_deleted_with_its_permissions(ada: Client, world: World):
    pk = world.write.pk
    held = GroupObjectPermission.objects.filter(object_pk=str(pk))
    assert held.filter(permission__codename="request_accesslevel").exists()
    ada.post(url("accesslevel", "delete", pk), {"post": "yes"})
    assert not AccessLevel.objects.filter(pk=pk).exists()
    assert not held.filter(permission__codename="request_accesslevel").exists()
    told = Event.objects.get(action="accesslevel.deleted")
    assert (told.actor_name, told.subject_id) == ("ada", str(pk))
    assert Event.objects.filter(action="administration.refused").count() == 0


def new_level(**changes: str) -> dict[str, str]:
    values = {
        "name": "audit-read",
        "enabled": "on",
        "rights_level": "read-only",
        "risk": "low",
        "max_duration": "90 min",
        "reach": "direct",
        "rank": "7",
    }
    return {**values, **changes}


def add_level(ada: Client, world: World, **changes: str) -> Any:
    page = f"{url('accesslevel', 'add')}?target={world.target.pk}"
    return ada.post(page, new_level(**changes), follow=True)


@pytest.mark.slow
def test_a_level_is_added_to_a_target_with_what_its_holder_can_do(ada: Client, world: World):
    add_level(ada, world)
    level = AccessLevel.objects.get(name="audit-read")
    assert (level.max_duration, level.rights, level.rank) == (5400, {"level": "read-only"}, 7)
    page = ada.get(url("accesslevel", "change", level.pk))
    assert "<li>may read</li>" in page.content.decode()
    assert admin_form(page)["max_duration"].value() == "90 min"


@pytest.mark.parametrize(
    ("changes", "field", "why"),
    [
        ({"reach": "gateway"}, "reach", "There is no gateway yet"),
        ({"risk": "high"}, "risk", "High risk needs the gateway"),
        ({"rights_level": "no-such"}, "__all__", "orders has no level no-such"),
        ({"rights_level": ""}, "rights_level", "required"),
        ({"max_duration": "90"}, "max_duration", "with its unit"),
        ({"max_duration": "0 h"}, "max_duration", "Between one second"),
        ({"max_duration": "500 d"}, "max_duration", "366 days"),
        ({"rank": "1"}, "__all__", "already exists"),
        ({"rank": "-1"}, "rank", "greater than or equal to 0"),
        ({"rank": "99999"}, "rank", "less than or equal to"),
        ({"name": "read-only"}, "__all__", "already exists"),
    ],
)
def test_what_a_level_cannot_be_is_said_at_the_field(
    ada: Client, world: World, changes: dict[str, str], field: str, why: str
):
    form = admin_form(add_level(ada, world, **changes))
    assert why in " ".join(errors(form)[field]), errors(form)
    assert world.target.levels.count() == 2


def test_a_level_needs_a_target_first(ada: Client, world: World):
    page = ada.get(url("accesslevel", "add")).content.decode()
    assert f"?target={world.target.pk}" in page
    for wrong in ("0", "x", "-1", "9" * 30, "１"):
        again = ada.get(url("accesslevel", "add"), {"target": wrong}).content.decode()
        assert "Which target is the level on?" in again
    ada.post(url("accesslevel", "add"), new_level())
    assert world.target.levels.count() == 2


def test_a_level_stays_with_its_target(ada: Client, world: World):
    add_target(ada)
    other = Target.objects.get(name="billing")
    page = f"{url('accesslevel', 'change', world.read.pk)}?target={other.pk}"
    data = filled(admin_form(ada.get(page)))
    ada.post(page, {**data, "target": other.pk, "description": "Moved?"})
    world.read.refresh_from_db()
    assert (world.read.target_id, world.read.description) == (world.target.pk, "Moved?")


def test_a_changed_level_begins_the_chain_of_pending_requests_anew(ada: Client, world: World):
    request = world.submit()
    world.vote(request, "bob")
    change(ada, "accesslevel", world.read.pk, rights_level="read-write")
    request.refresh_from_db()
    assert request.round == 2
    assert Event.objects.filter(action="accessrequest.rescoped", actor_name="ada").exists()


def test_staff_who_may_change_targets_only_cannot_touch_levels(world: World):
    client = browser(staff(world.mallory, "view_target", "change_target"))
    assert client.get(url("target", "change", world.target.pk)).status_code == 200
    page = f"{url('accesslevel', 'add')}?target={world.target.pk}"
    assert client.post(page, new_level()).status_code == 403
    assert client.get(url("accesslevel", "change", world.read.pk)).status_code == 403
    assert Group.objects.count() == 5


def test_who_may_do_what_is_on_the_page_itself(ada: Client, world: World):
    page = ada.get(url("target", "change", world.target.pk))
    assert page.context["holders"][0] == (
        "Owns it (may cut any grant, gets its alarms)",
        ["owners"],
    )
    assert [names for _, names in page.context["holders"][1:]] == [[], []]
    level = ada.get(url("accesslevel", "change", world.read.pk))
    assert level.context["holders"] == [("May ask for it", ["developers"])]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("host=db2", [{"host": "db2"}]),
        ("host=db2 port=5433\n\n host=db3", [{"host": "db2", "port": "5433"}, {"host": "db3"}]),
        ("name='two words' note=a=b", [{"name": "two words", "note": "a=b"}]),
        ("", []),
    ],
)
def test_things_with_values_are_written_one_a_line(text: str, found: list[dict[str, str]]):
    field = RowsField(required=False)
    assert field.clean(text) == found
    assert field.clean(field.prepare_value(found)) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("db2", "not written as name=value"),
        ("host=", "not written as name=value"),
        ("host=db2, port=1 =x", "not written as name=value"),
        ("host=db2 host=db3", "a name twice"),
        ("host='db2", "not closed"),
        ("host=a\x00b", "Null characters"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text: str, why: str):
    with pytest.raises(ValidationError, match=why):
        RowsField().clean(text)


def test_replicas_are_stored_as_their_kind_has_them(ada: Client):
    add_target(ada, config_replicas="host=db2.example.com\nhost=db3.example.com port=5433")
    target = Target.objects.get(name="billing")
    assert target.config["replicas"] == [
        {"host": "db2.example.com", "port": 5432},
        {"host": "db3.example.com", "port": 5433},
    ]
    form = admin_form(ada.get(url("target", "change", target.pk)))
    shown = "host=db2.example.com port=5432\nhost=db3.example.com port=5433"
    assert form["config_replicas"].value() == shown
    wrong = add_target(ada, name="second", config_replicas="host=db2 password=x")
    assert "Extra inputs" in str(errors(admin_form(wrong))["config_replicas"])


def test_every_field_of_a_kind_says_what_it_means(ada: Client, world: World):
    form = admin_form(ada.get(url("target", "add")))
    silent = [
        name for name in form.fields if name.startswith("config_") and not form[name].help_text
    ]
    assert silent == []


def test_testing_a_connection_holds_no_lock(ada: Client, world: World, monkeypatch: Any):
    inside: list[bool] = []

    def look(self: MemoryProvisioner) -> list[Finding]:
        inside.append(connection.in_atomic_block)
        return []

    monkeypatch.setattr(MemoryProvisioner, "test", look)
    before = connection.in_atomic_block  # that of the test itself
    with CaptureQueriesContext(connection) as asked:
        ada.post(url("target", "test", world.target.pk))
    assert inside == [before]
    statements = [one["sql"] for one in asked.captured_queries]
    assert [one for one in statements if "FOR UPDATE" in one or "SAVEPOINT" in one] == []


def test_a_field_is_called_what_its_kind_calls_it_else_by_its_name():
    fields = schema_fields(ServerConfig, "", {})
    assert (fields["sslmode"].label, fields["admin_database"].label) == (
        "SSL mode",
        "Admin database",
    )
