"""What one notice is about, loaded for many at once: its Event, request, grant and target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from approvals import policy
from approvals.models import AccessRequest, Grant, Notice, RequestStage, Target
from audit.models import Event

REQUEST = ("requester", "beneficiary", "level", "target", "policy_version__policy")
GRANT = ("beneficiary", "level", "target", "request__requester")


@dataclass(frozen=True)
class Case:
    """One notice with what it is about, as that is now. `now` is the database's time."""

    notice: Notice
    now: datetime
    event: Event | None
    request: AccessRequest | None
    grant: Grant | None
    target: Target | None

    @property
    def data(self) -> dict[str, Any]:
        """What the Event says besides."""
        return dict(self.event.data) if self.event else {}

    @property
    def actor(self) -> int | None:
        """Whoever did it, who needs not be told; None for the clock."""
        if self.event is None or self.event.actor_type != "user":
            return None
        return int(self.event.actor_id)

    @property
    def actor_name(self) -> str:
        return self.event.actor_name if self.event else "debugflow"

    @cached_property
    def asked(self) -> AccessRequest:
        """The request. Raises LookupError where there is none."""
        found = self.grant.request if self.grant is not None else self.request
        if found is None:
            raise LookupError(f"{self.notice.thread}: no request")
        return found

    @cached_property
    def held(self) -> Grant:
        """The grant. Raises LookupError where there is none."""
        if self.grant is None:
            raise LookupError(f"{self.notice.subject_type} {self.notice.subject_id}: no grant")
        return self.grant

    @cached_property
    def stage(self) -> RequestStage:
        """The stage it is about. Raises LookupError where there is none."""
        found = RequestStage.objects.filter(pk=int(self.notice.subject_id)).first()
        if found is None or self.notice.subject_type != "requeststage":
            raise LookupError(f"{self.notice.subject_type} {self.notice.subject_id}: no stage")
        return found

    @cached_property
    def chain(self) -> policy.Chain:
        """The request's chain, with the candidates who are still members."""
        return policy.load_chain(self.asked, now=self.now)


def load(notices: Sequence[Notice], now: datetime) -> list[Case]:
    """The cases of these notices, in their order, in one query for each kind of thing."""
    events = Event.objects.in_bulk({one.event_id for one in notices if one.event_id})
    requests = AccessRequest.objects.select_related(*REQUEST).in_bulk(_threads(notices))
    grants = Grant.objects.select_related(*GRANT).in_bulk(_subjects(notices, "grant"))
    targets = Target.objects.in_bulk(_subjects(notices, "target"))
    return [_case(one, now, events, requests, grants, targets) for one in notices]


def _case(
    notice: Notice,
    now: datetime,
    events: dict[Any, Event],
    requests: dict[Any, AccessRequest],
    grants: dict[Any, Grant],
    targets: dict[Any, Target],
) -> Case:
    about = int(notice.subject_id) if notice.subject_id.isdecimal() else 0
    grant = grants.get(about) if notice.subject_type == "grant" else None
    request = requests.get(_thread(notice))
    target = targets.get(about) if notice.subject_type == "target" else None
    if grant is not None or request is not None:
        target = grant.target if grant is not None else request.target  # type: ignore[union-attr]
    event = events.get(notice.event_id) if notice.event_id else None
    return Case(notice, now, event, request, grant, target)


def _thread(notice: Notice) -> int:
    about, _, number = notice.thread.partition(":")
    return int(number) if about == "request" and number.isdecimal() else 0


def _threads(notices: Iterable[Notice]) -> set[int]:
    return {number for one in notices if (number := _thread(one))}


def _subjects(notices: Iterable[Notice], kind: str) -> set[int]:
    return {
        int(one.subject_id)
        for one in notices
        if one.subject_type == kind and one.subject_id.isdecimal()
    }
