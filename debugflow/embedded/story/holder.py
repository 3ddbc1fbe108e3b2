"""The holder's side of an access: real connections to the target, watched until they are closed."""

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, LiteralString, Self

import psycopg

from debugflow.embedded.story.checks import StoryFailed

PAUSE = 0.01  # seconds between two statements of a session that is watched
SIGN_IN_PAUSE = 0.05  # seconds between two sign-ins of a watch
REFUSALS = ("password authentication failed", "is not permitted to log in")


@dataclass(frozen=True)
class Credential:
    """What the holder was shown, once."""

    connection: dict[str, Any]
    password: str

    def __repr__(self) -> str:
        return f"Credential({self.connection})"

    def connect(self) -> psycopg.Connection[Any]:
        where = self.connection
        return psycopg.connect(
            host=where["host"],
            port=where["port"],
            dbname=where["database"],
            user=where["user"],
            sslmode=where["sslmode"],
            password=self.password,
            require_auth="scram-sha-256",
            connect_timeout=5,
            autocommit=True,
        )

    def refusal(self) -> str:
        """Try a new sign-in: why the target refused it, or "" if it did not.

        Raises psycopg.OperationalError when the target could not be asked.
        """
        try:
            self.connect().close()
        except psycopg.OperationalError as error:
            told = str(error)
            if not any(refusal in told for refusal in REFUSALS):
                raise
            return told.rpartition("FATAL:")[2].strip()
        return ""


class Watched(ABC):
    """Something a thread tries again and again, until the target ends it."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._ended_at: float | None = None
        self._trouble: Exception | None = None
        self._done = threading.Event()

    def start(self) -> Self:
        # A daemon: a story that failed does not wait for it.
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def ended_at(self, *, by: float) -> float:
        """When it ended, in seconds since 1970, waiting for it until `by`. Raises StoryFailed."""
        self._done.wait(max(0.0, by - time.time()))
        if self._trouble is not None:
            raise StoryFailed(self.what, expected="to be ended by the target", got=self._trouble)
        if self._ended_at is None:
            raise StoryFailed(self.what, expected="to be ended in time", got="still going on")
        return self._ended_at

    def _run(self) -> None:
        try:
            self._until_ended()
            self._ended_at = time.time()
        except Exception as error:  # noqa: BLE001  (told by `ended_at`, in the story's own thread)
            self._trouble = error
        self._done.set()

    @abstractmethod
    def _until_ended(self) -> None:
        """Return once the target has ended it; whatever is raised is trouble."""


class Session(Watched):
    """An open connection that says `query` until the target closes it."""

    def __init__(self, credential: Credential, *, query: LiteralString = "SELECT 1") -> None:
        super().__init__(f"the session of {credential.connection['user']}")
        self.db = credential.connect()
        self._query = query

    def _until_ended(self) -> None:
        try:
            while True:
                self.db.execute(self._query)
                time.sleep(PAUSE)
        except psycopg.errors.AdminShutdown:
            return  # the server's last words
        except psycopg.OperationalError:
            if not self.db.closed:
                raise


class SignIns(Watched):
    """New sign-ins, one after another from `since` on, until one is refused."""

    def __init__(self, credential: Credential, *, since: float) -> None:
        super().__init__(f"new sign-ins as {credential.connection['user']}")
        self.refusal = ""
        self._credential, self._since = credential, since

    def _until_ended(self) -> None:
        time.sleep(max(0.0, self._since - time.time()))
        while not self.refusal:
            self.refusal = self._credential.refusal()
            time.sleep(0 if self.refusal else SIGN_IN_PAUSE)
