"""Four eyes on what widens production access: a change is proposed, and somebody else agrees.

A verb that may widen runs inside `watched`. If `second_look` finds more afterwards than before, it
is rolled back, and written down as a proposal instead. Agreeing runs the same verb with the same
arguments again, and it stands only if it does exactly what was proposed. What narrows is never
held up. Which changes there are is registered by the verbs' own modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import rfc8785
import structlog
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import NON_FIELD_ERRORS
from django.db import models, transaction

from approvals import access, second_look
from approvals.errors import DebugflowError, Invalid, NotAllowed, Proposed, WrongState
from approvals.models import FourEyes, Proposal
from approvals.policy import SELF_APPROVAL, Refusal
from approvals.second_look import Gain, Look
from approvals.states import ProposalState
from approvals.transition import actor, move, verb
from audit import clock, log
from audit.log import SYSTEM, Actor, Subject

if TYPE_CHECKING:
    from approvals.people import Person

logger = structlog.get_logger(__name__)

LASTS: Final = timedelta(days=7)
"""Longer than a week-end or a short leave; what it was to be done to is rarely the same later."""
LEAVE: Final = timedelta(hours=1)
"""How long what an agreed proposal allows once may be done by its proposer."""
SUPERUSER: Final = ""  # in place of a permission
ADMINS_LEAST: Final = 2
NOTE_MAX: Final = 500
SUMMARY_MAX: Final = 300  # of names that may each take half of it
MOST: Final = 100  # that one look ends
LEAVES: Final = {"account.password", "slackworkspace.secrets"}
"""Changes that allow something instead of doing it."""
CHANGED: Final = (
    "What it was to change has changed since it was proposed, or it would do something else by "
    "now. Look at it, then propose it anew."
)

Data = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """A verb that can be proposed: the permission of whoever may do it, and how it is done.

    `carry_out` gets the arguments as they were proposed, and raises what the verb raises. `adding`
    is the permission where the arguments name nothing that is there already, if it is another;
    `proposing` what is enough to propose it.
    """

    name: str
    permission: str
    carry_out: Callable[[Data, Person], object]
    adding: str = ""
    proposing: str = ""

    def needs(self, arguments: Data) -> str:
        return self.adding if self.adding and arguments["id"] is None else self.permission


_changes: dict[str, Change] = {}


def register(change: Change) -> None:
    """Make a change known. Raises ValueError for a name that is taken."""
    if change.name in _changes:
        raise ValueError(f"the change {change.name!r} is registered twice")
    _changes[change.name] = change


def registered() -> Mapping[str, Change]:
    return _changes


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A change about to be made. `arguments` are read after it was made."""

    change: str
    obj: models.Model
    summary: str
    arguments: Callable[[], Data]
    subject: Callable[[], Subject]
    also: tuple[Gain, ...] = ()  # what it widens besides, which cannot be read off the object
    # What else comes of it, in words; read after it was made, and nothing that widens.
    besides: Callable[[], Mapping[str, str]] = dict


class NeedsTwo(Exception):
    """What was done would widen access, so it is to be rolled back and proposed."""

    def __init__(self, wanted: Wanted, before: Look, after: Look, found: Sequence[Gain]) -> None:
        self.wanted, self.before, self.found = wanted, before, found
        self.arguments = wanted.arguments()
        self.differences = _differences(before.told, {**after.told, **wanted.besides()})
        super().__init__(wanted.summary)

    @property
    def digest(self) -> str:
        return _digest(self.wanted.change, self.arguments, self.before, self.found)


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[list[str]]:
    names = [*after, *(name for name in before if name not in after)]
    rows = [[name, before.get(name, ""), after.get(name, "")] for name in names]
    return [row for row in rows if row[1] != row[2]]


def _digest(change: str, arguments: Data, before: Look, found: Sequence[Gain]) -> str:
    """Of what is done, to what, and what comes of it."""
    told: Any = {
        "change": change,
        "arguments": arguments,
        "before": before.values,
        "effects": [gain.text for gain in found],
        "people": [sorted(gain.people) for gain in found],
    }
    return hashlib.sha256(rfc8785.dumps(told)).hexdigest()


