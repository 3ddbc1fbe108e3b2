"""Sending a request back, and changing what it asks for while it is undecided.

Its clocks run on meanwhile. What changes is a new scope: votes on the one before are void, and the
chain begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from approvals import policy, rounds, wishes, workflow
from approvals.errors import Invalid, WrongState
from approvals.states import RequestState
from approvals.transition import actor, move, verb
from audit import log

if TYPE_CHECKING:
    from approvals.models import AccessRequest
    from approvals.people import Person

EDITABLE: Final = ("duration", "reason", "ticket", "starts_at")
"""What may be changed. Whoever wants another level asks anew: others may have to decide that."""


@verb("send_back.refused", rounds.request_subject)
def send_back(request_id: int, *, by: Person, scope_hash: str, comment: str) -> AccessRequest:
    """Ask for changes, saying which: nobody can vote until it comes back.

    Whoever may deny it may. Raises WrongState, NotAllowed with a reason code, Invalid.
    """
    request = rounds.locked_request(request_id)
    now = request.locked_at
    _require_same(request, scope_hash)
    workflow.require_comment(comment, why="Say what should be different.")
    chain_ = policy.load_chain(request, now=now)
    if (refusal := policy.may_send_back(request, chain_, by)) is not None:
        raise refusal.error()
    move(
        request,
        RequestState.CHANGES_REQUESTED,
        by=by,
        at=now,
        note=comment.strip(),
        scope_hash=request.scope_hash,
        policy_version=str(request.policy_version),
    )
    return request


@verb("edit.refused", rounds.request_subject)
def edit(request_id: int, *, by: Person, wish: wishes.Wish, scope_hash: str) -> AccessRequest:
    """Ask for something else of the same level, under the same version of its policy.

    One that was sent back goes to those who decide again, changed or not; votes on what did not
    change stay. Raises WrongState, NotAllowed, Invalid.
    """
    request = rounds.locked_request(request_id)
    now = request.locked_at
    _require_same(request, scope_hash)
    chain_ = policy.load_chain(request, now=now)
    if (refusal := policy.may_edit(request, chain_, by)) is not None:
        raise refusal.error()
    changed = [name for name in EDITABLE if getattr(request, name) != getattr(wish, name)]
    _require_sensible(request, wish, changed, now)
    if request.state == RequestState.CHANGES_REQUESTED:
        move(request, RequestState.PENDING, by=by, at=now)
    elif not changed:
        raise Invalid("You have changed nothing.", code="unchanged")
    if changed:
        _change(request, wish, changed, by=by, now=now)
    return request


def _require_same(request: AccessRequest, scope_hash: str) -> None:
    if scope_hash != request.scope_hash:
        raise WrongState(
            "What is asked for has changed since you looked at it. Read it again.",
            code="scope_changed",
        )


def _require_sensible(
    request: AccessRequest, wish: wishes.Wish, changed: list[str], now: datetime
) -> None:
    version = request.policy_version
    limit, whose = wishes.limit_of(request.level, version)
    problem = wishes.wrong_wish(wish, version, limit, whose, now)
    if problem is None:
        return
    # A start that has passed while people decided is theirs to move, not to be stopped by.
    fields = {
        name: said
        for name, said in problem.fields.items()
        if name != "starts_at" or name in changed
    }
    if fields:
        raise Invalid(problem.message, fields=fields)


def _change(
    request: AccessRequest, wish: wishes.Wish, changed: list[str], *, by: Person, now: datetime
) -> None:
    before = {name: getattr(request, name) for name in changed}
    for name in changed:
        setattr(request, name, getattr(wish, name))
    request.save(update_fields=changed)
    log.record(
        "accessrequest.edited",
        actor=actor(by),
        subject=request,
        at=now,
        before=before,
        after={name: getattr(request, name) for name in changed},
    )
    rounds.rescope(request, by=by, now=now)


def last_edit(request: AccessRequest) -> Mapping[str, Any] | None:
    """What was changed last: `by`, `at`, and by field what it was and is. None if nothing was."""
    thread = log.timeline(request.audit_subject().thread)
    event = thread.filter(action="accessrequest.edited").last()
    if event is None:
        return None
    before, after = event.data["before"], event.data["after"]
    fields = [(name, before[name], after[name]) for name in EDITABLE if name in after]
    return {"by": event.actor_name, "at": event.at, "fields": fields}
