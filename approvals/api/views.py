"""One class per verb: find what may be seen, parse, call the verb, print.

Refusals become answers in `errors`. Who may see what is in `access`; nothing is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.contrib.auth import authenticate, login, logout
from django.db.models import Q, QuerySet, TextField, Value
from django.db.models.functions import Cast, Concat
from django.http import Http404
from django.middleware.csrf import get_token
from django.shortcuts import get_object_or_404
from django.urls import reverse
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from approvals import access, grants, workflow
from approvals.api import inputs
from approvals.api import serializers as out
from approvals.api.pagination import NewestFirst, OldestFirst
from approvals.api.permissions import SignedInUnlessSigningIn
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import AccessLevel, AccessRequest, Grant, Target
from approvals.states import GrantState
from approvals.workflow import Wish
from audit import clock, log
from audit.models import Event

if TYPE_CHECKING:
    from approvals.people import Person


class Endpoint(APIView):
    """What all of the API shares: signed in, JSON only, nothing kept by caches.

    How one signs in and what is read are the settings' defaults, for any other view as well.
    """

    permission_classes = (IsAuthenticated,)
    http_method_names = ["get", "head", "post", "delete"]

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {**super().default_response_headers, "Cache-Control": "no-store"}

    @property
    def person(self) -> Person:
        """Whoever asks; only behind a permission class that wants them signed in."""
        return cast("Person", self.request.user)

    def body(self, kind: type[inputs.Input]) -> dict[str, Any]:
        return _parsed(kind, self.request.data)

    def parameters(self, kind: type[inputs.Input]) -> dict[str, Any]:
        return _parsed(kind, self.request.query_params.dict())


def _parsed(kind: type[inputs.Input], data: Any) -> dict[str, Any]:
    given = kind(data=data)
    given.is_valid(raise_exception=True)
    return cast("dict[str, Any]", given.validated_data)


class Unknown(Endpoint):
    """Any address that is none of the API's: a problem as well, and not a page."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        raise Http404


class SignIn(Endpoint):
    permission_classes = (SignedInUnlessSigningIn,)

    def post(self, request: Request) -> Response:
        # No token is asked of whoever is not signed in: JSON alone is read here, and a browser
        # sends that across sites only to those who allow it, which nobody is.
        user = authenticate(request._request, **self.body(inputs.SignInInput))
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


class Listing(Endpoint):
    """A page of rows: which ones is `rows`, how they are printed `printed`."""

    filters: ClassVar[type[inputs.Input]] = inputs.NoFilter
    pages: ClassVar[type[NewestFirst]] = NewestFirst

    def get(self, request: Request, **kwargs: int) -> Response:
        rows, pages = self.rows(self.parameters(self.filters)), self.pages()
        page = pages.paginate_queryset(rows, request, view=self)
        return pages.get_paginated_response(self.printed(page or []).data)

    def rows(self, given: dict[str, Any]) -> QuerySet[Any]:
        raise NotImplementedError

    def printed(self, page: list[Any]) -> BaseSerializer[Any]:
        raise NotImplementedError


class Targets(Listing):
    def rows(self, given: dict[str, Any]) -> QuerySet[Target]:
        return access.visible_targets(self.person)

    def printed(self, page: list[Target]) -> BaseSerializer[Any]:
        return out.TargetOut(page, many=True)


class OneTarget(Endpoint):
    def get(self, request: Request, pk: int) -> Response:
        return Response(out.TargetOut(_one(access.visible_targets(self.person), pk)).data)


class Levels(Listing):
    def rows(self, given: dict[str, Any]) -> QuerySet[AccessLevel]:
        return access.requestable_levels(self.person)

    def printed(self, page: list[AccessLevel]) -> BaseSerializer[Any]:
        return out.LevelOut(page, many=True)


class OneLevel(Endpoint):
    def get(self, request: Request, pk: int) -> Response:
        return Response(out.LevelOut(_one(access.requestable_levels(self.person), pk)).data)


def _one(rows: QuerySet[Any], pk: int) -> Any:
    """The row, or 404 for one that does not exist and one that may not be seen alike."""
    return get_object_or_404(rows, pk=pk)


