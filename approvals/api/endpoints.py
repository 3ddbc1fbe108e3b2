"""What endpoints have in common: who may call, how they parse and print, lists, repeated calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.db.models import QuerySet
from django.http import Http404, HttpResponseBase
from django.shortcuts import get_object_or_404
from rest_framework.exceptions import ParseError
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from approvals import tokens
from approvals.api import inputs, repeating, shapes
from approvals.api.pagination import NewestFirst
from approvals.api.permissions import CHANGES, Scopes, WithinScope
from approvals.models import ApiToken

if TYPE_CHECKING:
    from approvals.people import Person


class Endpoint(APIView):
    """What all of the API shares: signed in, JSON only, nothing kept by caches.

    How one signs in and what is read are the settings' defaults, for any other view as well.
    """

    permission_classes: Sequence[type[BasePermission]] = (IsAuthenticated, WithinScope)
    http_method_names = ["get", "head", "post", "delete"]
    token_scopes: ClassVar[Scopes] = CHANGES
    # What a POST is parsed by, what is printed of one thing, and the status of having made one.
    takes: ClassVar[type[inputs.Input]] = inputs.NothingIn
    gives: ClassVar[type[BaseSerializer[Any]]] = shapes.Shape
    post_status: ClassVar[int] = 200
    creates: ClassVar[bool] = False
    # What is printed, with 202, where a POST takes a second person and so is not done yet.
    proposes: ClassVar[type[BaseSerializer[Any]] | None] = None
    # Whether a POST's body or answer holds a secret, so that no key can have it repeated.
    shown_once: ClassVar[bool] = False

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if self.shown_once and request.method == "POST" and repeating.key_of(request) is not None:
            raise ParseError(
                "A secret is sent or answered here, and not kept. Leave the Idempotency-Key out.",
                code="shown_once",
            )
        if isinstance(request.auth, ApiToken) and self._changes(request):
            tokens.record_use(request.auth, method=str(request.method), path=request.path[:200])

    def perform_authentication(self, request: Request) -> None:
        """Whoever is known is counted at once: what is refused them costs as much, and is told."""
        super().perform_authentication(request)
        if request.user.is_authenticated:
            super().check_throttles(request)

    def check_throttles(self, request: Request) -> None:
        """Of others only those who may go on from here, to sign in."""
        if not request.user.is_authenticated:
            super().check_throttles(request)

    def _changes(self, request: Request) -> bool:
        return request.method in ("POST", "DELETE") and request.method in self.allowed_methods

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {**super().default_response_headers, "Cache-Control": "no-store"}

    @property
    def person(self) -> Person:
        """Whoever asks; only behind a permission class that wants them signed in."""
        return cast("Person", self.request.user)

    def body(self) -> dict[str, Any]:
        return _parsed(self.takes, self.request.data)

    def parameters(self, kind: type[inputs.Input]) -> dict[str, Any]:
        return _parsed(kind, self.request.query_params.dict())


def _parsed(kind: type[inputs.Input], data: Any) -> dict[str, Any]:
    given = kind(data=data)
    given.is_valid(raise_exception=True)
    return cast("dict[str, Any]", given.validated_data)


class Unknown(Endpoint):
    """Any address that is none of the API's: a problem as well, and not a page."""

    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        raise Http404


class Repeatable(Endpoint):
    """POST carries out `perform`, once for one `Idempotency-Key`."""

    def post(self, request: Request, **kwargs: int) -> HttpResponseBase:
        return repeating.once(self, request, partial(self.perform, request, **kwargs))

    def perform(self, request: Request, **kwargs: int) -> Response:
        raise NotImplementedError


class Listing(Endpoint):
    """A page of rows: which ones is `rows`, how they are printed `printed`."""

    filters: ClassVar[type[inputs.Input]] = inputs.NoFilter
    beside: ClassVar[type[shapes.Shape]] = shapes.Shape
    pages: ClassVar[type[NewestFirst]] = NewestFirst

    def get(self, request: Request, **kwargs: int) -> Response:
        rows, pages = self.rows(self.parameters(self.filters)), self.pages()
        page = pages.paginate_queryset(rows, request, view=self)
        told = pages.get_paginated_response(self.printed(page or []).data)
        told.data.update(self.told_beside())
        return told

    def rows(self, given: dict[str, Any]) -> QuerySet[Any]:
        raise NotImplementedError

    def printed(self, page: list[Any]) -> BaseSerializer[Any]:
        raise NotImplementedError

    def told_beside(self) -> dict[str, Any]:
        """What a page says beside its rows, of the form `beside`."""
        return {}


def matching(
    rows: QuerySet[Any], given: dict[str, Any], columns: Mapping[str, str]
) -> QuerySet[Any]:
    """The rows that have what was given, by the filter's name and what it is compared with."""
    return rows.filter(**{columns[name]: given[name] for name in columns if name in given})


def one(rows: QuerySet[Any], pk: int) -> Any:
    """The row, or 404 for one that does not exist and one that may not be seen alike."""
    return get_object_or_404(rows, pk=pk)
