"""The verbs of whose Slack account is whose: said by a person, proved with a code, and ended.

An address or a name is no proof: whoever administers a workspace chooses both. The code goes to the
Slack account as a message, and comes back from the signed-in person.
"""

from __future__ import annotations

import re
import secrets as randomness
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils.crypto import constant_time_compare, salted_hmac
from django.views.decorators.debug import sensitive_variables

from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import SlackAccount, SlackProof
from approvals.notify.slack import messages, workspace
from approvals.notify.slack.client import SlackRefused
from approvals.notify.slack.messages import Choice
from approvals.secrets import SecretUnreadable
from approvals.tokens import account_subject
from approvals.transition import actor, verb
from audit import clock, log

if TYPE_CHECKING:
    from approvals.models import SlackWorkspace
    from approvals.people import Person

MEMBER: Final = re.compile(r"[UW][A-Z0-9]{5,18}")
DIGITS: Final = 8
VALID: Final = timedelta(minutes=10)
TRIES: Final = 5
SENT_MOST: Final = 5  # codes an hour: each is a message to somebody who may not have asked
EACH_HOUR: Final = timedelta(hours=1)
SALT: Final = "approvals.notify.slack.accounts"
NOT_SET_UP: Final = "Slack is not set up here. An administrator can do so."


@sensitive_variables()
def send_code(person_id: int, *, by: Person, member_id: str) -> None:
    """Say which Slack account is one's own: a code goes there. Raises NotAllowed, Invalid,
    WrongState."""
    code = _make_code(person_id, by=by, member_id=member_id)
    if (row := workspace.current()) is None:
        raise WrongState(NOT_SET_UP)
    try:
        slack = workspace.connect(row, within=5.0)
        slack.post(slack.open_direct(member_id), messages.note(_letter(by, code)))
    except SlackRefused as refusal:
        workspace.noticed(row, refusal)
        raise Invalid(fields={"member_id": [_undelivered(refusal)]}) from None
    except (LookupError, SecretUnreadable):
        raise WrongState(NOT_SET_UP) from None


@verb("slackaccount.refused", account_subject)
@sensitive_variables()
def _make_code(person_id: int, *, by: Person, member_id: str) -> str:
    _require_own(person_id, by)
    row, now = _workspace(), clock.now()
    if not MEMBER.fullmatch(member_id):
        hint = "It is like U012AB3CD: in Slack, your profile, ⋮, Copy member ID."
        raise Invalid(fields={"member_id": [hint]})
    _require_free(row, person_id, member_id)
    proof, _ = SlackProof.objects.select_for_update().get_or_create(
        person_id=person_id, defaults={"expires_at": now, "counted_from": now}
    )
    if proof.counted_from <= now - EACH_HOUR:
        proof.counted_from, proof.sent = now, 0
    if proof.sent >= SENT_MOST:
        raise Invalid(fields={"member_id": ["Too many codes were sent. Try again in an hour."]})
    code = f"{randomness.randbelow(10**DIGITS):0{DIGITS}}"
    proof.team_id, proof.member_id = row.team_id, member_id
    proof.digest = _digest(person_id, member_id, code)
    proof.expires_at, proof.tries, proof.sent = now + VALID, 0, proof.sent + 1
    proof.save()
    log.record(
        "slackaccount.asked",
        actor=actor(by),
        subject=account_subject(person_id),
        at=now,
        member=member_id,
        team=row.team_id,
    )
    return code


@sensitive_variables()
def prove(person_id: int, *, by: Person, code: str) -> SlackAccount:
    """Connect the Slack account that the code was sent to. Raises NotAllowed, Invalid, WrongState.

    A try is counted before it is weighed, so that a refusal does not take the count back.
    """
    if by.pk == person_id:
        SlackProof.objects.filter(person=person_id).update(tries=F("tries") + 1)
    return _prove(person_id, by=by, code=code)


@verb("slackaccount.refused", account_subject)
@sensitive_variables()
def _prove(person_id: int, *, by: Person, code: str) -> SlackAccount:
    _require_own(person_id, by)
    row = _workspace()
    proof = SlackProof.objects.select_for_update().filter(person=person_id).first()
    now = clock.now()
    if proof is None or proof.team_id != row.team_id or not proof.digest:
        raise WrongState("No code is waiting. Have one sent first.")
    if proof.expires_at <= now or proof.tries > TRIES:
        raise Invalid(fields={"code": ["This code is over. Have another one sent."]})
    typed = "".join(code.split())
    if not constant_time_compare(proof.digest, _digest(person_id, proof.member_id, typed)):
        left = TRIES - proof.tries
        raise Invalid(fields={"code": [f"This is not the code. You can try {left} times more."]})
    account = _connect(row, person_id, proof.member_id, now)
    proof.digest = ""
    proof.save(update_fields=["digest"])
    log.record(
        "slackaccount.connected",
        actor=actor(by),
        subject=account,
        at=now,
        member=account.member_id,
        team=account.team_id,
    )
    return account