def _known_levels(person: Person) -> QuerySet[AccessLevel]:
    """Levels whose existence is no secret to `person`, whether or not they may ask for them."""
    targets = access.visible_targets(person).values("pk")
    return AccessLevel.objects.filter(target__in=targets).select_related("target")


def _no_level() -> Invalid:
    return Invalid("This level does not exist any more. Choose another.", code="no_level")


def _requests(rows: QuerySet[AccessRequest]) -> QuerySet[AccessRequest]:
    return rows.select_related(
        "requester", "beneficiary", "target", "level", "policy_version__policy", "grant"
    )


class Requests(Listing):
    """GET lists; POST asks."""

    filters = inputs.RequestFilter

    def rows(self, given: dict[str, Any]) -> QuerySet[AccessRequest]:
        rows = access.visible_requests(self.person)
        if given["mine"]:
            rows = rows.filter(Q(requester=self.person) | Q(beneficiary=self.person))
        if given["awaiting_me"]:
            waiting = AccessRequest.objects.waiting_for(self.person)
            rows = rows.filter(pk__in=waiting.values("pk"))
        if "state" in given:
            rows = rows.filter(state=given["state"])
        return _requests(rows).prefetch_related("stages")

    def printed(self, page: list[AccessRequest]) -> BaseSerializer[Any]:
        return out.RequestRow(page, many=True)

    def post(self, request: Request) -> Response:
        wish = self.body(inputs.WishInput)
        level = wish.pop("level")
        try:
            asked = workflow.submit(level, by=self.person, wish=Wish(**wish))
        except NotAllowed:
            if not _known_levels(self.person).filter(pk=level).exists():
                raise _no_level() from None
            raise
        where = reverse("api:request", args=[asked.pk])
        told = out.request_detail(asked, viewer=self.person)
        return Response(told, status=201, headers={"Location": where})

    def current(self, error: WrongState) -> dict[str, Any] | None:
        """The undecided request for the same, if that is why this one was refused."""
        known = access.visible_requests(self.person)
        asked = _requests(known).filter(pk=error.details.get("request", 0)).first()
        return out.request_detail(asked, viewer=self.person) if asked else None


class PreviewRequest(Endpoint):
    def post(self, request: Request) -> Response:
        wish = self.body(inputs.WishInput)
        level = _known_levels(self.person).filter(pk=wish.pop("level")).first()
        if level is None:
            raise _no_level()
        preview = workflow.preview(level, by=self.person, wish=Wish(**wish))
        return Response(out.preview_out(preview))


class OneRequest(Endpoint):
    """A request that may be seen, and what every verb on one shares."""

    def get(self, request: Request, pk: int) -> Response:
        return Response(self.told(pk))

    def told(self, pk: int) -> dict[str, Any]:
        row = _one(_requests(access.visible_requests(self.person)), pk)
        return out.request_detail(row, viewer=self.person)


class RequestVerb(Endpoint):
    """A verb on a request that may be seen; it answers with the request as it is afterwards."""

    def post(self, request: Request, pk: int) -> Response:
        _one(access.visible_requests(self.person), pk)
        return Response(out.request_detail(self.act(pk), viewer=self.person))

    def act(self, pk: int) -> AccessRequest:
        raise NotImplementedError

    def current(self, error: WrongState) -> dict[str, Any] | None:
        rows = access.visible_requests(self.person).filter(pk=self.kwargs["pk"])
        row = _requests(rows).first()
        return out.request_detail(row, viewer=self.person) if row else None


class VoteOnRequest(RequestVerb):
    def act(self, pk: int) -> AccessRequest:
        return workflow.vote(pk, by=self.person, **self.body(inputs.VoteInput))


class CancelRequest(RequestVerb):
    def act(self, pk: int) -> AccessRequest:
        self.body(inputs.NothingIn)
        return workflow.cancel(pk, by=self.person)


class EventListing(Listing):
    def printed(self, page: list[Event]) -> BaseSerializer[Any]:
        kind = out.AuditorsEventOut if _reads_all_events(self.person) else out.EventOut
        return kind(page, many=True)


