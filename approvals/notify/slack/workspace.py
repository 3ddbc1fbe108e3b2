"""The verbs of the workspace: which it is, what debugflow shows there, and whether that works.

The token and the secret are given and never shown again. Which workspace a token is of Slack says,
before the verb: no transaction waits for Slack.

Whoever knows the secret, and reads what the app wrote, presses anybody's buttons. So a new token
or secret, and switching Slack on, takes two. As no secret waits, what is agreed to is leave for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog
from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from approvals import proposals, secrets
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import Delivery, SlackAccount, SlackWorkspace
from approvals.notify.slack import messages
from approvals.notify.slack.client import Identity, Slack, SlackRefused
from approvals.proposals import Wanted
from approvals.second_look import Gain
from approvals.secrets import SecretUnreadable
from approvals.transition import actor, verb
from audit import clock, log
from audit.log import SYSTEM, Subject

if TYPE_CHECKING:
    from approvals.people import Person

logger = structlog.get_logger(__name__)

CHANNEL: Final = "slack"
ONE: Final = 1  # the id of the only workspace
SET_UP: Final = "slackworkspace.secrets"  # the name of the change that takes two
WORTH: Final = (
    "Whoever sets this up can decide as everybody whose Slack account is connected, about what is "
    "of low or medium risk."
)
BOT_TOKEN: Final = re.compile(r"xoxb-[0-9A-Za-z-]{10,250}")
SIGNING_SECRET: Final = re.compile(r"[0-9a-f]{32,64}")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the workspace is to be. A secret that is empty stays as it is."""

    bot_token: str = field(default="", repr=False)
    signing_secret: str = field(default="", repr=False)
    enabled: bool = True


def workspace_subject(pk: int) -> Subject:
    row = SlackWorkspace.objects.filter(pk=pk).first()
    return row.audit_subject() if row else Subject("slackworkspace", str(pk), "Slack")


@sensitive_variables()
def identify(wish: Wish, *, by: Person) -> Identity | None:
    """Whom the token belongs to, as Slack says; None without one, and for whoever may not set it
    up, whom the verb refuses. Raises Invalid."""
    may = any(by.has_perm(f"approvals.{what}_slackworkspace") for what in ("add", "change"))
    if not wish.bot_token or not may:
        return None
    if not BOT_TOKEN.fullmatch(wish.bot_token):
        raise Invalid(fields={"bot_token": ["A bot's token begins with xoxb-."]})
    try:
        return Slack(wish.bot_token).whoami()
    except SlackRefused as refusal:
        raise Invalid(fields={"bot_token": [f"It does not work. {refusal}"]}) from None


@sensitive_variables()
def save(pk: int, *, by: Person, wish: Wish, identity: Identity | None) -> SlackWorkspace:
    """Set the workspace up, or change it. Raises NotAllowed, Invalid; Proposed where it takes a
    second person, who has not agreed yet: then nothing of it is kept.

    `identity` is what `identify` found for the token. Another workspace has other people: nobody is
    connected there until they prove it.
    """
    with proposals.proposing(by=by):
        return _save(pk, by=by, wish=wish, identity=identity)


@verb("slackworkspace.refused", workspace_subject)
@sensitive_variables()
def _save(pk: int, *, by: Person, wish: Wish, identity: Identity | None) -> SlackWorkspace:
    row = SlackWorkspace.objects.select_for_update().filter(pk=ONE).first()
    _authorize(by, "change" if row else "add")
    _require_sense(row, wish)
    switched_on = wish.enabled and (row is None or not row.enabled)
    if switched_on or identity is not None or wish.signing_secret:
        _require_two(row, by=by)
    made, row = row is None, row or SlackWorkspace(pk=ONE)
    given = []
    if identity is not None:
        _move(row, identity)
        row.secrets, row.last_error = {**row.secrets, **_seal("bot_token", wish.bot_token)}, ""
        given.append("bot_token")
    if wish.signing_secret:
        row.secrets = {**row.secrets, **_seal("signing_secret", wish.signing_secret)}
        given.append("signing_secret")
    row.enabled = wish.enabled
    row.save()
    _wake() if row.enabled else _withdraw()
    log.record(
        "slackworkspace.created" if made else "slackworkspace.changed",
        actor=actor(by),
        subject=row,
        team=row.team_id,
        enabled=row.enabled,
        given=given,
    )
    return row


