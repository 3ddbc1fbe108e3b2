"""The lifecycles as data: which state may follow which, and the word and colour of each.

Everything that says which change of state is legal lives here. Nothing of ours is imported, no
ORM is used; `transition.move` is the only writer. The diagrams in docs/lifecycle.md are printed
from these tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db import models


class RequestState(models.TextChoices):
    PENDING = "pending", "Pending"
    CHANGES_REQUESTED = "changes_requested", "Changes requested"
    APPROVED = "approved", "Approved"
    DENIED = "denied", "Denied"
    CANCELLED = "cancelled", "Cancelled"
    EXPIRED = "expired", "Expired"
    BYPASSED = "bypassed", "Emergency"


class StageState(models.TextChoices):
    WAITING = "waiting", "Waiting"
    OPEN = "open", "Open"
    PASSED = "passed", "Passed"
    DENIED = "denied", "Denied"
    SKIPPED = "skipped", "Skipped"
    CLOSED = "closed", "Closed"


class GrantState(models.TextChoices):
    SCHEDULED = "scheduled", "Scheduled"
    PROVISIONING = "provisioning", "Opening"
    ACTIVE = "active", "Active"
    REVOKING = "revoking", "Closing"
    ENDED = "ended", "Ended"


class EndReason(models.TextChoices):
    EXPIRED = "expired", "Ran its time"
    RELEASED = "released", "Released by its holder"
    REVOKED = "revoked", "Revoked"
    FAILED = "failed", "Failed"
    UNUSED = "unused", "Never opened"


class ProposalState(models.TextChoices):
    """Of a change that needs a second person's consent."""

    PROPOSED = "proposed", "Waits for a second person"
    CARRIED_OUT = "carried_out", "Carried out"
    DENIED = "denied", "Denied"
    WITHDRAWN = "withdrawn", "Withdrawn"
    EXPIRED = "expired", "Expired"
    FAILED = "failed", "Could not be carried out"


class TokenStanding(models.TextChoices):
    """What a token of the API is at some moment. Nothing is stored, so nothing is moved."""

    LIVE = "live", "Works"
    EXPIRED = "expired", "Expired"
    REVOKED = "revoked", "Revoked"
    INACTIVE = "inactive", "Account switched off"


class ReviewOutcome(models.TextChoices):
    JUSTIFIED = "justified", "Justified"
    NOT_JUSTIFIED = "not_justified", "Not justified"
    NEEDS_ACTION = "needs_action", "Needs action"


class ReviewStanding(models.TextChoices):
    """What a review is at some moment: its outcome, or how long it may still take."""

    OPEN = "open", "To be looked back at"
    OVERDUE = "overdue", "Review overdue"
    JUSTIFIED = ReviewOutcome.JUSTIFIED.value, ReviewOutcome.JUSTIFIED.label
    NOT_JUSTIFIED = ReviewOutcome.NOT_JUSTIFIED.value, ReviewOutcome.NOT_JUSTIFIED.label
    NEEDS_ACTION = ReviewOutcome.NEEDS_ACTION.value, ReviewOutcome.NEEDS_ACTION.label


class DeliveryStanding(models.TextChoices):
    """What has become of one message. Read off its times, so nothing is moved."""

    WAITING = "waiting", "Waiting"
    RETRYING = "retrying", "Being tried again"
    SENT = "sent", "Sent"
    WITHDRAWN = "withdrawn", "Not needed any more"
    DEAD = "dead", "Given up"


Followers = dict[models.TextChoices, frozenset[models.TextChoices]]

R, S, G, P = RequestState, StageState, GrantState, ProposalState