@dataclass
class _Agreement:
    proposal_id: int
    proposer_id: int
    by: Person
    digest: str
    done: bool = False


_agreement: ContextVar[_Agreement | None] = ContextVar("agreement", default=None)
_console: ContextVar[bool] = ContextVar("console", default=False)


def author(by: Person) -> int:
    """Whose change it is that is under way: whoever proposed it, or does it without a proposal."""
    agreed = _agreement.get()
    return agreed.proposer_id if agreed else by.pk


def behind(by: Person) -> frozenset[int]:
    """Everybody who makes the change under way: who does it, and who proposed it."""
    return frozenset({by.pk, author(by)})


@contextmanager
def at_the_console() -> Iterator[None]:
    """Whoever has the server can change anything in its database: nobody is asked, and the log has
    it."""
    token = _console.set(True)
    try:
        yield
    finally:
        _console.reset(token)


@contextmanager
def watched(wanted: Wanted, *, by: Person) -> Iterator[None]:
    """In a verb's transaction, around what it does: raises NeedsTwo where that widens.

    Where somebody agrees to it, the proposal is carried out with it or neither is; then raises
    WrongState where it is not what was proposed, or the proposal has come to its end.
    """
    agreed = _agreement.get()
    if agreed is None and not settings.FOUR_EYES:
        yield
        return
    # Its row before the proposal's, as in proposing: else each could wait for the other.
    holds = _holds(clock.now())
    proposal = _still_to_decide(agreed) if agreed else None
    before = second_look.look(wanted.obj)
    yield
    after = second_look.look(wanted.obj)
    found = [*second_look.gains(before, after), *wanted.also]
    if proposal is not None and agreed is not None:
        if proposal.digest != _digest(wanted.change, wanted.arguments(), before, found):
            raise WrongState(CHANGED, code="changed_since")
        _carried_out(proposal, by=agreed.by)
        agreed.done = True
    elif found and (alone := _why_alone(holds)):
        effects = [gain.text for gain in found]
        log.record(
            "four_eyes.passed_over",
            actor=actor(by),
            subject=wanted.subject(),
            because=alone,
            effects=effects,
        )
    elif found:
        raise NeedsTwo(wanted, before, after, found)


def _why_alone(holds: bool) -> str:
    if _console.get():
        return "console"
    return "" if holds else "nobody_else"


def _holds(now: datetime) -> bool:
    """Whether two are needed: since there was a second superuser, and for ever.

    Locks the row, so that of two changes each knows what the other one did.
    """
    FourEyes.objects.get_or_create(pk=1)
    row = FourEyes.objects.select_for_update().get(pk=1)
    if row.since is None and superusers().count() >= ADMINS_LEAST:
        row.since = now
        row.save(update_fields=["since"])
        subject = Subject("four_eyes", "1", "four eyes", "four_eyes:1")
        log.record("four_eyes.in_force", actor=SYSTEM, subject=subject, at=now)
    return row.since is not None


def superusers() -> models.QuerySet[Person]:
    """Who can agree to everything that is not about them."""
    people = get_user_model()._default_manager
    found: models.QuerySet[Person] = people.filter(
        is_active=True, is_superuser=True, service__isnull=True
    )
    return found


def in_force() -> bool:
    """Whether a second person is needed now. Changes nothing."""
    return standing() in (Standing.STUCK, Standing.HOLDS)


@contextmanager
def proposing(*, by: Person) -> Iterator[None]:
    """Around a verb's transaction: what it rolled back since it takes two is written down, once.

    Raises Proposed then.
    """
    try:
        yield
    except NeedsTwo as widens:
        with transaction.atomic():
            proposal = _propose(widens, by=by)
        raise Proposed(proposal.pk, proposal.summary) from None


