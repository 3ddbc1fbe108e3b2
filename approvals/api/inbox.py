"""One's own inbox: what one was told, and what of it is read.

As on the page: marking something as read decides nothing, and concerns nobody else.
"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from approvals.api import inputs, shapes
from approvals.api import serializers as out
from approvals.api.endpoints import Listing, Repeatable
from approvals.models import Delivery
from approvals.notify import inbox


class Inbox(Listing):
    lists = out.EntryOut
    beside = shapes.UnreadShape
    filters = inputs.InboxFilter

    def rows(self, given: dict[str, Any]) -> QuerySet[Delivery]:
        return inbox.unread(self.person) if given["unread"] else inbox.entries(self.person)

    def printed(self, page: list[Delivery]) -> BaseSerializer[Any]:
        return out.EntryOut(page, many=True)

    def told_beside(self) -> dict[str, Any]:
        return {"unread": inbox.unread(self.person).order_by().count()}


class ReadInbox(Repeatable):
    """Marks some entries as read, or all up to one; what is not one's own is passed over."""

    takes = inputs.ReadInput
    gives = shapes.ReadShape

    def perform(self, request: Request, **kwargs: int) -> Response:
        given = self.body()
        if "until" in given:
            read = inbox.read_all(self.person, until=given["until"])
        else:
            read = inbox.read_some(self.person, given["ids"])
        left = inbox.unread(self.person).order_by().count()
        return Response({"read": read, "unread": left})
