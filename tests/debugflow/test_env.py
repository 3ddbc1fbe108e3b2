"""Reading the environment: what is taken, what is refused, and that a refusal says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from debugflow import env
from debugflow.embedded.state import CHECKOUT

NAME = "STORY"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    monkeypatch.delenv(f"{NAME}_FILE", raising=False)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda value: monkeypatch.setenv(NAME, value)


@pytest.fixture
def filed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bytes], Path]:
    """Puts bytes into a file that STORY_FILE names."""

    def write(content: bytes) -> Path:
        path = tmp_path / "secret"
        path.write_bytes(content)
        monkeypatch.setenv(f"{NAME}_FILE", str(path))
        return path

    return write


def test_a_text_is_taken_as_it_is(given):
    given(" as it is ")
    assert env.text(NAME) == " as it is "


def test_an_empty_text_is_a_text(given):
    given("")
    assert env.text(NAME, "default") == ""


def test_a_text_may_have_a_default():
    assert env.text(NAME, "default") == "default"
    assert env.text(NAME, Path("/a/path")) == "/a/path"


def test_a_required_text_that_is_missing_says_both_names():
    with pytest.raises(ImproperlyConfigured, match=r"Set STORY \(or STORY_FILE\) in the"):
        env.text(NAME)


def test_a_file_goes_before_the_value_and_loses_its_line_break(filed, given):
    given("from the environment")
    filed("frøm the file\n".encode())
    assert env.text(NAME) == "frøm the file"


def test_a_file_that_cannot_be_read_is_never_the_default(filed):
    filed(b"").unlink()
    with pytest.raises(ImproperlyConfigured, match=r"STORY_FILE=.*cannot be read: .*No such file"):
        env.text(NAME, "default")


def test_a_file_that_is_no_text_is_never_the_default_and_is_not_shown(filed):
    filed(b"\xff\xfehunter2")
    with pytest.raises(ImproperlyConfigured, match=r"STORY_FILE=.*cannot be read: .*UTF-8") as told:
        env.text(NAME, "default")
    assert "hunter2" not in f"{told.value} {told.value.__cause__}"


@pytest.mark.parametrize(("value", "meant"), [("True", True), ("False", False)])
def test_a_boolean_is_spelled_exactly_so(given, value, meant):
    given(value)
    assert env.boolean(NAME, not meant) is meant


@pytest.mark.parametrize("value", ["true", "1", "yes", "on", "", " True", "0"])
def test_any_other_boolean_is_refused(given, value):
    given(value)
    with pytest.raises(ImproperlyConfigured, match="STORY must be True or False, not '"):
        env.boolean(NAME, False)


@pytest.mark.parametrize("default", [True, False])
def test_a_boolean_has_a_default(default):
    assert env.boolean(NAME, default) is default


def test_a_number_is_whole_and_large_enough(given):
    assert env.number(NAME, 7) == 7
    given("100")
    assert env.number(NAME, 7, at_least=100) == 100


@pytest.mark.parametrize("value", ["99", "-1", "1.5", "1e3", "", "many", "0x10", "²"])
def test_any_other_number_is_refused(given, value):
    given(value)
    with pytest.raises(ImproperlyConfigured, match="STORY must be a whole number from 100, not '"):
        env.number(NAME, 500, at_least=100)


def test_words_are_separated_by_commas_and_trimmed(given):
    assert env.words(NAME) == []
    assert env.words(NAME, "a,b") == ["a", "b"]
    given(" one, two ,,three,")
    assert env.words(NAME, "a") == ["one", "two", "three"]
    given("")
    assert env.words(NAME, "a") == []


def test_a_database_in_full(given):
    given(
        "postgresql://us%40er:p%2Fw%23@db.example.com:6543/na%20me?sslmode=verify-full&options=-c%20a%3Db"
    )
    assert env.database(NAME) == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "na me",
        "USER": "us@er",
        "PASSWORD": "p/w#",
        "HOST": "db.example.com",
        "PORT": "6543",
        "OPTIONS": {"sslmode": "verify-full", "options": "-c a=b"},
    }


def test_a_database_in_short(given):
    given("postgres:///name")
    found = env.database(NAME)
    assert {found[key] for key in ("USER", "PASSWORD", "HOST", "PORT")} == {""}
    assert (found["NAME"], found["OPTIONS"]) == ("name", {})


@pytest.mark.parametrize(
    "value",
    [
        "",
        "mysql://user:hunter2@host/name",
        "postgresql://user:hunter2@host",
        "postgresql://user:hunter2@host/",
        "postgresql://user:hunter2@host:many/name",
        "postgresql://user:hunter2@[host/name",
        "postgresql://user:hunt#er2@host/name",
        "postgresql://user:hunter2@host/name?sslmode",
        "postgresql://user:hunter2@host/name?sslmode=",
        "host=db password=hunter2",
    ],
)
def test_any_other_database_is_refused_without_showing_its_password(given, value):
    given(value)
    with pytest.raises(ImproperlyConfigured, match="STORY must look like postgresql://") as told:
        env.database(NAME)
    assert "hunt" not in str(told.value)


def test_a_database_that_is_missing_is_required_unless_it_has_a_default():
    with pytest.raises(ImproperlyConfigured, match="Set STORY"):
        env.database(NAME)
    assert env.database(NAME, "postgresql://localhost/name")["NAME"] == "name"


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("redis://valkey:6379/0", "redis://:p%40%2Fss@valkey:6379/0"),
        ("postgresql://app@db/x", "postgresql://app:p%40%2Fss@db/x"),
        ("postgresql://app:p%40%2Fss@db/x", "postgresql://app:p%40%2Fss@db/x"),
    ],
)
def test_a_password_kept_apart_is_put_into_its_url(url, whole):
    assert env.with_password(url, "p@/ss") == whole
    assert env.with_password(url, "") == url


@pytest.mark.parametrize("url", ["postgresql://app:hunter2@db/x", "hunter2"])
def test_a_password_that_is_another_than_the_urls_is_refused_and_neither_shown(url):
    with pytest.raises(ImproperlyConfigured, match="another password") as told:
        env.with_password(url, "hunter3")
    assert "hunter" not in str(told.value)


def test_a_database_with_its_password_apart(given):
    given("postgresql://app@db/x?sslmode=require")
    found = env.database(NAME, password="p@/ss%41")
    assert (found["USER"], found["PASSWORD"], found["HOST"]) == ("app", "p@/ss%41", "db")


def test_networks_are_taken_in_their_canonical_form(given):
    given("10.1.2.0/24, 2001:DB8::1")
    assert env.networks(NAME) == ["10.1.2.0/24", "2001:db8::1/128"]


@pytest.mark.parametrize("value", ["10.1.2.3/24", "gateway.example.com", "10.0.0.0/99"])
def test_what_is_no_network_is_refused_with_an_example(given, value):
    given(value)
    with pytest.raises(ImproperlyConfigured, match=r"STORY must list networks like 10\.1\.2\.0/24"):
        env.networks(NAME)


@pytest.mark.slow
def test_a_command_without_its_settings_says_which_in_one_line():
    """Whoever runs `doctor` to see what is missing must not be shown a traceback."""
    run = subprocess.run(
        [sys.executable, "manage.py", "doctor"],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    told = "The settings cannot be used: Set SECRET_KEY (or SECRET_KEY_FILE) in the environment.\n"
    assert (run.returncode, run.stdout, run.stderr) == (1, "", told)
