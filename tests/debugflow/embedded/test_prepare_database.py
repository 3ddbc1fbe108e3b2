"""`manage.py prepare_database`: the same three roles on a server that is not embedded."""

from io import StringIO

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

NAMES = {"database": "story", "owner": "story_owner", "migrator": "story_mig", "app": "story_app"}


@pytest.fixture
def server(control, monkeypatch):
    monkeypatch.setenv("SUPERUSER_DATABASE_URL", control.postgres.url())
    monkeypatch.setenv("DEBUGFLOW_APP_PASSWORD", "app's own")
    monkeypatch.setenv("DEBUGFLOW_MIGRATOR_PASSWORD", "migrator's own")
    yield control.postgres
    with psycopg.connect(control.postgres.url(), autocommit=True) as superuser:
        superuser.execute("DROP DATABASE IF EXISTS story WITH (FORCE)")
        superuser.execute("DROP ROLE IF EXISTS story_app, story_mig, story_owner")


def prepare() -> str:
    out = StringIO()
    call_command("prepare_database", stdout=out, **NAMES)
    return out.getvalue()


def test_it_may_be_run_again_and_both_logins_work(server):
    for _ in range(2):
        assert prepare() == "Database story, owned by story_owner, is ready for migrate.\n"
    url = server.url("story", "story_mig", "migrator's own") + "?options=-c%20role%3Dstory_owner"
    with psycopg.connect(url) as migrator:
        migrator.execute("CREATE TABLE chapter AS SELECT 1 AS number")
    with psycopg.connect(server.url("story", "story_app", "app's own")) as app:
        assert app.execute("SELECT number FROM chapter").fetchone() == (1,)


def test_an_app_that_could_become_another_role_is_refused(server):
    prepare()
    with psycopg.connect(server.url(), autocommit=True) as superuser:
        superuser.execute("GRANT story_owner TO story_app")
    with pytest.raises(CommandError, match="story_app is a member of story_owner"):
        prepare()


def test_without_passwords_nothing_is_made(server, monkeypatch):
    monkeypatch.delenv("DEBUGFLOW_APP_PASSWORD")
    with pytest.raises(ImproperlyConfigured, match="DEBUGFLOW_APP_PASSWORD"):
        prepare()
    with psycopg.connect(server.url()) as superuser:
        query = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'story%'"
        assert superuser.execute(query).fetchone() == (0,)
