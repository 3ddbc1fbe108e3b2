"""Deny by default: no address of the API answers anybody who has not signed in."""

from __future__ import annotations

from typing import Any, cast

import pytest
from django.urls import URLPattern
from rest_framework.permissions import AllowAny
from rest_framework.views import APIView

from approvals.api.endpoints import Endpoint
from approvals.api.urls import urlpatterns
from tests.approvals.api.conftest import PROBLEM, As, anonymous, refused
from tests.world import World

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def view_of(pattern: URLPattern) -> type[APIView]:
    return cast("type[APIView]", cast(Any, pattern.callback).cls)


def address(pattern: URLPattern) -> str:
    path = str(pattern.pattern).replace("<int:pk>", "1") or "no/such/thing"
    return f"/api/v1/{path}"


@pytest.mark.parametrize("pattern", urlpatterns, ids=lambda pattern: pattern.name)
def test_every_view_names_its_permission(pattern: URLPattern):
    view = view_of(pattern)
    ours = view.__mro__[: view.__mro__.index(APIView)]
    assert any("permission_classes" in vars(kind) for kind in ours), f"{view} leaves it to settings"
    assert view.permission_classes
    assert AllowAny not in view.permission_classes
    assert issubclass(view, Endpoint)


@pytest.mark.slow
@pytest.mark.django_db
@pytest.mark.parametrize("pattern", urlpatterns, ids=lambda pattern: pattern.name)
def test_nobody_gets_in_without_signing_in(pattern: URLPattern):
    signs_in = {"POST"} if pattern.name == "session" else set()
    for method in METHODS - signs_in:
        path = address(pattern)
        answer = anonymous().generic(method, path, "{}", content_type="application/json")
        assert (method, answer.status_code) == (method, 403)
        assert answer["Content-Type"] == PROBLEM
        assert method == "HEAD" or refused(answer, 403, "not_authenticated")


@pytest.mark.slow
def test_an_unknown_address_and_a_wrong_method_are_problems_too(world: World, as_: As):
    alice = as_("alice")
    refused(alice.get("no/such/thing/"), 404, "not_found")
    refused(alice.get("requests"), 404, "not_found")
    refused(alice.get("requests/x/"), 404, "not_found")
    refused(alice.get(f"requests/{10**30}/"), 404, "not_found")
    refused(alice.get(f"requests/{'9' * 5000}/"), 404, "not_found")
    refused(alice.get("requests/1/vote/"), 405, "method_not_allowed")
    refused(alice.client.options("/api/v1/requests/"), 405, "method_not_allowed")
    assert alice.get("requests/1/vote/")["Allow"] == "POST"
    refused(alice.client.get("/api/v1/requests/?format=xml"), 404, "not_found")
    refused(
        alice.client.get("/api/v1/requests/", headers={"Accept": "text/html"}),
        406,
        "not_acceptable",
    )
