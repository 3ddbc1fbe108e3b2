"""Live sessions of holders, watched at the target: when the socket closed, when the door did.

Needs no database of ours, which may be what is away.
"""

from __future__ import annotations

import select
import threading
import time
from dataclasses import dataclass, field
from math import inf
from typing import Any

import psycopg

from approvals import grants
from approvals.models import Grant
from approvals.states import GrantState
from tests.faults.place import REFUSALS, Place, eventually, state_of

# Seconds between two tries to sign in: at first, and at most. Many who try all the time would be a
# fault of their own.
PAUSE, PAUSE_MOST = 0.05, 2.0
WITHIN = 60.0  # seconds that a session is watched at most, beyond what a test has patience for


@dataclass
class Held:
    """One session. Times are those of the wall clock; infinite while it has not come to that."""

    place: Place
    grant: Grant
    password: str
    session: psycopg.Connection[Any]
    closed: float = inf
    refused: float = inf
    _gone: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def due(self) -> float:
        """When it is to end by itself."""
        assert self.grant.expires_at is not None
        return self.grant.expires_at.timestamp()

    @property
    def shut(self) -> float:
        """When both were over: its own session, and signing in anew."""
        return max(self.closed, self.refused)

    def over(self, *, within: float = WITHIN) -> float:
        """Wait until both are over; when that was, infinite if it was not within these seconds."""
        self._gone.wait(within)
        return self.shut

    def is_live(self) -> bool:
        """Whether its holder is still at work."""
        return self.closed == inf

    def _watch(self) -> None:
        """Nobody says anything there, so that a word is the end."""
        deadline = time.monotonic() + 600
        waiting = [self.session.fileno()]
        while not select.select(waiting, [], [], 1.0)[0]:
            if time.monotonic() > deadline:
                return
        self.closed, pause = time.time(), PAUSE
        while not self._is_refused():
            if time.monotonic() > deadline:
                return
            time.sleep(pause)
            pause = min(PAUSE_MOST, 2 * pause)
        self.refused = time.time()
        self._gone.set()

    def _is_refused(self) -> bool:
        """Not any failure is a refusal: a server that is away refuses nobody for good."""
        try:
            self.place.sign_in(self.grant, self.password).close()
        except psycopg.OperationalError as error:
            return any(words in str(error) for words in REFUSALS)
        return False


def hold(place: Place, grant: Grant, *, port: int = 0) -> Held:
    """Wait until it is usable, and sign in: at another port than ours, if one is named."""
    eventually(lambda: state_of(grant) == GrantState.ACTIVE)
    grant.refresh_from_db()
    password = grants.reveal(grant.pk, by=grant.beneficiary).password
    grant.connection["port"] = port or grant.connection["port"]
    return Held(place, grant, password, place.sign_in(grant, password))