def _propose(error: NeedsTwo, *, by: Person) -> Proposal:
    now = clock.now()
    _holds(now)
    same = Proposal.objects.filter(state=ProposalState.PROPOSED, digest=error.digest)
    if (there := same.select_for_update().first()) is not None:
        if now < there.expires_at:
            return there
        _end(there, ProposalState.EXPIRED, by=SYSTEM, now=now, note="")
    people = sorted({person for gain in error.found for person in gain.people})
    proposal = Proposal.objects.create(
        change=error.wanted.change,
        arguments=error.arguments,
        summary=error.wanted.summary[:SUMMARY_MAX],
        effects=[gain.text for gain in error.found],
        differences=error.differences,
        beneficiaries=people,
        digest=error.digest,
        proposer=by,
        proposed_at=now,
        expires_at=now + LASTS,
    )
    log.record(
        "proposal.proposed",
        actor=actor(by),
        subject=proposal,
        at=now,
        change=proposal.change,
        effects=proposal.effects,
        differences=proposal.differences,
        digest=proposal.digest,
    )
    return proposal


def proposal_subject(pk: int) -> Subject:
    found = Proposal.objects.filter(pk=pk).first()
    return found.audit_subject() if found else Subject("proposal", str(pk), f"proposal {pk}")


def may_do(change: str, person: Person) -> bool:
    """Whether this person may make such changes themselves, and look at those of others."""
    return _holds_it(_changes[change].permission, person)


def _may_make(proposal: Proposal, person: Person) -> bool:
    """Whether this person may make this change themselves."""
    return _holds_it(_permission(proposal), person)


def _may_propose(proposal: Proposal, person: Person) -> bool:
    change = _changes[proposal.change]
    return _holds_it(change.proposing or _permission(proposal), person)


def _permission(proposal: Proposal) -> str:
    change = _changes.get(proposal.change)
    return change.needs(proposal.arguments) if change else SUPERUSER


def _holds_it(permission: str, person: Person) -> bool:
    if not person.is_active:
        return False
    if person.is_superuser:
        return True
    return permission != SUPERUSER and person.is_staff and person.has_perm(permission)


def refusal(proposal: Proposal, person: Person, now: datetime) -> Refusal | None:
    """Why this person may not agree to it, or deny it, now; None if they may."""
    if proposal.state != ProposalState.PROPOSED:
        label = ProposalState(proposal.state).label.lower()
        return Refusal("wrong_state", f"It came to its end already: {label}.")
    if now >= proposal.expires_at:
        return Refusal("wrong_state", "It has expired. Propose it anew.")
    if not _may_make(proposal, person):
        return Refusal("not_admin", "Whoever agrees must be allowed to make the change themselves.")
    if person.pk == proposal.proposer_id:
        return Refusal(SELF_APPROVAL.code, "Somebody else has to agree to what you proposed.")
    if person.pk in proposal.beneficiaries:
        return Refusal(SELF_APPROVAL.code, "It gives you more, so somebody else has to agree.")
    return None


def may_agree(proposal: Proposal, person: Person, now: datetime) -> bool:
    return refusal(proposal, person, now) is None


def can_agree(proposal: Proposal, now: datetime) -> list[Person]:
    """Everybody who may agree to it now, by name."""
    permission = _permission(proposal)
    people = access.at_the_desk_with(permission) if permission else superusers()
    found = people.filter(service__isnull=True).order_by("username")
    return [person for person in found if may_agree(proposal, person, now)]


def waiting() -> models.QuerySet[Proposal]:
    undecided = Proposal.objects.filter(state=ProposalState.PROPOSED, expires_at__gt=clock.DbNow())
    return undecided.select_related("proposer").order_by("expires_at")


def waiting_for(person: Person, now: datetime) -> list[Proposal]:
    """What this person may agree to or deny, first what ends first."""
    if not (person.is_staff or person.is_superuser):
        return []
    return [proposal for proposal in waiting() if may_agree(proposal, person, now)]


def visible_to(person: Person) -> models.QuerySet[Proposal]:
    """One's own, and those of changes that one may make oneself; all to who may view proposals."""
    rows = Proposal.objects.select_related("proposer", "decided_by")
    if person.is_staff and person.has_perm("approvals.view_proposal"):
        return rows
    names = [name for name in _changes if may_do(name, person)]
    return rows.filter(models.Q(proposer=person) | models.Q(change__in=names))


