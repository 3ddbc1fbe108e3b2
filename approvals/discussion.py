"""The discussion of a request: what somebody says is an Event of its timeline, and never a vote.

It can be neither changed nor removed. Whoever is named with an @ finds the request on their home
page until they say something themselves or vote, or it is decided.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from django.contrib.auth import get_user_model
from django.db.models import Exists, OuterRef, QuerySet

from approvals import access
from approvals.errors import Invalid, NotAllowed
from approvals.models import AccessRequest, Mention, Vote
from approvals.rounds import locked_request, request_subject
from approvals.states import UNDECIDED
from approvals.transition import actor, verb
from audit import log
from audit.models import Event

if TYPE_CHECKING:
    from approvals.people import Person

COMMENT_MAX: Final = 2000
MENTIONS_MAX: Final = 20
COMMENTED: Final = "comment.added"
# What a username may consist of, but for the full stop that ends a sentence.
MENTION: Final = re.compile(r"(?<![\w@.+-])@([\w.@+-]*[\w@+-])")


@verb("comment.refused", request_subject)
def comment(request_id: int, *, by: Person, text: str, after: int | None = None) -> Event:
    """Say something about a request, decided or not. Raises NotAllowed, WrongState, Invalid.

    `after` is the last Event that a form showed: the same text of theirs that came later is the
    same form sent twice, and is not said again.
    """
    request = locked_request(request_id)
    if not access.visible_requests(by).filter(pk=request.pk).exists():
        raise NotAllowed("This request is not yours to see.", code="not_yours")
    text = text.strip()
    _require_text(text)
    if after is not None and (twice := _said(request, by, text, after)):
        return twice
    told, untold = _mentioned(request, by, text)
    Mention.objects.filter(request=request, person=by).delete()
    Mention.objects.bulk_create(
        [
            Mention(request=request, person=person, author=by, at=request.locked_at)
            for person in told
        ],
        update_conflicts=True,
        unique_fields=["request", "person"],
        update_fields=["author", "at"],
    )
    return log.record(
        COMMENTED,
        actor=actor(by),
        subject=request,
        at=request.locked_at,
        comment=text,
        mentions=[person.get_username() for person in told],
        unseen=untold,
    )


def open_mentions(person: Person) -> QuerySet[Mention]:
    """Where somebody named this person, who has neither answered nor voted since, undecided."""
    visible = access.visible_requests(person).filter(state__in=UNDECIDED)
    voted = Vote.objects.filter(
        stage__request=OuterRef("request"), voter=person, voted_at__gt=OuterRef("at")
    )
    rows = Mention.objects.filter(~Exists(voted), person=person, request__in=visible.values("pk"))
    related = ("author", "request__requester", "request__beneficiary", "request__level")
    return rows.select_related(*related, "request__target").order_by("-at", "-pk")


def _require_text(text: str) -> None:
    if not text:
        raise Invalid(fields={"comment": ["Write what you want to say."]})
    if len(text) > COMMENT_MAX:
        raise Invalid(fields={"comment": [f"Keep it within {COMMENT_MAX} characters."]})
    if "\x00" in text:
        raise Invalid(fields={"comment": ["A NUL character cannot be stored. Remove it."]})


def comments(request: AccessRequest) -> QuerySet[Event]:
    """What was said about it, oldest first."""
    return log.timeline(request.audit_subject().thread).filter(action=COMMENTED)


def _said(request: AccessRequest, by: Person, text: str, after: int) -> Event | None:
    theirs = comments(request).filter(actor_id=str(by.pk), pk__gt=after)
    return theirs.filter(data__comment=text).first()


def _mentioned(
    request: AccessRequest, by: Person, text: str
) -> tuple[Sequence[Person], Sequence[str]]:
    """Whom the text names: the people who can see the request, and the names of those who cannot.

    A name that nobody has is plain text.
    """
    names = sorted(set(MENTION.findall(text)))
    if len(names) > MENTIONS_MAX:
        raise Invalid(fields={"comment": [f"Name at most {MENTIONS_MAX} people."]})
    people = get_user_model()._default_manager.filter(username__in=names, is_active=True)
    told, untold = [], []
    for person in people.exclude(pk=by.pk).order_by("username"):
        if access.visible_requests(person).filter(pk=request.pk).exists():
            told.append(person)
        else:
            untold.append(person.get_username())
    return told, untold
