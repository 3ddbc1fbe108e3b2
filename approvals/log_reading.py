"""Who may see what of the audit log, and how it tells of requests, access and targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import CharField, F, Q, QuerySet, Value
from django.db.models.functions import Cast, Concat
from django.urls import reverse

from approvals import access
from approvals.models import AccessRequest, Target
from approvals.sentences import event_sentence
from audit.models import Event, EventQuerySet

if TYPE_CHECKING:
    from approvals.people import Person


class LogReader:
    """What `audit.reading` asks."""

    def visible_to(self, person: Person) -> EventQuerySet:
        """What happened to the requests that one may see, and to targets one owns or audits.

        Whoever may see every Event (`audit.view_event`) sees the rest, too: policies, sign-ins,
        searches of others.
        """
        if self.reads_all(person):
            return Event.objects.all()
        return Event.objects.filter(
            Q(thread__in=_threads(access.visible_requests(person), "request:"))
            | Q(thread__in=_threads(access.owned_targets(person), "target:"))
            | Q(thread__in=_threads(access.audited_targets(person), "target:"))
        )

    def reads_all(self, person: Person) -> bool:
        return person.has_perm("audit.view_event")

    def about_target(self, name: str) -> Q:
        targets = Target.objects.filter(name=name)
        asked = AccessRequest.objects.filter(target__in=targets)
        return Q(thread__in=_threads(targets, "target:")) | Q(
            thread__in=_threads(asked, "request:")
        )

    def sentence(self, event: Event) -> str:
        return event_sentence(event)

    def page(self, event: Event) -> str:
        about, _, number = event.thread.partition(":")
        return reverse("request", args=[int(number)]) if about == "request" else ""


def _threads(rows: QuerySet[Any], prefix: str) -> QuerySet[Any]:
    """The names of the timelines of these requests or targets, as a subquery."""
    named = Concat(Value(prefix), Cast(F("pk"), CharField()), output_field=CharField())
    names: QuerySet[Any] = rows.order_by().annotate(timeline=named).values("timeline")
    return names