def agree(proposal_id: int, *, by: Person, digest: str) -> Proposal:
    """Carry it out: the change and the proposal's end in one transaction.

    `digest` is what the person saw. Raises NotAllowed; WrongState; Invalid; and what the verb
    raises. What cannot be done any more ends the proposal as failed, with the reason.
    """
    try:
        found = _decidable(proposal_id, by, digest)
    except (NotAllowed, WrongState) as error:
        _tell_refused(proposal_id, by, error)
        raise
    change = _changes.get(found.change)
    if change is None:
        return _fail(found.pk, by=by, why="Nobody knows how to make this change any more.")
    agreed = _Agreement(proposal_id, found.proposer_id, by, digest)
    token = _agreement.set(agreed)
    try:
        with log.acting_for(Actor.of(found.proposer)):
            change.carry_out(found.arguments, by)
        if not agreed.done:
            raise RuntimeError(f"{found.change} does not run inside `watched`")
    except (Invalid, WrongState) as error:
        _fail(proposal_id, by=by, why=told(error))
        raise
    finally:
        _agreement.reset(token)
    return Proposal.objects.get(pk=proposal_id)


def _tell_refused(pk: int, by: Person, error: NotAllowed | WrongState) -> None:
    log.record_refusal(
        "agree.refused", actor=actor(by), subject=proposal_subject(pk), code=error.code
    )


def _decidable(pk: int, by: Person, digest: str, *, lock: bool = False) -> Proposal:
    """It, if this person may decide it now. Raises NotAllowed, WrongState."""
    rows = Proposal.objects.select_for_update(of=("self",)) if lock else Proposal.objects.all()
    proposal = rows.select_related("proposer").filter(pk=pk).first()
    if proposal is None:
        raise WrongState(code="gone")
    person = get_user_model()._default_manager.get(pk=by.pk)  # as they are now
    if (no := refusal(proposal, person, clock.now())) is not None:
        raise no.error()
    if digest != proposal.digest:
        raise WrongState("This is not what you looked at. Look again.", code="changed_since")
    return proposal


def _still_to_decide(agreed: _Agreement) -> Proposal:
    """The proposal under its lock, with whoever proposed it still allowed to."""
    proposal = _decidable(agreed.proposal_id, agreed.by, agreed.digest, lock=True)
    if not _may_propose(proposal, proposal.proposer):
        raise WrongState(
            f"{proposal.proposer} may not propose this any more.", code="changed_since"
        )
    return proposal


def _carried_out(proposal: Proposal, *, by: Person) -> None:
    proposal.decided_by, proposal.decided_at = by, clock.now()
    move(
        proposal,
        ProposalState.CARRIED_OUT,
        by=by,
        changed=("decided_by", "decided_at"),
        proposer=proposal.proposer.get_username(),
        effects=proposal.effects,
        differences=proposal.differences,
        digest=proposal.digest,
    )


@transaction.atomic
def _fail(pk: int, *, by: Person, why: str) -> Proposal:
    """End it, unless it has come to its end otherwise."""
    proposal = _locked(pk)
    if proposal.state == ProposalState.PROPOSED:
        _end(proposal, ProposalState.FAILED, by=by, now=clock.now(), note=why[:NOTE_MAX])
    return proposal


def _locked(pk: int) -> Proposal:
    found = Proposal.objects.select_for_update(of=("self",)).select_related("proposer")
    proposal = found.filter(pk=pk).first()
    if proposal is None:
        raise WrongState(code="gone")
    return proposal


def _end(proposal: Proposal, to: ProposalState, *, by: Any, now: datetime, note: str) -> None:
    proposal.decided_at, proposal.note = now, note
    more = {"note": note} if note else {}
    move(
        proposal,
        to,
        by=by,
        changed=("decided_by", "decided_at", "note"),
        proposer=proposal.proposer.get_username(),
        **more,
    )


