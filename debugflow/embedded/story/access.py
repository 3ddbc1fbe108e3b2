"""What the acts have in common: asking, deciding, and an access that is open and in use.

Only the public API and the holder's own connection are used; what is told about them is in `acts`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from debugflow.embedded.production import Production
from debugflow.embedded.story.checks import expect, wait_until
from debugflow.embedded.story.holder import Credential, Session
from debugflow.embedded.story.people import Person

OPENS_WITHIN = 15.0  # seconds from the last approval
GONE_WITHIN = 20.0  # seconds from the end to "verified gone"


@dataclass(frozen=True, kw_only=True)
class Access:
    """One grant that is open. Times are seconds since 1970, as the API tells them."""

    holder: Person
    request: int
    grant: int
    account: str
    oid: int  # of the account's role on the target
    approved_at: float
    usable_at: float
    expires_at: float
    credential: Credential
    session: Session

    @property
    def to_usable(self) -> float:
        """Seconds from sending the last approval to the first answered query."""
        return self.usable_at - self.approved_at

    def told(self) -> dict[str, Any]:
        """The grant as the API tells it now."""
        grant: dict[str, Any] = self.holder.get(f"grants/{self.grant}/")
        return grant

    def wait_until_ended(self, *, reason: str) -> dict[str, Any]:
        """Wait until the API says `ended`, which it does after reading the target back only."""
        ended = wait_until(
            f"the end of {self.account}",
            self.told,
            lambda told: bool(told["state"] == "ended"),
            within=GONE_WITHIN,
        )
        expect(f"why {self.account} ended", expected=reason, got=ended["end_reason"])
        return ended

    def events(self) -> list[dict[str, Any]]:
        """The audit trail of its request, oldest first."""
        page = self.holder.get(f"requests/{self.request}/events/")
        expect("more pages of events", expected=None, got=page["next"])
        events: list[dict[str, Any]] = page["results"]
        return events

    def event(self, action: str) -> dict[str, Any]:
        """The first event of that name; raises StoryFailed without one."""
        found = [event for event in self.events() if event["action"] == action]
        expect(f"is {action} in the audit trail", expected=True, got=bool(found))
        return found[0]


def ask(person: Person, level: Mapping[str, Any], *, duration: int, reason: str) -> dict[str, Any]:
    """Submit a request and return it as the API tells it."""
    body = {"level": level["id"], "duration": duration, "reason": reason}
    request: dict[str, Any] = person.post("requests/", body, status=201)
    return request


def ballot(request: Mapping[str, Any], **changes: str) -> dict[str, str]:
    """An approval of exactly what `request` froze, with `changes`."""
    return {"decision": "approve", "scope_hash": request["scope_hash"], "comment": "", **changes}


def approve(person: Person, request: Mapping[str, Any]) -> dict[str, Any]:
    """Approve in the stage that is open; returns the request as it is then."""
    path = f"requests/{request['id']}/vote/"
    told: dict[str, Any] = person.post(path, ballot(request, comment="Looks right."))
    return told


def wait_until_active(person: Person, grant: int) -> dict[str, Any]:
    """Wait until the grant is active; an opening that failed is not waited for."""
    opened = wait_until(
        f"grant {grant} opens",
        lambda: person.get(f"grants/{grant}/"),
        lambda told: told["state"] not in ("scheduled", "provisioning"),
        within=OPENS_WITHIN,
    )
    shown = opened["state"]
    if shown != "active":
        shown = f"{shown}: {opened['end_note'] or opened['last_error']}"
    expect(f"grant {grant}", expected="active", got=shown)
    return dict(opened)


def take_up(
    holder: Person,
    request: Mapping[str, Any],
    *,
    approved_at: float,
    production: Production,
    query: LiteralString = "SELECT 1",
) -> Access:
    """Wait for an approved access, reveal its password, sign in and ask the first query.

    The session is watched from then on: it says `query` until the target ends it.
    """
    grant = request["grant"]
    opened = wait_until_active(holder, grant)
    credential, session = _sign_in(holder, grant, query)
    usable_at = time.time()
    [(oid,)] = production.ask("SELECT oid FROM pg_roles WHERE rolname = %(n)s", n=opened["account"])
    return Access(
        holder=holder,
        request=request["id"],
        grant=grant,
        account=opened["account"],
        oid=oid,
        approved_at=approved_at,
        usable_at=usable_at,
        expires_at=moment(opened["expires_at"]),
        credential=credential,
        session=session.start(),
    )


def _sign_in(holder: Person, grant: int, query: LiteralString) -> tuple[Credential, Session]:
    """With the password, which is shown this once; the first query has been answered then."""
    shown = holder.post(f"grants/{grant}/reveal/")
    credential = Credential(shown["connection"], shown["password"])
    session = Session(credential, query=query)
    session.db.execute("SELECT 1")
    return credential, session


def moment(text: str) -> float:
    """A time of the API in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()
