"""The demonstration's data: written by the verbs, twice the same, and only where it may be."""

from collections.abc import Iterator
from io import StringIO

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.db.models import Model

from approvals import access, administration, targets, wishes, workflow
from approvals.models import AccessLevel, Grant, Policy, PolicyVersion, Target
from audit.models import Event
from debugflow.accounts.models import User
from debugflow.embedded.production import Production
from debugflow.embedded.state import scratch
from debugflow.embedded.story import cast


@pytest.fixture(scope="module")
def production() -> Iterator[Production]:
    with scratch() as directory:
        with Production(directory / "production", settings={"fsync": "off"}) as running:
            yield running


@pytest.fixture
def seed(db, production, settings, monkeypatch):
    def run() -> str:
        settings.DEMO = True
        monkeypatch.setenv("DEBUGFLOW_DEMO_TARGET_URL", production.admin_url)
        out = StringIO()
        call_command("seed_demo", stdout=out)
        return out.getvalue()

    return run


def person(name: str) -> User:
    return get_user_model().objects.get(username=name)


@pytest.mark.slow
def test_everybody_is_there_and_can_sign_in(seed):
    seed()
    for name in cast.PEOPLE:
        assert authenticate(username=name, password=cast.PASSWORD) == person(name)
    for name, members in cast.MEMBERS.items():
        group = Group.objects.get(name=name)
        assert set(group.user_set.values_list("username", flat=True)) == set(members)
    assert [who for who in cast.PEOPLE if person(who).is_superuser] == [cast.ADMIN]


@pytest.mark.slow
def test_alice_may_ask_and_is_told_whom_mallory_and_ada_may_not(seed):
    seed()
    level = AccessLevel.objects.get(name=cast.READ_ONLY)
    wish = wishes.Wish(duration=60, reason="Orders hang.")
    preview = workflow.preview(level, by=person("alice"), wish=wish)
    assert preview.problem is None
    assert [stage.stage.name for stage in preview.plan.stages] == ["Database", "Security"]
    for name in ("mallory", cast.ADMIN, "bob", "olga"):
        problem = workflow.preview(level, by=person(name), wish=wish).problem
        assert problem is not None
        assert problem.code == "not_requestable"
    assert list(access.owned_targets(person("olga"))) == [level.target]
    assert not access.owned_targets(person(cast.ADMIN)).exists()


def test_the_target_answers_with_the_secret_that_was_stored(seed, production):
    said = seed()
    target = Target.objects.get()
    secret = production._admin_password()
    assert targets.provisioner(target).secret_values == {"password": secret}
    assert secret not in str(target.secrets) + said
    assert [what for ok, what, _ in administration.check_target(target) if not ok] == [
        "does not check the server's certificate (sslmode disable)"
    ]


@pytest.mark.slow
def test_a_second_time_changes_nothing(seed):
    seed()
    rows: list[type[Model]] = [
        Target,
        AccessLevel,
        Policy,
        PolicyVersion,
        Group,
        get_user_model(),
        Event,
    ]
    before = [list(model._default_manager.order_by("pk").values()) for model in rows]
    seed()
    assert [list(model._default_manager.order_by("pk").values()) for model in rows] == before


@pytest.mark.slow
def test_a_target_that_has_moved_is_followed(seed, production, monkeypatch):
    seed()
    target = Target.objects.get()
    target.config["database"] = "postgres"
    target.save()
    seed()
    target.refresh_from_db()
    assert target.config["database"] == "orders"
    assert targets.provisioner(target).secret_values == {"password": production._admin_password()}
    assert not Grant.objects.exists()


def test_it_is_refused_where_it_is_no_demonstration(db, settings):
    settings.DEMO = False
    with pytest.raises(CommandError, match="DEBUGFLOW_DEMO"):
        call_command("seed_demo")
    assert not get_user_model().objects.exists()