@verb("agree.refused", proposal_subject)
def deny(proposal_id: int, *, by: Person, digest: str, note: str) -> Proposal:
    """End it without doing anything. Raises NotAllowed, WrongState; Invalid without a reason."""
    proposal = _decidable(proposal_id, by, digest, lock=True)
    if not note.strip():
        raise Invalid(fields={"note": ["Say why, so that it can be done better."]})
    proposal.decided_by = by
    _end(proposal, ProposalState.DENIED, by=by, now=clock.now(), note=note.strip()[:NOTE_MAX])
    return proposal


@verb("agree.refused", proposal_subject)
def withdraw(proposal_id: int, *, by: Person) -> Proposal:
    """Take back what one proposed oneself. Raises NotAllowed, WrongState."""
    proposal = _locked(proposal_id)
    if proposal.proposer_id != by.pk:
        raise NotAllowed("Whoever proposed it can take it back.", code="not_yours")
    if proposal.state != ProposalState.PROPOSED:
        raise WrongState
    _end(proposal, ProposalState.WITHDRAWN, by=by, now=clock.now(), note="")
    return proposal


def expire_due(most: int = MOST) -> int:
    """End up to `most` that nobody decided in time; returns how many."""
    late = Proposal.objects.filter(
        state=ProposalState.PROPOSED, expires_at__lte=clock.DbNow()
    ).order_by("expires_at")
    return sum(_expire(pk) for pk in list(late.values_list("pk", flat=True)[:most]))


@transaction.atomic
def _expire(pk: int) -> bool:
    proposal, now = _locked(pk), clock.now()
    if proposal.state != ProposalState.PROPOSED or now < proposal.expires_at:
        return False
    _end(proposal, ProposalState.EXPIRED, by=SYSTEM, now=now, note="")
    return True


def leaves(change: str, arguments: Data, by: Person) -> models.QuerySet[Proposal]:
    """Agreed proposals of this person that allow them to do this once, until now unused."""
    return Proposal.objects.filter(
        change=change,
        arguments=arguments,
        proposer=by,
        state=ProposalState.CARRIED_OUT,
        used_at__isnull=True,
        decided_at__gt=clock.DbNow() - LEAVE,
    )


def is_leave(proposal: Proposal, person: Person, now: datetime) -> bool:
    """Whether this one lets this person do something once, now."""
    at = proposal.decided_at
    usable = proposal.used_at is None and at is not None and now < at + LEAVE
    return (
        usable
        and leaves(proposal.change, proposal.arguments, person)
        .filter(pk=proposal.pk, change__in=LEAVES)
        .exists()
    )


def use_leave(change: str, arguments: Data, by: Person) -> bool:
    """Use one up, in the caller's transaction; whether there was one."""
    found = leaves(change, arguments, by).select_for_update().first()
    if found is None:
        return False
    found.used_at = clock.now()
    found.save(update_fields=["used_at"])
    return True


class Standing(StrEnum):
    """How things are with four eyes, for pages and checks."""

    OFF = "off"
    ALONE = "alone"  # there never was a second superuser: whatever widens is done at once
    STUCK = "stuck"  # there was, and is none now: nobody could agree
    HOLDS = "holds"


def standing() -> Standing:
    """Changes nothing."""
    if not settings.FOUR_EYES:
        return Standing.OFF
    if superusers().count() >= ADMINS_LEAST:
        return Standing.HOLDS
    began = FourEyes.objects.filter(since__isnull=False).exists()
    return Standing.STUCK if began else Standing.ALONE


def names(people: Iterable[int]) -> list[str]:
    found = get_user_model()._default_manager.filter(pk__in=list(people)).order_by("username")
    return [str(person) for person in found]


def told(error: DebugflowError) -> str:
    """A refusal in one line, with what it says of each field."""
    fields = error.fields if isinstance(error, Invalid) else {}
    lines = [
        " ".join(problems) if name == NON_FIELD_ERRORS else f"{name}: {' '.join(problems)}"
        for name, problems in fields.items()
    ]
    return " ".join(lines) if lines else error.message
