"""The holders of a campaign: people ask and approve, sign in, let go, and see how it ends for them.

They work in the driver's process, on threads of their own. What is killed meanwhile is `fleet`'s.
"""

from __future__ import annotations

import random
import selectors
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.db import connections

from approvals import grants
from approvals.errors import NotAllowed, WrongState
from approvals.models import Grant
from approvals.states import GrantState
from tests.faults.place import REFUSALS, Place

MAKERS = ("alice", "amir")
WAITING_MOST = 8  # grants that wait for a worker, beyond which no more are made
SIGNS_IN, RELEASED, REVOKED = 0.5, 0.2, 0.2  # of all that become usable
PAUSE = 0.1  # seconds between two looks
WITHIN = 60.0  # seconds after which a holder stops trying to sign in again


@dataclass
class Session:
    """One live session of a holder and, as times of the clock, when it closed and the door did."""

    grant: Grant
    password: str
    connection: psycopg.Connection[Any]
    closed: float = 0.0
    refused: float = 0.0

    @property
    def until(self) -> float:
        """When waiting for its end is given up."""
        assert self.grant.expires_at
        return self.grant.expires_at.timestamp() + WITHIN


@dataclass
class Plans:
    """How many grants are made, and for how many seconds each."""

    grants: int
    durations: tuple[int, int]
    made: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> bool:
        """Whether one more is to be made; it counts as made then."""
        with self.lock:
            one_more = self.made < self.grants
            self.made += one_more
            return one_more


def on_thread(work: Callable[[], None]) -> threading.Thread:
    """Run `work` on a thread of its own, with database connections of its own."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def make(place: Place, plans: Plans, who: str, chances: random.Random) -> None:
    """Ask and have approved, no faster than workers take them up, until there are enough."""
    while plans.next():
        while Grant.objects.filter(state=GrantState.SCHEDULED).count() >= WAITING_MOST:
            time.sleep(PAUSE)
        duration = chances.randint(*plans.durations)
        request = place.world.submit(who, place.level, duration=duration)
        place.world.vote(request, "bob")


class Holders:
    """Everyone whose grant has become usable: some sign in, some release, some are revoked."""

    def __init__(self, place: Place, chances: random.Random) -> None:
        self.place = place
        self.sessions: list[Session] = []
        self._chances = chances
        self._met: set[int] = set()
        self._due: list[tuple[float, Callable[[], object]]] = []
        self._selector = selectors.DefaultSelector()
        self._leaving, self._closing = threading.Event(), threading.Event()
        self._probes = ThreadPoolExecutor(8, thread_name_prefix="probe")
        self._threads = [on_thread(self._live), on_thread(self._listen)]

    def leave(self) -> None:
        """Take up no more grants, see every session to its end, and come home."""
        self._leaving.set()
        self._threads[0].join()
        self._closing.set()
        self._threads[1].join()
        self._probes.shutdown(wait=True)
        self._selector.close()

    def _live(self) -> None:
        while not self._leaving.is_set() or self._due:
            if not self._leaving.is_set():
                self._meet()
            now = time.monotonic()
            due = [act for at, act in self._due if at <= now]
            self._due = [one for one in self._due if one[0] > now]
            for act in due:
                act()
            time.sleep(PAUSE)

    def _meet(self) -> None:
        usable = Grant.objects.filter(state=GrantState.ACTIVE).values_list("pk", flat=True)
        new = set(usable) - self._met
        self._met |= new
        # In their order, so that the same chances fall to the same grants.
        for grant in Grant.objects.filter(pk__in=new).order_by("pk").select_related("beneficiary"):
            self._decide(grant)

    def _decide(self, grant: Grant) -> None:
        chance = self._chances.random
        if chance() < SIGNS_IN:
            self._sign_in(grant)
        fate, at = chance(), time.monotonic() + chance() * grant.duration
        if fate < RELEASED:
            self._due.append((at, lambda: self._let_go(grant)))
        elif fate < RELEASED + REVOKED:
            self._due.append((at, lambda: self._take_away(grant)))

    def _sign_in(self, grant: Grant) -> None:
        try:
            password = grants.reveal(grant.pk, by=grant.beneficiary).password
            session = Session(grant, password, self.place.sign_in(grant, password))
        except (WrongState, psycopg.OperationalError):
            return  # it has ended meanwhile
        self.sessions.append(session)
        self._selector.register(session.connection.fileno(), selectors.EVENT_READ, session)

    def _let_go(self, grant: Grant) -> None:
        try:
            grants.release(grant.pk, by=grant.beneficiary)
        except (WrongState, NotAllowed):
            return  # the clock was faster

    def _take_away(self, grant: Grant) -> None:
        try:
            grants.revoke(grant.pk, by=self.place.world.bob, reason="Not now.")
        except (WrongState, NotAllowed):
            return

    def _listen(self) -> None:
        """Note when each socket closes: nobody says anything there, so a word is its end."""
        while not self._closing.is_set() or self._open():
            for key, _ in self._selector.select(timeout=PAUSE):
                self._selector.unregister(key.fileobj)
                key.data.closed = time.time()
                key.data.connection.close()
                self._probes.submit(self._knock, key.data)

    def _open(self) -> bool:
        """Whether a session is still to be waited for: not for ever, should one never end."""
        return any(one.until > time.time() for one in self.sessions if not one.closed)

    def _knock(self, session: Session) -> None:
        """Try to sign in again until it is refused: by more than a server that is full or down."""
        deadline = time.monotonic() + WITHIN
        while time.monotonic() < deadline:
            try:
                self.place.sign_in(session.grant, session.password).close()
            except psycopg.OperationalError as error:
                if any(words in str(error) for words in REFUSALS):
                    session.refused = time.time()
                    return