# One table per machine: members of two TextChoices with equal values compare equal, so a single
# flat table would silently merge "denied" of a request with "denied" of a stage.
NEXT: Final[dict[type[models.TextChoices], Followers]] = {
    R: {
        R.PENDING: frozenset({R.CHANGES_REQUESTED, R.APPROVED, R.DENIED, R.CANCELLED, R.EXPIRED}),
        R.CHANGES_REQUESTED: frozenset({R.PENDING, R.CANCELLED, R.EXPIRED}),
        R.APPROVED: frozenset(),
        R.DENIED: frozenset(),
        R.CANCELLED: frozenset(),
        R.EXPIRED: frozenset(),
        R.BYPASSED: frozenset(),
    },
    S: {
        S.WAITING: frozenset({S.OPEN, S.SKIPPED, S.CLOSED}),
        S.OPEN: frozenset({S.PASSED, S.DENIED, S.CLOSED}),
        S.PASSED: frozenset(),
        S.DENIED: frozenset(),
        S.SKIPPED: frozenset(),
        S.CLOSED: frozenset(),
    },
    G: {
        G.SCHEDULED: frozenset({G.PROVISIONING, G.ENDED}),
        G.PROVISIONING: frozenset({G.ACTIVE, G.REVOKING}),
        G.ACTIVE: frozenset({G.REVOKING}),
        G.REVOKING: frozenset({G.ENDED}),
        G.ENDED: frozenset(),
    },
    P: {
        P.PROPOSED: frozenset({P.CARRIED_OUT, P.DENIED, P.WITHDRAWN, P.EXPIRED, P.FAILED}),
        P.CARRIED_OUT: frozenset(),
        P.DENIED: frozenset(),
        P.WITHDRAWN: frozenset(),
        P.EXPIRED: frozenset(),
        P.FAILED: frozenset(),
    },
}

# Where an object may begin.
FIRST: Final[dict[type[models.TextChoices], frozenset[models.TextChoices]]] = {
    R: frozenset({R.PENDING, R.BYPASSED}),
    S: frozenset({S.WAITING, S.OPEN, S.SKIPPED}),
    G: frozenset({G.SCHEDULED}),
    P: frozenset({P.PROPOSED}),
}

UNDECIDED: Final = frozenset({R.PENDING, R.CHANGES_REQUESTED})
NOT_ENDED: Final = frozenset(G) - {G.ENDED}


def allowed(now: str, to: models.TextChoices) -> bool:
    """Whether an object in state `now` may be put into `to`, by `to`'s own machine."""
    machine = type(to)
    return to in NEXT[machine][machine(now)]


@dataclass(frozen=True)
class Look:
    """How one state is shown everywhere: colour (a Tabler colour name) and icon (a sprite id)."""

    colour: str
    icon: str


LOOKS: Final[dict[type[models.TextChoices], dict[models.TextChoices, Look]]] = {
    R: {
        R.PENDING: Look("yellow", "hourglass"),
        R.CHANGES_REQUESTED: Look("orange", "pencil"),
        R.APPROVED: Look("green", "check"),
        R.DENIED: Look("secondary", "x"),
        R.CANCELLED: Look("secondary", "ban"),
        R.EXPIRED: Look("secondary", "clock-off"),
        R.BYPASSED: Look("red", "urgent"),
    },
    S: {
        S.WAITING: Look("secondary", "dots"),
        S.OPEN: Look("yellow", "hourglass"),
        S.PASSED: Look("green", "check"),
        S.DENIED: Look("secondary", "x"),
        S.SKIPPED: Look("secondary", "arrow-forward"),
        S.CLOSED: Look("secondary", "ban"),
    },
    G: {
        G.SCHEDULED: Look("blue", "calendar"),
        G.PROVISIONING: Look("blue", "loader"),
        G.ACTIVE: Look("green", "plug-connected"),
        G.REVOKING: Look("orange", "scissors"),
        G.ENDED: Look("secondary", "circle-off"),
    },
    P: {
        P.PROPOSED: Look("yellow", "hourglass"),
        P.CARRIED_OUT: Look("green", "check"),
        P.DENIED: Look("secondary", "x"),
        P.WITHDRAWN: Look("secondary", "ban"),
        P.EXPIRED: Look("secondary", "clock-off"),
        P.FAILED: Look("orange", "alert-triangle"),
    },
    TokenStanding: {
        TokenStanding.LIVE: Look("green", "check"),
        TokenStanding.EXPIRED: Look("secondary", "clock-off"),
        TokenStanding.REVOKED: Look("secondary", "ban"),
        TokenStanding.INACTIVE: Look("secondary", "circle-off"),
    },
    ReviewStanding: {
        ReviewStanding.OPEN: Look("yellow", "hourglass"),
        ReviewStanding.OVERDUE: Look("red", "alert-triangle"),
        ReviewStanding.JUSTIFIED: Look("green", "check"),
        ReviewStanding.NOT_JUSTIFIED: Look("red", "x"),
        ReviewStanding.NEEDS_ACTION: Look("orange", "pencil"),
    },
}


# How a grant that two people have given up is shown; its state is `revoking` still.
ABANDONED: Final = "Abandoned, unsafe"
ABANDONED_LOOK: Final = Look("red", "alert-triangle")


def look(machine: type[models.TextChoices], state: str) -> Look:
    return LOOKS[machine][machine(state)]