def _require_two(row: SlackWorkspace | None, *, by: Person) -> None:
    """Use up the leave for it. Raises NeedsTwo where there has to be one and is none."""
    if not proposals.use_leave(SET_UP, _leave(row), by):
        with proposals.watched(_wanted(row), by=by):
            pass


def _leave(row: SlackWorkspace | None) -> dict[str, Any]:
    return {"id": row.pk if row else None}


def _wanted(row: SlackWorkspace | None) -> Wanted:
    """Leave to set Slack up as one likes, once, for whoever proposes it."""
    what = f"Give Slack ({row}) a new token or secret, or switch it on" if row else "Set Slack up"
    return Wanted(
        change=SET_UP,
        obj=row or SlackWorkspace(pk=ONE),
        summary=what,
        arguments=lambda: _leave(row),
        subject=lambda: workspace_subject(ONE),
        also=(Gain(WORTH),),
    )


def allow(arguments: dict[str, Any], by: Person) -> None:
    """Agree to what was proposed: what comes of it is the proposal itself, see `_require_two`."""
    row = SlackWorkspace.objects.filter(pk=ONE).first()
    with transaction.atomic(), proposals.watched(_wanted(row), by=by):
        pass


def takes_two(by: Person) -> bool:
    """Whether a token, a secret or switching on is to be agreed to first, and is not yet."""
    row = SlackWorkspace.objects.filter(pk=ONE).first()
    return proposals.in_force() and not proposals.leaves(SET_UP, _leave(row), by).exists()


@verb("slackworkspace.refused", workspace_subject)
def delete(pk: int, *, by: Person) -> None:
    """Forget the workspace with its secrets, not who is who. Raises NotAllowed, WrongState."""
    _authorize(by, "delete")
    row = _locked()
    log.record("slackworkspace.deleted", actor=actor(by), subject=row, team=row.team_id)
    _withdraw()
    row.delete()


@verb("slackworkspace.refused", workspace_subject)
def fell_ill(pk: int, *, why: str, by: object = SYSTEM) -> None:
    """Slack does not take the token any more. Told once, however often it is noticed."""
    row = _locked()
    if row.last_error:
        return
    row.last_error = why
    row.save(update_fields=["last_error"])
    logger.warning("Slack does not take the token", team=row.team_id, why=why)
    log.record("slackworkspace.fell_ill", actor=actor(by), subject=row, because=why)


@verb("slackworkspace.refused", workspace_subject)
def recovered(pk: int, *, by: object = SYSTEM) -> None:
    """It takes it again."""
    row = _locked()
    if not row.last_error:
        return
    row.last_error = ""
    row.save(update_fields=["last_error"])
    log.record("slackworkspace.recovered", actor=actor(by), subject=row)


def current() -> SlackWorkspace | None:
    """The workspace, if it is switched on."""
    return SlackWorkspace.objects.filter(enabled=True).first()


@sensitive_variables()
def unsealed(row: SlackWorkspace, name: str) -> str:
    """One of its secrets in clear. Raises LookupError without one, and SecretUnreadable."""
    return secrets.unseal(row.secrets[name], table="slackworkspace", key=str(row.pk), field=name)


@sensitive_variables()
def connect(row: SlackWorkspace, *, within: float) -> Slack:
    """Slack, called as this workspace's bot. Raises LookupError, SecretUnreadable."""
    return Slack(unsealed(row, "bot_token"), within=within)


def held(row: SlackWorkspace) -> float:
    """For how many seconds Slack wants to be left alone yet."""
    if row.held_until is None:
        return 0.0
    return max(0.0, (row.held_until - clock.now()).total_seconds())