def _connect(row: SlackWorkspace, person_id: int, member_id: str, now: datetime) -> SlackAccount:
    values = {"team_id": row.team_id, "member_id": member_id, "channel": "", "connected_at": now}
    try:
        with transaction.atomic():
            account, _ = SlackAccount.objects.update_or_create(person_id=person_id, defaults=values)
    except IntegrityError:
        raise _taken() from None
    return account


@verb("slackaccount.refused", account_subject)
def end(person_id: int, *, by: Person) -> None:
    """Disconnect somebody's Slack account. For themselves and those who look after accounts there.

    Raises NotAllowed, WrongState.
    """
    if by.pk != person_id and not by.has_perm("approvals.delete_slackaccount"):
        raise NotAllowed("Everybody disconnects their own Slack account.", code="not_yours")
    row = SlackAccount.objects.select_for_update().filter(person=person_id).first()
    if row is None:
        raise WrongState("No Slack account is connected.", code="gone")
    log.record("slackaccount.ended", actor=actor(by), subject=row, member=row.member_id)
    row.delete()


@verb("slackaccount.refused", workspace.workspace_subject)
def acting(
    pk: int, *, team_id: str, member_id: str, did: str, packed: str
) -> tuple[Person, Choice]:
    """Whose Slack account this is, who acts over it now, and on what; told in the log.

    What they do is theirs to be allowed or refused, as on the site. Raises NotAllowed, WrongState.
    """
    found = SlackAccount.objects.select_related("person")
    account = found.filter(team_id=team_id, member_id=member_id).first()
    if _workspace().team_id != team_id:
        raise NotAllowed("This is another workspace.", code="slack_elsewhere")
    if account is None:
        raise NotAllowed(
            "Your Slack account is not connected to debugflow. Connect it in your settings there.",
            code="slack_unknown",
        )
    if not account.person.is_active:
        raise NotAllowed("Your account on debugflow is switched off.", code="slack_inactive")
    choice = Choice.unpacked(packed, of=account.person.pk)
    log.record("slackaccount.used", actor=actor(account.person), subject=account, did=did)
    return account.person, choice


def of(person: Person, row: SlackWorkspace) -> SlackAccount | None:
    """Their account in this workspace."""
    return SlackAccount.objects.filter(person=person, team_id=row.team_id).first()


def waiting(person: Person, row: SlackWorkspace) -> SlackProof | None:
    """The code that was sent for them and can still be typed in."""
    proofs = SlackProof.objects.filter(person=person, team_id=row.team_id, tries__lt=TRIES)
    return proofs.filter(expires_at__gt=clock.DbNow()).exclude(digest="").first()


def _workspace() -> SlackWorkspace:
    if (row := workspace.current()) is None:
        raise WrongState(NOT_SET_UP)
    return row


def _require_own(person_id: int, by: Person) -> None:
    if by.pk != person_id or not by.is_active:
        raise NotAllowed("Everybody connects their own Slack account.", code="not_yours")


def _require_free(row: SlackWorkspace, person_id: int, member_id: str) -> None:
    accounts = SlackAccount.objects.filter(team_id=row.team_id)
    if accounts.filter(person=person_id).exists():
        raise WrongState("A Slack account is connected already. Disconnect it first.")
    if accounts.filter(member_id=member_id).exists():
        raise _taken()


def _taken() -> Invalid:
    told = "Somebody else has connected this Slack account. They can disconnect it."
    return Invalid(fields={"member_id": [told]})


@sensitive_variables()
def _letter(by: Person, code: str) -> str:
    return (
        f"{code[:4]} {code[4:]} is the code that connects this Slack account to {by.get_username()}"
        " on debugflow. Type it in there within 10 minutes. If that is not you, do nothing."
    )


def _undelivered(refusal: SlackRefused) -> str:
    if refusal.gone:
        return "Slack knows nobody of this member ID who can be written to."
    return f"The code could not be sent. {refusal} Try again in a minute."


@sensitive_variables()
def _digest(person_id: int, member_id: str, code: str) -> str:
    told = f"{person_id}:{member_id}:{code}"
    return salted_hmac(SALT, told, algorithm="sha256").hexdigest()
