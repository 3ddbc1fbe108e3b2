"""One class per verb: find what may be seen, parse, call the verb, print.

Refusals become answers in `errors`. Who may see what is in `access`; nothing is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib.auth import authenticate, get_user_model
from django.db.models import Q, QuerySet
from django.urls import reverse
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from approvals import (
    access,
    delegating,
    discussion,
    editing,
    emergency,
    escalation,
    grants,
    proposals,
    reviews,
    tokens,
    workflow,
)
from approvals.api import details, inputs, schema, shapes
from approvals.api import serializers as out
from approvals.api.endpoints import Endpoint, Listing, Repeatable, matching, one
from approvals.api.pagination import OldestFirst
from approvals.api.permissions import (
    IN_PERSON,
    READS,
    VOTES,
    NoServiceAsks,
    WithinScope,
)
from approvals.delegating import Lending
from approvals.errors import Invalid, NotAllowed, Proposed, WrongState
from approvals.models import (
    AccessLevel,
    AccessRequest,
    Delegation,
    Grant,
    Proposal,
    Review,
    Risk,
    Target,
)
from approvals.narrowing import Less
from approvals.states import GrantState
from approvals.wishes import Wish
from audit import clock, log, looking, reading
from audit.models import Event

if TYPE_CHECKING:
    from approvals.people import Person


class Targets(Listing):
    lists = out.TargetOut

    def rows(self, given: dict[str, Any]) -> QuerySet[Target]:
        return access.visible_targets(self.person)

    def printed(self, page: list[Target]) -> BaseSerializer[Any]:
        return out.TargetOut(page, many=True)


class OneTarget(Endpoint):
    gives = out.TargetOut

    def get(self, request: Request, pk: int) -> Response:
        return Response(out.TargetOut(one(access.visible_targets(self.person), pk)).data)


class Levels(Listing):
    lists = out.LevelOut
    filters = inputs.LevelFilter

    def rows(self, given: dict[str, Any]) -> QuerySet[AccessLevel]:
        rows = access.requestable_levels(self.person)
        return matching(rows, given, {"target": "target"})

    def printed(self, page: list[AccessLevel]) -> BaseSerializer[Any]:
        return out.LevelOut(page, many=True)


class OneLevel(Endpoint):
    gives = out.LevelOut

    def get(self, request: Request, pk: int) -> Response:
        return Response(out.LevelOut(one(access.requestable_levels(self.person), pk)).data)


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


class Requests(Listing, Repeatable):
    """GET lists; POST asks."""

    takes = inputs.WishInput
    lists = out.RequestRow
    gives = details.RequestDetail
    post_status = 201
    creates = True
    permission_classes = (IsAuthenticated, WithinScope, NoServiceAsks)

    filters = inputs.RequestFilter
    columns: ClassVar = {
        "state": "state",
        "target": "target",
        "level": "level",
        "submitted_after": "submitted_at__gte",
        "submitted_before": "submitted_at__lt",
    }

    def rows(self, given: dict[str, Any]) -> QuerySet[AccessRequest]:
        rows = access.visible_requests(self.person)
        if given["mine"]:
            rows = rows.filter(Q(requester=self.person) | Q(beneficiary=self.person))
        if given["awaiting_me"]:
            waiting = AccessRequest.objects.waiting_for(self.person)
            rows = rows.filter(pk__in=waiting.values("pk"))
        if given["mentioning_me"]:
            mentions = discussion.open_mentions(self.person)
            rows = rows.filter(pk__in=mentions.order_by().values("request"))
        if "person" in given:
            named = Q(requester__username=given["person"])
            rows = rows.filter(named | Q(beneficiary__username=given["person"]))
        return _requests(matching(rows, given, self.columns)).prefetch_related("stages")

    def printed(self, page: list[AccessRequest]) -> BaseSerializer[Any]:
        return out.RequestRow(page, many=True)

    def perform(self, request: Request, **kwargs: int) -> Response:
        wish = self.body()
        level = wish.pop("level")
        try:
            asked = workflow.submit(level, by=self.person, wish=Wish(**wish))
        except NotAllowed:
            if not _known_levels(self.person).filter(pk=level).exists():
                raise _no_level() from None
            raise
        where = reverse("api:request", args=[asked.pk])
        told = out.request_detail(asked, viewer=self.person)
        return Response(told, status=self.post_status, headers={"Location": where})

    def current(self, error: WrongState) -> dict[str, Any] | None:
        """The undecided request for the same, if that is why this one was refused."""
        known = access.visible_requests(self.person)
        asked = _requests(known).filter(pk=error.details.get("request", 0)).first()
        return out.request_detail(asked, viewer=self.person) if asked else None


class Emergency(Repeatable):
    """Opens a level without approval. For people who sign in, never for a token."""

    takes = inputs.EmergencyInput
    gives = details.RequestDetail
    post_status = 201
    creates = True
    token_scopes = IN_PERSON
    shown_once = True

    def perform(self, request: Request, **kwargs: int) -> Response:
        given = self.body()
        level, password = given.pop("level"), given.pop("password")
        if not _known_levels(self.person).filter(pk=level).exists():
            raise _no_level()
        # Counted like a sign-in, and so bounded like one.
        known = authenticate(
            request._request, username=self.person.get_username(), password=password
        )
        opened = emergency.break_glass(
            level, by=self.person, proven=known is not None and known == self.person, **given
        )
        where = reverse("api:request", args=[opened.pk])
        told = out.request_detail(opened, viewer=self.person)
        return Response(told, status=self.post_status, headers={"Location": where})


class Reviews(Listing):
    lists = out.ReviewOut
    filters = inputs.ReviewFilter

    def rows(self, given: dict[str, Any]) -> QuerySet[Review]:
        rows = reviews.visible(self.person)
        if given["open"]:
            rows = rows.filter(reviewed_at__isnull=True)
        if given["awaiting_me"]:
            waiting = reviews.waiting_for(self.person, clock.now())
            rows = rows.filter(pk__in=waiting.order_by().values("pk"))
        return rows

    def printed(self, page: list[Review]) -> BaseSerializer[Any]:
        return out.ReviewOut(page, many=True, context={"now": clock.now()})


class OneReview(Repeatable):
    """GET shows; POST gives it."""

    takes = inputs.ReviewInput
    gives = out.ReviewOut
    token_scopes = READS

    def get(self, request: Request, pk: int) -> Response:
        return Response(self._told(one(reviews.visible(self.person), pk)))

    def perform(self, request: Request, **kwargs: int) -> Response:
        found = one(reviews.visible(self.person), kwargs["pk"])
        return Response(self._told(reviews.review(found.pk, by=self.person, **self.body())))

    def _told(self, review: Review) -> dict[str, Any]:
        return out.ReviewOut(review, context={"now": clock.now()}).data

    def current(self, error: WrongState) -> dict[str, Any] | None:
        review = reviews.visible(self.person).filter(pk=self.kwargs["pk"]).first()
        return self._told(review) if review else None


class PreviewRequest(Endpoint):
    takes = inputs.WishInput
    gives = shapes.PreviewShape

    def post(self, request: Request) -> Response:
        wish = self.body()
        level = _known_levels(self.person).filter(pk=wish.pop("level")).first()
        if level is None:
            raise _no_level()
        preview = workflow.preview(level, by=self.person, wish=Wish(**wish))
        return Response(out.preview_out(preview))


class OneRequest(Endpoint):
    """A request that may be seen, and what every verb on one shares."""

    gives = details.RequestDetail

    def get(self, request: Request, pk: int) -> Response:
        return Response(self.told(pk))

    def told(self, pk: int) -> dict[str, Any]:
        row = one(_requests(access.visible_requests(self.person)), pk)
        return out.request_detail(row, viewer=self.person)


class RequestVerb(Repeatable):
    """A verb on a request that may be seen; it answers with the request as it is afterwards."""

    gives = details.RequestDetail

    def perform(self, request: Request, **kwargs: int) -> Response:
        pk = kwargs["pk"]
        one(access.visible_requests(self.person), pk)
        return Response(out.request_detail(self.act(pk), viewer=self.person))

    def act(self, pk: int) -> AccessRequest:
        raise NotImplementedError

    def current(self, error: WrongState) -> dict[str, Any] | None:
        rows = access.visible_requests(self.person).filter(pk=self.kwargs["pk"])
        row = _requests(rows).first()
        return out.request_detail(row, viewer=self.person) if row else None


class VoteOnRequest(RequestVerb):
    takes = inputs.VoteInput
    token_scopes = VOTES

    def act(self, pk: int) -> AccessRequest:
        risks = tokens.VOTE_RISKS if self.request.auth else Risk.values
        body = self.body()
        less = body.pop("less")
        left = Less(**less) if less is not None else None
        return workflow.vote(pk, by=self.person, risks=risks, less=left, **body)


class SendRequestBack(RequestVerb):
    takes = inputs.SendBackInput
    token_scopes = VOTES

    def act(self, pk: int) -> AccessRequest:
        return editing.send_back(pk, by=self.person, **self.body())


class EditRequest(RequestVerb):
    takes = inputs.EditInput
    permission_classes = (IsAuthenticated, WithinScope, NoServiceAsks)

    def act(self, pk: int) -> AccessRequest:
        wish = self.body()
        scope_hash = wish.pop("scope_hash")
        return editing.edit(pk, by=self.person, wish=Wish(**wish), scope_hash=scope_hash)


class CancelRequest(RequestVerb):
    def act(self, pk: int) -> AccessRequest:
        self.body()
        return workflow.cancel(pk, by=self.person)


class RedrawRequest(RequestVerb):
    def act(self, pk: int) -> AccessRequest:
        self.body()
        return escalation.redraw(pk, by=self.person)


class Comments(Listing, Repeatable):
    """GET lists; POST says something."""

    takes = inputs.CommentInput
    lists = gives = out.CommentOut
    post_status = 201
    creates = True
    pages = OldestFirst

    def rows(self, given: dict[str, Any]) -> QuerySet[Event]:
        request = one(access.visible_requests(self.person), self.kwargs["pk"])
        return discussion.comments(request)

    def printed(self, page: list[Event]) -> BaseSerializer[Any]:
        return out.CommentOut(page, many=True)

    def perform(self, request: Request, **kwargs: int) -> Response:
        asked = one(access.visible_requests(self.person), kwargs["pk"])
        said = discussion.comment(asked.pk, by=self.person, text=self.body()["comment"])
        return Response(out.CommentOut(said).data, status=self.post_status)


class EventListing(Listing):
    lists = details.EventDetail

    def printed(self, page: list[Event]) -> BaseSerializer[Any]:
        reads_all = reading.reader().reads_all(self.person)
        kind = out.AuditorsEventOut if reads_all else out.EventOut
        return kind(page, many=True)


class RequestEvents(EventListing):
    pages = OldestFirst

    def rows(self, given: dict[str, Any]) -> QuerySet[Event]:
        request = one(access.visible_requests(self.person), self.kwargs["pk"])
        return log.timeline(f"request:{request.pk}")


class Events(EventListing):
    filters = inputs.EventFilter
    columns: ClassVar = {
        "action": "action",
        "actor": "actor_name",
        "thread": "thread",
        "happened_after": "at__gte",
        "happened_before": "at__lt",
    }

    def rows(self, given: dict[str, Any]) -> QuerySet[Event]:
        if looking.sent_from_elsewhere(self.request):
            raise NotAllowed("Another site sent this call.")
        times = ("happened_after", "happened_before")  # which whoever polls moves on
        terms = [f"{name}:{value}" for name, value in sorted(given.items()) if name not in times]
        looking.tell(self.person, " ".join(terms), where="by the API")
        return matching(reading.reader().visible_to(self.person), given, self.columns)


def _grants(rows: QuerySet[Grant]) -> QuerySet[Grant]:
    return rows.select_related("beneficiary", "target", "level", "request__policy_version__policy")


class Grants(Listing):
    lists = out.GrantOut
    filters = inputs.GrantFilter
    columns: ClassVar = {
        "target": "target",
        "level": "level",
        "person": "beneficiary__username",
        "approved_after": "approved_at__gte",
        "approved_before": "approved_at__lt",
    }

    def rows(self, given: dict[str, Any]) -> QuerySet[Grant]:
        rows = access.visible_grants(self.person)
        if given["mine"]:
            rows = rows.filter(beneficiary=self.person)
        if "state" in given:
            rows = rows.filter(_in_state(given["state"]))
        return _grants(matching(rows, given, self.columns))

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
    gives = details.GrantDetail

    def get(self, request: Request, pk: int) -> Response:
        grant = one(_grants(access.visible_grants(self.person)), pk)
        return Response(out.grant_detail(grant, viewer=self.person))


class GrantVerb(Repeatable):
    """A verb on a grant that may be seen; it answers with the grant as it is afterwards."""

    gives: ClassVar[type[BaseSerializer[Any]]] = details.GrantDetail

    def perform(self, request: Request, **kwargs: int) -> Response:
        pk = kwargs["pk"]
        one(access.visible_grants(self.person), pk)
        return Response(self.act(pk))

    def act(self, pk: int) -> dict[str, Any]:
        raise NotImplementedError

    def current(self, error: WrongState) -> dict[str, Any] | None:
        grant = _grants(access.visible_grants(self.person).filter(pk=self.kwargs["pk"])).first()
        return out.grant_detail(grant, viewer=self.person) if grant else None


class RevealGrant(GrantVerb):
    gives = shapes.CredentialShape
    token_scopes = IN_PERSON
    shown_once = True

    def act(self, pk: int) -> dict[str, Any]:
        self.body()
        credential = grants.reveal(pk, by=self.person)
        return {"connection": credential.connection, "password": credential.password}


class ExtendGrant(GrantVerb):
    """Asks that it goes on for longer; it answers with the request for that."""

    takes = inputs.LongerInput
    gives = details.RequestDetail
    post_status = 201
    creates = True
    permission_classes = (IsAuthenticated, WithinScope, NoServiceAsks)

    def perform(self, request: Request, **kwargs: int) -> Response:
        pk = kwargs["pk"]
        one(access.visible_grants(self.person), pk)
        asked = workflow.ask_longer(pk, by=self.person, wish=Wish(**self.body()))
        where = reverse("api:request", args=[asked.pk])
        told = out.request_detail(asked, viewer=self.person)
        return Response(told, status=self.post_status, headers={"Location": where})


class ReleaseGrant(GrantVerb):
    def act(self, pk: int) -> dict[str, Any]:
        self.body()
        return out.grant_detail(grants.release(pk, by=self.person), viewer=self.person)


class RevokeGrant(GrantVerb):
    takes = inputs.ReasonInput

    def act(self, pk: int) -> dict[str, Any]:
        reason = self.body()["reason"]
        return out.grant_detail(
            grants.revoke(pk, by=self.person, reason=reason), viewer=self.person
        )


class TryGrantAgain(GrantVerb):
    def act(self, pk: int) -> dict[str, Any]:
        self.body()
        return out.grant_detail(grants.try_again(pk, by=self.person), viewer=self.person)


class AbandonGrant(GrantVerb):
    takes = inputs.ReasonInput

    def act(self, pk: int) -> dict[str, Any]:
        reason = self.body()["reason"]
        return out.grant_detail(
            grants.abandon(pk, by=self.person, reason=reason), viewer=self.person
        )


class Delegations(Listing, Repeatable):
    """GET lists; POST lends one's votes or, for admins of policies, another's: two of them."""

    takes = inputs.LendingInput
    proposes = out.ProposalOut
    lists = gives = out.DelegationOut
    filters = inputs.DelegationFilter
    post_status = 201
    creates = True
    token_scopes = READS
    columns: ClassVar = {"person": "person__username", "delegate": "delegate__username"}

    def rows(self, given: dict[str, Any]) -> QuerySet[Delegation]:
        rows = delegating.visible(self.person)
        return matching(rows.of(self.person) if given["mine"] else rows, given, self.columns)

    def printed(self, page: list[Delegation]) -> BaseSerializer[Any]:
        return out.DelegationOut(page, many=True)

    def perform(self, request: Request, **kwargs: int) -> Response:
        given = self.body()
        name = given.pop("person") or self.person.get_username()
        person = get_user_model()._default_manager.filter(username=name).first()
        if person is None:
            raise Invalid(fields={"person": ["Nobody is called that."]})
        try:
            made = delegating.delegate(person.pk, by=self.person, lending=Lending(**given))
        except Proposed as proposed:
            return _proposed(proposed)
        where = reverse("api:delegation", args=[made.pk])
        told = out.DelegationOut(made).data
        return Response(told, status=self.post_status, headers={"Location": where})


def _proposed(proposed: Proposed) -> Response:
    """It is not done yet: somebody else has to agree."""
    found = Proposal.objects.select_related("proposer", "decided_by").get(pk=proposed.proposal_id)
    where = reverse("api:proposal", args=[found.pk])
    return Response(out.ProposalOut(found).data, status=202, headers={"Location": where})


class Proposals(Listing):
    lists = out.ProposalOut
    filters = inputs.ProposalFilter

    def rows(self, given: dict[str, Any]) -> QuerySet[Proposal]:
        rows = proposals.visible_to(self.person)
        if given["mine"]:
            rows = rows.filter(proposer=self.person)
        if given["awaiting_me"]:
            waiting = proposals.waiting_for(self.person, clock.now())
            rows = rows.filter(pk__in=[one.pk for one in waiting])
        return matching(rows, given, {"state": "state"})

    def printed(self, page: list[Proposal]) -> BaseSerializer[Any]:
        return out.ProposalOut(page, many=True)


class OneProposal(Endpoint):
    gives = out.ProposalOut

    def get(self, request: Request, pk: int) -> Response:
        return Response(out.ProposalOut(one(proposals.visible_to(self.person), pk)).data)


class OneDelegation(Endpoint):
    gives = out.DelegationOut
    token_scopes = READS

    def get(self, request: Request, pk: int) -> Response:
        return Response(out.DelegationOut(one(delegating.visible(self.person), pk)).data)


class EndDelegation(Repeatable):
    gives = out.DelegationOut
    token_scopes = IN_PERSON

    def perform(self, request: Request, **kwargs: int) -> Response:
        self.body()
        row = one(delegating.visible(self.person), kwargs["pk"])
        return Response(out.DelegationOut(delegating.end_delegation(row.pk, by=self.person)).data)


class Schema(Endpoint):
    """The description of all this, for whoever has signed in."""

    gives = details.SchemaShape

    def get(self, request: Request) -> Response:
        return Response(schema.description())
