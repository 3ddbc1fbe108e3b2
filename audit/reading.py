"""Reading the log: who may see which Events, and how they are told, as others have registered it.

This package knows people and subjects as text only. Without a registered `Reader` nobody sees
anything.
"""

from __future__ import annotations

from typing import Any, Protocol

from django.db.models import Q

from audit.models import Event, EventQuerySet


class Reader(Protocol):
    """What whoever knows people, targets and requests says about Events."""

    def visible_to(self, person: Any) -> EventQuerySet:
        """The Events that this person may see."""

    def reads_all(self, person: Any) -> bool:
        """Whether this person sees every Event, and where it came from: address and agent."""

    def about_target(self, name: str) -> Q:
        """The Events on a target of that name: its own, and those of all that was asked there."""

    def sentence(self, event: Event) -> str:
        """What happened, in one sentence."""

    def page(self, event: Event) -> str:
        """The address of the page of what it happened to; empty where there is none."""


class _Nobody:
    def visible_to(self, person: Any) -> EventQuerySet:
        return Event.objects.none()

    def reads_all(self, person: Any) -> bool:
        return False

    def about_target(self, name: str) -> Q:
        return Q(pk__in=())

    def sentence(self, event: Event) -> str:
        return event.action

    def page(self, event: Event) -> str:
        return ""


_reader: Reader = _Nobody()


def register(reader: Reader) -> None:
    """Make this the one that is asked."""
    global _reader
    _reader = reader


def reader() -> Reader:
    return _reader
