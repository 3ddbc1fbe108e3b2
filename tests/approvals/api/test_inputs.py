"""Hostile input: whatever is sent, the answer is a problem that says what is wrong, never a 5xx."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from approvals.models import AccessRequest
from tests.approvals.api.conftest import PROBLEM, As, asked, refused
from tests.world import World

HUGE = 10**30
# One name each, so that a failure says which.
WRONG_FIELDS: dict[str, tuple[str, Any]] = {
    "level as text": ("level", "1"),
    "level true": ("level", True),
    "level null": ("level", None),
    "level nested": ("level", {"id": 1}),
    "level with a fraction": ("level", 1.5),
    "level as a float": ("level", 1.0),
    "level huge": ("level", HUGE),
    "level negative": ("level", -1),
    "duration as text": ("duration", "3600"),
    "duration huge": ("duration", HUGE),
    "duration zero": ("duration", 0),
    "duration a float": ("duration", 1e300),
    "duration a list": ("duration", [3600]),
    "reason a number": ("reason", 5),
    "reason null": ("reason", None),
    "reason blank": ("reason", " \n"),
    "reason with NUL": ("reason", "a\x00b"),
    "reason half a surrogate": ("reason", "a\ud800b"),
    "reason too long": ("reason", "x" * 2001),
    "reason nested": ("reason", {"a": ["b"]}),
    "ticket too long": ("ticket", "x" * 101),
    "ticket with NUL": ("ticket", "\x00"),
    "ticket half a surrogate": ("ticket", "\udfff"),
    "start without a zone": ("starts_at", "2030-01-01T00:00:00"),
    "start a date": ("starts_at", "2030-01-01"),
    "start past": ("starts_at", "2001-01-01T00:00:00Z"),
    "start at the end of time": ("starts_at", "9999-12-31T23:59:59-23:59"),
    "start at the beginning of time": ("starts_at", "0001-01-01T00:00:00+23:59"),
    "start far ahead": ("starts_at", "2999-01-01T00:00:00Z"),
    "start a number": ("starts_at", 1893456000),
    "start a huge number": ("starts_at", HUGE),
    "start no time": ("starts_at", "tomorrow\x00"),
    "start a list": ("starts_at", []),
    "unknown field": ("beneficiary", 1),
    "unknown field, half a surrogate": ("\ud800", 1),
    "field of the model": ("state", "approved"),
}
NOT_OBJECTS = [b"[]", b"null", b"3", b'"text"', b"true", b"[[[]]]", b"{}"]
NOT_JSON = [
    b"{",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"{'a': 1}",
    b'{"a": NaN}',
    b'{"a": -Infinity}',
    b'{"a": 1, "a": 2}',
    b'{"a": ' + b"9" * 5000 + b"}",
    b"[" * 30000,
    b'{"a":' * 9000,
    b"\x00",
]


NO_LEVEL = {"level huge", "level negative"}  # of the right type, but there is none


@pytest.mark.slow
def test_a_wrong_field_is_named(world: World, as_: As, subtests: pytest.Subtests):
    for name, (field, value) in WRONG_FIELDS.items():
        with subtests.test(name):
            body = json.dumps(asked(world) | {field: value}).encode()
            answer = as_("alice").send("requests/", body)
            if name in NO_LEVEL:
                refused(answer, 422, "no_level")
            else:
                assert list(refused(answer, 422, "invalid")["fields"]) == [field]
            previewed = as_("alice").send("requests/preview/", body)
            problem = previewed.json().get("problem", previewed.json())
            assert (previewed.status_code in (200, 422), problem["status"]) == (True, 422)
    assert not AccessRequest.objects.exists()


@pytest.mark.parametrize("field", ["level", "duration", "reason"])
def test_a_missing_field_is_named(world: World, as_: As, field: str):
    body = asked(world)
    del body[field]
    problem = refused(as_("alice").post("requests/", body), 422, "invalid")
    assert list(problem["fields"]) == [field]


def test_odd_but_sound_text_is_kept_to_the_letter(world: World, as_: As):
    reason = "  <script>ﷺ 🧨 \u202eright-to-left\t'; DROP TABLE--  "
    told = as_("alice").post("requests/", asked(world, reason=reason)).json()
    assert told["reason"] == told["scope"]["reason"] == reason


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["session", "preview", "submit", "vote", "revoke"])
def test_bodies_that_are_no_object_or_no_json(world: World, as_: As, verb: str):
    grant = world.approved()
    path = {
        "session": "session/",
        "preview": "requests/preview/",
        "submit": "requests/",
        "vote": f"requests/{grant.request_id}/vote/",
        "revoke": f"grants/{grant.pk}/revoke/",
    }[verb]
    caller = as_("olga")
    for raw in (b"", *NOT_OBJECTS):
        assert refused(caller.send(path, raw), 422, "invalid")["fields"]
    for raw in NOT_JSON:
        refused(caller.send(path, raw), 400, "malformed")


@pytest.mark.parametrize("verb", ["cancel", "reveal", "release"])
def test_verbs_that_need_no_body_take_no_fields(world: World, as_: As, verb: str):
    grant = world.approved()
    kind = f"requests/{grant.request_id}" if verb == "cancel" else f"grants/{grant.pk}"
    answer = as_("alice").post(f"{kind}/{verb}/", {"force": True})
    assert list(refused(answer, 422, "invalid")["fields"]) == ["force"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"decision": "abstain"},
        {"decision": "\ud800"},
        {"decision": ["approve"]},
        {"decision": None},
        {"scope_hash": 5},
        {"scope_hash": "\x00"},
        {"comment": "x" * 2001},
        {"comment": "\x00"},
        {"comment": {}},
        {"on_behalf_of": 1},
    ],
    ids=str,
)
def test_votes_of_no_sense_count_nothing(world: World, as_: As, change: dict[str, Any]):
    request = world.submit()
    body = {"decision": "approve", "scope_hash": request.scope_hash, "comment": ""} | change
    answer = as_("bob").send(f"requests/{request.pk}/vote/", json.dumps(body).encode())
    assert list(refused(answer, 422, "invalid")["fields"]) == list(change)
    assert not request.stages.filter(votes__isnull=False).exists()


@pytest.mark.slow
@pytest.mark.parametrize("listing", ["requests/", "grants/", "events/", "targets/", "levels/"])
def test_odd_parameters(world: World, as_: As, listing: str):
    alice = as_("alice")
    unknown = refused(alice.get(listing, order="reason"), 422, "invalid")
    assert list(unknown["fields"]) == ["order"]
    for position in ("x", "-1", "\x00", "9" * 40, "1e5", "٣"):
        cursor = base64.b64encode(f"p={position}".encode()).decode()
        problem = refused(alice.get(listing, cursor=cursor), 422, "invalid")
        assert list(problem["fields"]) == ["cursor"]
    for cursor in ("x", "ünï", "\x00", "A" * 4999):
        refused(alice.get(listing, cursor=cursor), 422, "invalid")


@pytest.mark.parametrize(
    ("listing", "parameter", "value"),
    [
        ("requests/", "state", "open"),
        ("requests/", "mine", "1"),
        ("requests/", "awaiting_me", "\x00"),
        ("grants/", "state", ""),
        ("grants/", "mine", "TRUE"),
        ("events/", "actor", "a\x00"),
        ("events/", "thread", "\x00"),
    ],
)
def test_odd_values_of_filters(world: World, as_: As, listing: str, parameter: str, value: str):
    problem = refused(as_("alice").get(listing, **{parameter: value}), 422, "invalid")
    assert list(problem["fields"]) == [parameter]


def test_query_bytes_that_are_not_utf8(world: World, as_: As):
    answer = as_("alice").client.get("/api/v1/events/?actor=%ff%ed%a0%80&thread=%25")
    assert (answer.status_code, answer.json()["results"]) == (200, [])


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data", "x", "", ";;"])
def test_other_content_types(world: World, as_: As, content_type: str):
    answer = as_("alice").send("requests/", b"{}", content_type=content_type)
    assert answer["Content-Type"] == PROBLEM
    assert answer.status_code in (400, 415)


def test_a_form_is_not_even_read_for_a_token(world: World, as_: As):
    form = b"a=" + b"x" * (3 * 2**20)
    answer = as_("alice").send("requests/", form, "application/x-www-form-urlencoded")
    refused(answer, 415, "unsupported_media_type")
