"""The verbs of a grant: what people and the clock may do to it. Nothing here touches a target.

`opening` and `closing` carry out on the target what these verbs write down first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Q

from approvals import abandoning, access, extensions, queue, reductions, secrets
from approvals.errors import Invalid, WrongState
from approvals.models import Decision, Grant, Vote
from approvals.policy import Refusal
from approvals.states import ABANDONED, EndReason, GrantState
from approvals.transition import actor, move_all, verb
from audit import clock, log
from audit.log import SYSTEM, Subject

if TYPE_CHECKING:
    from approvals.models import AccessRequest
    from approvals.people import Person

OPEN_TASK = "approvals.tasks.open_grant"
EXTEND_TASK = "approvals.tasks.extend_grant"
CLOSE_TASK = "approvals.tasks.close_grant"
NOTE_MAX = 300


def grant_subject(pk: int) -> Subject:
    grant = Grant.objects.select_related("level", "target", "beneficiary").filter(pk=pk).first()
    return grant.audit_subject() if grant else Subject("grant", str(pk), f"grant {pk}")


def schedule(
    request: AccessRequest, *, by: Person, now: datetime, votes: Sequence[Vote] = ()
) -> Grant:
    """Create the grant of a request that has just been approved, in the same transaction.

    It is for the least of what the `votes` that count left of it.
    """
    what = reductions.outcome(request, votes)
    opens_at = max(now, request.starts_at or now)
    activation = timedelta(seconds=request.policy_version.activation_ttl)
    grant = Grant.objects.create(
        request=request,
        beneficiary=request.beneficiary,
        target=request.target,
        level=what.level,
        scope=what.scope,
        scope_hash=what.scope_hash,
        duration=what.duration,
        approved_at=now,
        opens_at=opens_at,
        activate_before=opens_at + activation,
        next_try_at=opens_at,
    )
    log.record(
        "grant.scheduled",
        actor=actor(by),
        subject=grant,
        at=now,
        scope_hash=grant.scope_hash,
        opens_at=opens_at,
        **_less(what),
    )
    queue.ring(OPEN_TASK, grant.pk)
    return grant


def _less(what: reductions.Outcome) -> dict[str, Any]:
    """For Events: what is opened, where some approved it with less than was asked."""
    return {"less": reductions.told(what.duration, what.level)} if what.less else {}


def extend(request: AccessRequest, *, by: object, votes: Sequence[Vote] = ()) -> Grant:
    """Commit to a later end of the access that the request prolongs, in the transaction that
    approves it: the intent, before the deed. `votes` are as at `schedule`. Raises WrongState if
    that access does not go on.
    """
    grant = locked(request.extends_id or 0)
    now = clock.now()
    if not is_usable(grant, now):
        raise WrongState("The access that it was to prolong has ended. It stays so.")
    what = reductions.outcome(request, votes)
    longer = timedelta(seconds=what.duration)
    grant.extended_until = request.starts_at and request.starts_at + longer
    grant.next_try_at = now
    grant.extended_count += 1
    grant.save(update_fields=["extended_until", "extended_count", "next_try_at"])
    log.record(
        "grant.extending",
        actor=actor(by),
        subject=grant,
        at=now,
        scope_hash=request.scope_hash,
        request=request.pk,
        before=grant.expires_at,
        until=grant.extended_until,
        number=grant.extended_count,
        **_less(what),
    )
    queue.ring(EXTEND_TASK, grant.pk)
    return grant


def bridge(grant: Grant, *, now: datetime) -> None:
    """Commit to let a (locked) grant go on for its policy's bridge, once: whether it is to go on
    for longer is asked, and nobody has decided."""
    length = timedelta(seconds=grant.request.policy_version.bridge)
    grant.bridged_at, grant.next_try_at = now, now
    grant.extended_until = (grant.expires_at or now) + length
    grant.save(update_fields=["bridged_at", "extended_until", "next_try_at"])
    log.record(
        "grant.bridged",
        actor=SYSTEM,
        subject=grant,
        at=now,
        before=grant.expires_at,
        until=grant.extended_until,
    )
    queue.ring(EXTEND_TASK, grant.pk)


def end_bridge(request: AccessRequest, *, by: object) -> None:
    """Take back what bridged the wait for a decision about `request`, which is not to be approved.

    The access ends as it was to without it: at once, if that moment has passed.
    """
    grant = locked(request.extends_id or 0)
    now, end = clock.now(), request.starts_at
    if end is None or grant.latest_end is None or not is_usable(grant, now):
        return
    if grant.bridged_at is None or grant.latest_end <= end:
        return
    before, grant.expires_at = grant.expires_at, min(grant.expires_at or end, max(now, end))
    grant.lease, grant.lease_until, grant.next_try_at = "", None, None
    grant.save(update_fields=["expires_at", "lease", "lease_until", "next_try_at"])
    log.record(
        "grant.bridge_ended",
        actor=actor(by),
        subject=grant,
        at=now,
        request=request.pk,
        before=before,
        expires_at=grant.expires_at,
    )
    queue.ring(CLOSE_TASK, grant.pk)


@dataclass(frozen=True)
class Credential:
    """What the holder needs to connect. Shown once."""

    connection: dict[str, Any]
    password: str


@verb("reveal.refused", grant_subject)
def reveal(grant_id: int, *, by: Person) -> Credential:
    """Hand the holder the credential, once. Raises NotAllowed, WrongState."""
    grant = locked(grant_id)
    now = clock.now()
    if (refusal := may_reveal(grant, by, now)) is not None:
        raise refusal.error()
    password = unsealed(grant)
    grant.secret, grant.revealed_at = "", now
    grant.save(update_fields=["secret", "revealed_at"])
    log.record("grant.revealed", actor=actor(by), subject=grant, at=now)
    return Credential(dict(grant.connection), password)


@verb("release.refused", grant_subject)
def release(grant_id: int, *, by: Person) -> Grant:
    """Give the access back before its end. Raises NotAllowed, WrongState."""
    grant = locked(grant_id)
    now = clock.now()
    if (refusal := may_release(grant, by)) is not None:
        raise refusal.error()
    finish(grant, EndReason.RELEASED, by=by, now=now)
    queue.ring(CLOSE_TASK, grant.pk)
    return grant


@verb("revoke.refused", grant_subject)
def revoke(grant_id: int, *, by: Person, reason: str) -> Grant:
    """Take the access away, saying why. Raises NotAllowed, WrongState, Invalid."""
    grant = locked(grant_id)
    now = clock.now()
    if (refusal := may_revoke(grant, by)) is not None:
        raise refusal.error()
    _require_reason(reason)
    finish(grant, EndReason.REVOKED, by=by, now=now, note=reason)
    queue.ring(CLOSE_TASK, grant.pk)
    return grant


@verb("try_again.refused", grant_subject)
def try_again(grant_id: int, *, by: Person) -> Grant:
    """Have the next attempt at closing it made now. Raises NotAllowed, WrongState.

    What is due already is left as it is: whoever asks over and over must neither put it off nor
    fill the log.
    """
    grant = locked(grant_id)
    now = clock.now()
    if (refusal := may_try_again(grant, by, now)) is not None:
        raise refusal.error()
    if grant.next_try_at is None or grant.next_try_at > now:
        grant.next_try_at = now
        grant.save(update_fields=["next_try_at"])
        log.record("grant.tried_again", actor=actor(by), subject=grant, at=now)
    queue.ring(CLOSE_TASK, grant.pk)
    return grant


@verb("abandon.refused", grant_subject)
def abandon(grant_id: int, *, by: Person, reason: str) -> Grant:
    """Ask to give up closing it; with the second person who does, it is `abandoned`.

    Raises NotAllowed, WrongState, Invalid. It stays `revoking` and goes on being tried, hourly.
    """
    grant = locked(grant_id)
    now = clock.now()
    if (refusal := abandoning.may_abandon(grant, by, now)) is not None:
        raise refusal.error()
    _require_reason(reason)
    abandoning.ask(grant, by=by, reason=reason, now=now)
    return grant


def _require_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > NOTE_MAX or "\x00" in reason:
        raise Invalid(fields={"reason": [f"Say why, in 1 to {NOTE_MAX} characters."]})


def locked(grant_id: int) -> Grant:
    """The grant, its row locked. Raises WrongState if there is none."""
    try:
        return Grant.objects.locked(grant_id)
    except Grant.DoesNotExist:
        raise WrongState("This grant does not exist.", code="gone") from None


@dataclass(frozen=True)
class Ending:
    """Why a grant ends. `code` is for programs, `note` for people."""

    reason: EndReason
    note: str = ""
    code: str = ""


def finish(
    grant: Grant, reason: EndReason, *, by: object, now: datetime, note: str = "", code: str = ""
) -> None:
    """Commit to the end of a grant whose row the caller has locked: the intent, before the deed.

    One that never began to open ends here and now; any other is `revoking` until the target has
    been read back. Whoever was working on it has lost the lease. The caller rings, if nobody at
    hand goes on with it.
    """
    finish_all([(grant, Ending(reason, note, code))], by=by, now=now)


def finish_all(endings: Sequence[tuple[Grant, Ending]], *, by: object, now: datetime) -> None:
    """`finish` for many, each for its own reason."""
    for grant, why in endings:
        grant.end_reason, grant.end_note, grant.end_code = why.reason, why.note, why.code
        grant.lease, grant.lease_until, grant.next_try_at, grant.attempts = "", None, now, 0
    unbegun = [grant for grant, _ in endings if grant.state == GrantState.SCHEDULED]
    begun = [grant for grant, _ in endings if grant.state != GrantState.SCHEDULED]
    for grant in unbegun:
        grant.ended_at = now
    for grant in begun:
        grant.revoking_at, grant.secret = now, ""
    _end(unbegun, GrantState.ENDED, "ended_at", by=by, now=now)
    _end(begun, GrantState.REVOKING, "attempts", "revoking_at", "secret", by=by, now=now)


def _end(grants: Sequence[Grant], to: GrantState, *changed: str, by: object, now: datetime) -> None:
    why = ("end_reason", "end_note", "end_code", "lease", "lease_until", "next_try_at")
    move_all(
        grants,
        to,
        by=by,
        at=now,
        changed=(*why, *changed),
        told=lambda one: {
            "reason": str(one.end_reason),
            "note": one.end_note,
            "code": one.end_code,
        },
    )


def permitted_actions(grant: Grant, person: Person, now: datetime) -> dict[str, Refusal | None]:
    """For each action on a grant: None if `person` may do it now, else the Refusal."""
    return {
        "reveal": may_reveal(grant, person, now),
        "release": may_release(grant, person),
        "extend": extensions.may_extend(grant, person, now),
        "revoke": may_revoke(grant, person),
        "try_again": may_try_again(grant, person, now),
        "abandon": abandoning.may_abandon(grant, person, now),
    }


def may_reveal(grant: Grant, person: Person, now: datetime) -> Refusal | None:
    if person.pk != grant.beneficiary_id:
        return Refusal("not_yours", "Only its holder is shown the credential.")
    if not is_usable(grant, now):
        return Refusal("wrong_state", f"This access is {shown_state(grant, now)} now.")
    if not grant.secret:
        return Refusal(
            "wrong_state",
            "The password was shown already and is not kept. Release this access and ask again.",
        )
    return None


def may_release(grant: Grant, person: Person) -> Refusal | None:
    if person.pk != grant.beneficiary_id:
        return Refusal("not_yours", "Only its holder can release it. Its target's owners revoke.")
    return _going(grant)


def may_revoke(grant: Grant, person: Person) -> Refusal | None:
    """Owners of the target, whoever approved it or an extension of it, and whoever asked for it for
    somebody else."""
    if _takes_away(grant, person):
        return _going(grant)
    return Refusal(
        "not_yours", "Owners of the target and those who approved this access can revoke it."
    )


def may_try_again(grant: Grant, person: Person, now: datetime) -> Refusal | None:
    """Its holder, whoever may revoke it, and administrators of targets."""
    if grant.state != GrantState.REVOKING:
        label = shown_state(grant, now)
        return Refusal("wrong_state", f"This access is {label}; there is nothing to try again.")
    holds = person.pk == grant.beneficiary_id
    if not (holds or _takes_away(grant, person) or abandoning.looks_after(grant, person)):
        return Refusal(
            "not_yours",
            "Its holder, those who may revoke it and administrators of targets can try again.",
        )
    if grant.lease_until is not None and grant.lease_until > now:
        return Refusal("wrong_state", "It is being tried at this very moment.")
    return None


def _takes_away(grant: Grant, person: Person) -> bool:
    asked = person.pk == grant.request.requester_id != grant.beneficiary_id
    return asked or _approved(grant, person) or _owns(grant, person)


def _approved(grant: Grant, person: Person) -> bool:
    about_it = Q(stage__request=grant.request_id) | Q(stage__request__extends=grant)
    theirs = Q(voter=person) | Q(on_behalf_of=person)
    votes = Vote.objects.counting().filter(about_it, theirs)
    return votes.filter(decision=Decision.APPROVE).exists()


def _owns(grant: Grant, person: Person) -> bool:
    return access.owned_targets(person).filter(pk=grant.target_id).exists()


def is_going(grant: Grant) -> bool:
    """Whether it can still be taken away."""
    return _going(grant) is None


def _going(grant: Grant) -> Refusal | None:
    if grant.state in (GrantState.REVOKING, GrantState.ENDED):
        label = GrantState(grant.state).label.lower()
        return Refusal("wrong_state", f"This access is {label} already.")
    return None


def is_usable(grant: Grant, now: datetime) -> bool:
    """Whether the holder may connect: computed from the clock, however late a sweeper is."""
    return grant.goes_on(now)


def shown_state(grant: Grant, now: datetime) -> str:
    """The word for it on every page: its state, unless that would say too little."""
    if grant.is_abandoned:
        return ABANDONED.lower()
    if grant.state == GrantState.ACTIVE and not is_usable(grant, now):
        return GrantState.REVOKING.label.lower()
    return GrantState(grant.state).label.lower()


def seal(grant: Grant, password: str) -> str:
    return secrets.seal(password, table="grant", key=str(grant.pk), field="secret")


def unsealed(grant: Grant) -> str:
    return secrets.unseal(grant.secret, table="grant", key=str(grant.pk), field="secret")
