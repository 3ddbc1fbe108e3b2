"""Signing in and out, and tokens: what shows who is asking. None of it is for a token to do."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import authenticate, login, logout
from django.db.models import QuerySet
from django.http import Http404
from django.middleware.csrf import get_token
from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from approvals import tokens
from approvals.api import details, inputs, shapes
from approvals.api import serializers as out
from approvals.api.endpoints import Endpoint, Listing, matching, one
from approvals.api.permissions import IN_PERSON, READS, SignedInUnlessSigningIn, WithinScope
from approvals.errors import NotAllowed
from approvals.models import ApiToken
from approvals.tokens import TokenWish


class SignIn(Endpoint):
    takes = inputs.SignInInput
    gives = shapes.SessionShape
    creates = True
    permission_classes = (SignedInUnlessSigningIn, WithinScope)
    token_scopes = IN_PERSON
    shown_once = True

    def post(self, request: Request) -> Response:
        # No token is asked of whoever is not signed in: JSON alone is read here, and a browser
        # sends that across sites only to those who allow it, which nobody is.
        user = authenticate(request._request, **self.body())
        if user is None:
            raise NotAllowed("This name and password do not fit.", code="bad_credentials")
        login(request._request, user)
        request.user = user
        return self.get(request)

    def get(self, request: Request) -> Response:
        token = get_token(request._request)
        return Response({**out.PersonOut(self.person).data, "csrf_token": token})

    def delete(self, request: Request) -> Response:
        logout(request._request)
        return Response(status=204)


class Tokens(Listing):
    """GET lists; POST makes one, whose text is in that answer and nowhere else."""

    takes = inputs.TokenInput
    lists = out.TokenOut
    filters = inputs.TokenFilter
    gives = details.TokenMade
    post_status = 201
    creates = True
    token_scopes = IN_PERSON
    shown_once = True

    def rows(self, given: dict[str, Any]) -> QuerySet[ApiToken]:
        rows = tokens.visible(self.person)
        if given["mine"]:
            rows = rows.filter(account=self.person)
        return matching(rows, given, {"kind": "kind", "person": "account__username"})

    def printed(self, page: list[ApiToken]) -> BaseSerializer[Any]:
        return out.TokenOut(page, many=True)

    def post(self, request: Request) -> Response:
        wish = TokenWish(**self.body())
        issued = tokens.make(self.person.pk, by=self.person, wish=wish)
        where = reverse("api:token", args=[issued.row.pk])
        told = {**out.TokenOut(issued.row).data, "token": issued.clear}
        return Response(told, status=self.post_status, headers={"Location": where})


class OneToken(Endpoint):
    gives = out.TokenOut
    token_scopes = IN_PERSON

    def get(self, request: Request, pk: int) -> Response:
        return Response(out.TokenOut(one(tokens.visible(self.person), pk)).data)

    def delete(self, request: Request, pk: int) -> Response:
        one(tokens.visible(self.person), pk)
        tokens.revoke(pk, by=self.person)
        return Response(status=204)


class ThisToken(Endpoint):
    """The token that asks, so that a program can see who it is and for how long."""

    gives = out.TokenOut
    token_scopes = READS

    def get(self, request: Request) -> Response:
        if not isinstance(request.auth, ApiToken):
            raise Http404
        return Response(out.TokenOut(request.auth).data)
