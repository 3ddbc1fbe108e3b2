"""What every channel offers, and what it is given. Which channels there are is in `__init__`.

A channel knows neither facts nor retries: it hands over what it is given, once, and says how that
went.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from approvals.models import WebhookEndpoint
    from approvals.people import Person


@dataclass(frozen=True, kw_only=True)
class Item:
    """One notice as a channel tells it. `link` is a path of this site, or empty."""

    delivery: int
    notice: int
    fact: str
    text: str
    step: str
    quote: str
    link: str
    at: datetime
    subject: tuple[str, str]  # type and id of what it is about
    thread: str


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """One message to one recipient: a single notice, or several as the digest of a day.

    `handle` is what the channel returned when it sent the same before: whoever can, changes that
    message in place instead of sending another.
    """

    items: Sequence[Item]
    person: Person | None = None
    endpoint: WebhookEndpoint | None = None
    handle: str = ""

    @property
    def reader(self) -> Person:
        """The person it is for. Raises LookupError where it is for a program."""
        if self.person is None:
            raise LookupError("this is for an endpoint")
        return self.person

    @property
    def addressee(self) -> WebhookEndpoint:
        """The endpoint it is for. Raises LookupError where it is for a person."""
        if self.endpoint is None:
            raise LookupError("this is for a person")
        return self.endpoint

    @property
    def key(self) -> str:
        """The same with every try, so that a recipient can tell a repetition."""
        return f"notice-{self.items[0].notice}-{self.items[0].delivery}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How handing one parcel over went: `why` it failed, or empty.

    `final`: trying again is of no use. `all_of_it`: whatever goes the same way fails likewise, so
    that nothing else of it has to wait for it now. `wait`: after how many seconds it may be tried
    again, where the other side said so.
    """

    why: str = ""
    handle: str = ""
    final: bool = False
    all_of_it: bool = False
    wait: float = 0.0


class Channel(ABC):
    """One way to reach people or programs."""

    name: ClassVar[str]
    label: ClassVar[str]
    # The delivery's row is the message itself: nothing is left to be sent.
    instant: ClassVar[bool] = False
    # Told of every fact; else a person may switch it off.
    always: ClassVar[bool] = False
    for_people: ClassVar[bool] = True
    # A message that asked is sent again with its handle once that is settled, to be changed.
    in_place: ClassVar[bool] = False

    @abstractmethod
    def reaches(self, person: Person) -> bool:
        """Whether it is set up, and this person has an address there."""

    @abstractmethod
    def send(self, parcels: Sequence[Parcel], *, within: float) -> Iterator[tuple[Parcel, Outcome]]:
        """Hand each over, once, telling of each as soon as it is known how that went.

        What is not begun after `within` seconds is left out. Raises nothing that a server or an
        address may cause.
        """