class RequestEvents(EventListing):
    pages = OldestFirst

    def rows(self, given: dict[str, Any]) -> QuerySet[Event]:
        request = _one(access.visible_requests(self.person), self.kwargs["pk"])
        return log.timeline(f"request:{request.pk}")


class Events(EventListing):
    filters = inputs.EventFilter
    columns: ClassVar = {"action": "action", "actor": "actor_name", "thread": "thread"}

    def rows(self, given: dict[str, Any]) -> QuerySet[Event]:
        wanted = {self.columns[name]: given[name] for name in self.columns if name in given}
        return _visible_events(self.person).filter(**wanted)


def _reads_all_events(person: Person) -> bool:
    return person.has_perm("audit.view_event")


def _visible_events(person: Person) -> QuerySet[Event]:
    """Everything for auditors; for others the threads of the requests they may see."""
    if _reads_all_events(person):
        return Event.objects.all()
    thread = Concat(Value("request:"), Cast("pk", TextField()), output_field=TextField())
    requests = access.visible_requests(person).annotate(thread=thread).order_by()
    return Event.objects.filter(thread__in=requests.values("thread"))


def _grants(rows: QuerySet[Grant]) -> QuerySet[Grant]:
    return rows.select_related("beneficiary", "target", "level", "request")


class Grants(Listing):
    filters = inputs.GrantFilter

    def rows(self, given: dict[str, Any]) -> QuerySet[Grant]:
        rows = access.visible_grants(self.person)
        if given["mine"]:
            rows = rows.filter(beneficiary=self.person)
        if "state" in given:
            rows = rows.filter(_in_state(given["state"]))
        return _grants(rows)

    def printed(self, page: list[Grant]) -> BaseSerializer[Any]:
        context = {"viewer": self.person, "now": clock.now()}
        return out.GrantOut(page, many=True, context=context)


def _in_state(state: str) -> Q:
    """Mirrors `serializers.effective_state` in SQL."""
    late = Q(state=GrantState.ACTIVE, expires_at__lte=clock.DbNow())
    if state == GrantState.ACTIVE:
        return Q(state=state) & ~late
    if state == GrantState.REVOKING:
        return Q(state=state) | late
    return Q(state=state)


class OneGrant(Endpoint):
    def get(self, request: Request, pk: int) -> Response:
        grant = _one(_grants(access.visible_grants(self.person)), pk)
        return Response(out.grant_detail(grant, viewer=self.person))


class GrantVerb(Endpoint):
    """A verb on a grant that may be seen; it answers with the grant as it is afterwards."""

    def post(self, request: Request, pk: int) -> Response:
        _one(access.visible_grants(self.person), pk)
        return Response(self.act(pk))

    def act(self, pk: int) -> dict[str, Any]:
        raise NotImplementedError

    def current(self, error: WrongState) -> dict[str, Any] | None:
        grant = _grants(access.visible_grants(self.person).filter(pk=self.kwargs["pk"])).first()
        return out.grant_detail(grant, viewer=self.person) if grant else None


class RevealGrant(GrantVerb):
    def act(self, pk: int) -> dict[str, Any]:
        self.body(inputs.NothingIn)
        credential = grants.reveal(pk, by=self.person)
        return {"connection": credential.connection, "password": credential.password}


class ReleaseGrant(GrantVerb):
    def act(self, pk: int) -> dict[str, Any]:
        self.body(inputs.NothingIn)
        return out.grant_detail(grants.release(pk, by=self.person), viewer=self.person)


class RevokeGrant(GrantVerb):
    def act(self, pk: int) -> dict[str, Any]:
        reason = self.body(inputs.ReasonInput)["reason"]
        return out.grant_detail(
            grants.revoke(pk, by=self.person, reason=reason), viewer=self.person
        )


class TryGrantAgain(GrantVerb):
    def act(self, pk: int) -> dict[str, Any]:
        self.body(inputs.NothingIn)
        return out.grant_detail(grants.try_again(pk, by=self.person), viewer=self.person)


class AbandonGrant(GrantVerb):
    def act(self, pk: int) -> dict[str, Any]:
        reason = self.body(inputs.ReasonInput)["reason"]
        return out.grant_detail(
            grants.abandon(pk, by=self.person, reason=reason), viewer=self.person
        )
