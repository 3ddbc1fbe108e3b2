"""A view of the framework's own, without our base class, is no weaker than ours."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as django_settings
from django.http import HttpResponseBase
from django.test import RequestFactory
from rest_framework.generics import ListAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from approvals.api.authentication import Session
from approvals.api.endpoints import Endpoint
from approvals.api.pagination import NewestFirst
from approvals.api.parsers import BODY_MAX, StrictJSON
from approvals.api.permissions import WithinScope
from debugflow.accounts.bearer import Bearer
from tests.world import World

STRICT = {
    "authentication_classes": [Bearer, Session],
    "permission_classes": [IsAuthenticated, WithinScope],
    "parser_classes": [StrictJSON],
    "renderer_classes": [JSONRenderer],
}


class Bare(APIView):
    def post(self, request: Request) -> Response:
        return Response(request.data)


@pytest.mark.parametrize("view", [Bare, Endpoint])
@pytest.mark.parametrize("name", STRICT)
def test_the_strict_classes_are_everybodys(view: type[APIView], name: str):
    assert list(getattr(view, name)) == STRICT[name]


def test_pages_are_by_cursor_everywhere():
    assert ListAPIView.pagination_class is NewestFirst


def posted(
    world: World, body: bytes, content_type: str = "application/json", *, token: str = "t" * 32
) -> Any:
    """What the bare view answers alice, who is signed in."""
    request = RequestFactory(enforce_csrf_checks=True).post(
        "/bare/", body, content_type=content_type, HTTP_X_CSRFTOKEN=token
    )
    request.COOKIES[django_settings.CSRF_COOKIE_NAME] = "t" * 32
    request.user = world.alice
    response: HttpResponseBase = Bare.as_view()(request)
    if isinstance(response, Response):
        response.render()
    return response


def test_json_of_somebody_signed_in_is_taken(world: World):
    assert posted(world, b'{"a": 1}').content == b'{"a":1}'


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"a": 1, "a": 2}', "application/json", 400),
        (b'{"a": NaN}', "application/json", 400),
        (b'{"a": "' + b"x" * BODY_MAX + b'"}', "application/json", 413),
        (b"a=1", "application/x-www-form-urlencoded", 415),
    ],
    ids=["a member twice", "no number", "too large", "a form"],
)
def test_anything_else_is_refused(world: World, body: bytes, content_type: str, status: int):
    answer = posted(world, body, content_type)
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"


def test_a_missing_token_is_refused_in_our_words(world: World):
    answer = posted(world, b"{}", token="")
    assert answer.status_code == 403
    assert b"csrf_failed" in answer.content
