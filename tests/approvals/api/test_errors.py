"""Everything a view can raise, as a problem; and a defect, which is not hidden as one."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, UnreadablePostError
from rest_framework import exceptions

from approvals.api.errors import problem
from approvals.errors import Fenced, Invalid, NotAllowed, ProvisionError, WrongState
from tests.approvals.api.conftest import refused
from tests.world import World


class Answer:
    """A response of the handler, read as the client's are."""

    def __init__(self, error: Exception) -> None:
        response: Any = problem(error, {})
        self.response, self.status_code = response, response.status_code

    def __getitem__(self, name: str) -> str:
        return str(self.response[name])

    @property
    def content(self) -> bytes:
        return bytes(self.response.content)

    def json(self) -> Any:
        return json.loads(self.content)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotAllowed("No.", code="self_approval"), 403, "self_approval"),
        (WrongState(), 409, "wrong_state"),
        (Invalid(fields={"reason": ["Say why."]}), 422, "invalid"),
        (ProvisionError("It is down.", code="unreachable"), 502, "unreachable"),
        (Fenced(), 502, "fenced"),
        (exceptions.ValidationError({"a": ["b"]}), 422, "invalid"),
        (exceptions.ParseError(), 400, "parse_error"),
        (exceptions.Throttled(), 429, "throttled"),
        (exceptions.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (Http404(), 404, "not_found"),
        (PermissionDenied(), 403, "permission_denied"),
        (BadRequest(), 400, "malformed"),
        (UnreadablePostError(), 400, "malformed"),
        (SuspiciousOperation(), 400, "malformed"),
    ],
)
def test_each_kind_of_no_has_its_status(error: Exception, status: int, code: str):
    refused(Answer(error), status, code)


def test_details_and_fields_are_members_that_replace_none_of_the_standard_ones():
    error = Invalid(
        "No policy.", code="no_policy", near_misses=["a", "b"], status=1, fields={"level": ["x"]}
    )
    told = Answer(error).json()
    assert told["near_misses"] == ["a", "b"]
    assert told["fields"] == {"level": ["x"]}
    assert told["status"] == 422


def test_nested_messages_of_the_framework_become_flat_ones():
    error = exceptions.ValidationError({"a": {"b": ["c"], "d": [{"e": ["f"]}]}})
    assert Answer(error).json()["fields"] == {"a": ["c", "f"]}
    assert Answer(exceptions.ValidationError("x")).json()["fields"] == {"non_field_errors": ["x"]}


def test_whoever_is_throttled_is_told_for_how_long():
    wait = timedelta(seconds=2.2).total_seconds()
    assert Answer(exceptions.Throttled(wait=wait))["Retry-After"] == "3"


def test_a_defect_is_not_dressed_up_as_an_answer():
    assert problem(KeyError("x"), {}) is None


def test_text_that_is_not_unicode_is_escaped_and_does_not_break_the_answer():
    told = Answer(exceptions.ValidationError({"\ud800": ["\udfff"]}))
    assert told.content.decode().count("\\ud") == 2
    assert told.json()["fields"] == {"\ud800": ["\udfff"]}


def test_a_conflict_over_a_request_one_cannot_see_carries_nothing_of_it(world: World):
    told = Answer(WrongState("Asked already.", code="asked_already", request=12)).json()
    assert "current" not in told