def noticed(row: SlackWorkspace, refusal: SlackRefused | None) -> None:
    """Write down that the token is of no use, or is of use again, unless that is known; and how
    long Slack wants to be left alone."""
    if refusal is not None and refusal.wait:
        until = clock.DbNow() + timedelta(seconds=refusal.wait)
        SlackWorkspace.objects.filter(pk=row.pk).update(held_until=until)
    if (refusal is None or not refusal.ill) and not row.last_error:
        return
    try:
        if refusal is None:
            recovered(row.pk)
        elif refusal.ill:
            fell_ill(row.pk, why=str(refusal))
    except WrongState:
        pass  # Somebody has deleted it meanwhile.


def examine(row: SlackWorkspace, by: Person, greeting: str) -> list[tuple[bool, str]]:
    """What works, in words: the token, the secret, and a message to whoever asks."""
    try:
        slack = connect(row, within=5.0)
        identity = slack.whoami()
    except (LookupError, SecretUnreadable):
        return [(False, "There is no token that can be read: enter it again.")]
    except SlackRefused as refusal:
        noticed(row, refusal)
        return [(False, f"The token does not work. {refusal}")]
    noticed(row, None)
    found = [(True, f"The token works, in {identity.team}.")]
    if identity.team_id != row.team_id:
        found.append((False, "It is of another workspace than before: enter it again."))
    if "signing_secret" not in row.secrets:
        found.append((False, "There is no signing secret: buttons do not work."))
    return [*found, _greeted(slack, row, by, greeting)]


def _greeted(slack: Slack, row: SlackWorkspace, by: Person, greeting: str) -> tuple[bool, str]:
    mine = SlackAccount.objects.filter(person=by, team_id=row.team_id).first()
    if mine is None:
        return False, "No message was sent: connect your own Slack account in your settings."
    try:
        slack.post(mine.channel or slack.open_direct(mine.member_id), messages.note(greeting))
    except SlackRefused as refusal:
        return False, f"The message to you did not go out. {refusal}"
    return True, "A message went to you. Its arrival is up to you to see."


def _move(row: SlackWorkspace, identity: Identity) -> None:
    if (row.team_id, row.bot_user) != (identity.team_id, identity.bot_user):
        # Conversations are with the bot that began them.
        SlackAccount.objects.exclude(channel="").update(channel="")
    row.team_id, row.bot_user = identity.team_id, identity.bot_user
    row.name = identity.team[:200]


def _require_sense(row: SlackWorkspace | None, wish: Wish) -> None:
    fields: dict[str, list[str]] = {}
    if row is None and not wish.bot_token:
        fields["bot_token"] = ["Without a token nothing can be sent."]
    if wish.signing_secret and not SIGNING_SECRET.fullmatch(wish.signing_secret):
        fields["signing_secret"] = ["It is 32 or more of 0 to 9 and a to f."]
    elif not wish.signing_secret and (row is None or "signing_secret" not in row.secrets):
        fields["signing_secret"] = ["Without it nobody's click can be told from a forged one."]
    if fields:
        raise Invalid("Some of what you entered cannot be used.", fields=fields)


def _wake() -> None:
    """What waited for the token to be mended need not wait any longer."""
    waiting = Delivery.objects.filter(channel=CHANNEL, next_try_at__gt=clock.DbNow())
    waiting.exclude(last_error="").update(next_try_at=clock.DbNow())


def _withdraw() -> None:
    waiting = Delivery.objects.filter(channel=CHANNEL, next_try_at__isnull=False, handle="")
    waiting.update(next_try_at=None, withdrawn_at=clock.DbNow())


def _authorize(by: Person, what: str) -> None:
    if not by.has_perm(f"approvals.{what}_slackworkspace"):
        raise NotAllowed(f"You may not {what} the Slack workspace.", code="not_admin")


def _locked() -> SlackWorkspace:
    row = SlackWorkspace.objects.select_for_update().filter(pk=ONE).first()
    if row is None:
        raise WrongState("There is no Slack workspace.", code="gone")
    return row


@sensitive_variables()
def _seal(name: str, clear: str) -> dict[str, str]:
    return {name: secrets.seal(clear, table="slackworkspace", key=str(ONE), field=name)}
