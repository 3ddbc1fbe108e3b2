"""The verbs of API tokens: make, present, revoke. The only code that sees one in clear.

What a call with a token may do is in `api.permissions`. A token is shown once, by the answer to
its making, and only its hash is kept.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.views.decorators.debug import sensitive_variables

from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import ApiToken, Risk, ServiceAccount, TokenKind, TokenScope
from approvals.transition import actor, verb
from audit import clock, log
from audit.log import SYSTEM, Actor, Subject

if TYPE_CHECKING:
    from approvals.people import Person

PREFIX: Final = "dbf_"
ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM: Final = 43  # characters of 62 kinds: 256 bits
CHECK: Final = 6  # characters: a CRC-32, so that a scanner for leaks is sure of what it found
HINT: Final = 8  # characters that stay readable, 24 bits of them random
SHAPE: Final = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{RANDOM + CHECK}}}")
EACH_MINUTE: Final = timedelta(minutes=1)
LIVE_MOST: Final = 20  # tokens of one account that have not ended
NAME_MAX: Final = 80
SERVICE_NAME: Final = re.compile(r"[a-z][a-z0-9-]{1,48}[a-z0-9]")
# What a token may vote about; beyond it somebody has to be at the keyboard.
VOTE_RISKS: Final[Collection[str]] = (Risk.LOW.value, Risk.MEDIUM.value)


@dataclass(frozen=True, kw_only=True)
class TokenWish:
    """What a token is to be: for oneself, or for the service account of this name."""

    name: str
    scopes: Collection[str]
    days: int
    service: str = ""


@dataclass(frozen=True)
class Issued:
    """A new token and, this once, its text."""

    row: ApiToken
    clear: str = field(repr=False)


def account_subject(pk: int) -> Subject:
    account = get_user_model().objects.filter(pk=pk).first()
    name = account.get_username() if account else f"account {pk}"
    return Subject("user", str(pk), name, f"user:{pk}")


def token_subject(pk: int) -> Subject:
    row = ApiToken.objects.select_related("account").filter(pk=pk).first()
    return row.audit_subject() if row else Subject("apitoken", str(pk), f"token {pk}")


@verb("token.make_refused", account_subject)
def make(maker_id: int, *, by: Person, wish: TokenWish, after: int | None = None) -> Issued:
    """Make a token of `by`, whose id is `maker_id`, or of a service that `by` administers.

    The service's account is made with its first token. `after` is the newest token that a form
    knew of: one of this name that they made later is the same form sent twice, and is not made
    again. Raises NotAllowed, WrongState, Invalid.
    """
    by = _lock_account(maker_id, by=by)
    now = clock.now()
    _require_sound(wish)
    account = _service(wish.service, by=by, now=now) if wish.service else by
    if after is not None:
        _require_first(account, by=by, name=wish.name, after=after)
    _require_room(account, now)
    clear = _new()
    row = ApiToken.objects.create(
        account=account,
        made_by=by,
        kind=TokenKind.SERVICE if wish.service else TokenKind.PERSONAL,
        name=wish.name,
        digest=_digest(clear),
        hint=clear[:HINT],
        scopes=sorted(wish.scopes),
        made_at=now,
        expires_at=now + timedelta(days=wish.days),
    )
    log.record(
        "token.made",
        actor=actor(by),
        subject=row,
        at=now,
        kind=row.kind,
        scopes=row.scopes,
        expires_at=row.expires_at,
    )
    return Issued(row, clear)


def _lock_account(pk: int, *, by: Person) -> Person:
    """The account as it is now. Raises NotAllowed for one that was switched off, or got another
    password, meanwhile, and for a service, whose tokens superusers make.

    Who held a session that the new password ends must not leave a token behind.
    """
    accounts: Any = get_user_model().objects.select_for_update(no_key=True, of=("self",))
    account: Person | None = accounts.select_related("service").filter(pk=pk).first()
    if account is None or not account.is_active:
        raise NotAllowed("This account is switched off.")
    if account.password != by.password:
        raise NotAllowed("The password of this account has changed. Sign in again.")
    if hasattr(account, "service"):
        raise NotAllowed("A service makes no token itself. A superuser makes it.")
    return account


def _require_sound(wish: TokenWish) -> None:
    fields: dict[str, list[str]] = {}
    if not wish.name.strip() or len(wish.name) > NAME_MAX or not wish.name.isprintable():
        fields["name"] = [f"Say what it is for, in 1 to {NAME_MAX} printable characters."]
    if not wish.scopes or not set(wish.scopes) <= set(TokenScope.values):
        fields["scopes"] = [f"One or more of {', '.join(TokenScope.values)}."]
    elif wish.service and TokenScope.VOTE in wish.scopes:
        fields["scopes"] = ["A service never votes."]
    if not 1 <= wish.days <= settings.API_TOKEN_DAYS:
        fields["days"] = [f"From 1 to {settings.API_TOKEN_DAYS}."]
    if wish.service and not SERVICE_NAME.fullmatch(wish.service):
        fields["service"] = ["3 to 50 of a to z, 0 to 9 and -, such as incident-bot."]
    if fields:
        raise Invalid("Some of what you entered cannot be used.", fields=fields)


def _service(name: str, *, by: Person, now: datetime) -> Person:
    """The service's account, its row locked. Raises NotAllowed, Invalid."""
    if not (by.is_active and by.is_superuser):
        raise NotAllowed("Only superusers make tokens of services.", code="not_admin")
    found: Any = get_user_model().objects.select_for_update(no_key=True, of=("self",))
    account = found.select_related("service").filter(username=name).first()
    if account is None:
        return _new_service(name, by=by, now=now)
    if not hasattr(account, "service") or account.has_usable_password():
        # Whoever holds a token of a person's account acts as them.
        raise Invalid(fields={"service": ["This is a person's account. Choose another name."]})
    if not account.is_active:
        raise Invalid(fields={"service": ["This account is switched off."]})
    return account  # type: ignore[no-any-return]


def _new_service(name: str, *, by: Person, now: datetime) -> Person:
    try:
        with transaction.atomic():
            account: Person = get_user_model().objects.create_user(name)
    except IntegrityError:
        raise WrongState("Somebody has just taken this name.") from None
    ServiceAccount.objects.create(account=account, made_by=by, made_at=now)
    log.record("service.made", actor=actor(by), subject=account_subject(account.pk), at=now)
    return account


def _require_first(account: Person, *, by: Person, name: str, after: int) -> None:
    made = ApiToken.objects.filter(account=account, made_by=by, name=name, pk__gt=after)
    if made.exists():
        raise WrongState(
            "This token has just been made, and its text was shown. If it is lost, revoke the "
            "token and make another.",
            code="made_already",
        )


def _require_room(account: Person, now: datetime) -> None:
    if live(account.pk, now).count() >= LIVE_MOST:
        raise Invalid(f"There are {LIVE_MOST} live tokens already. Revoke one that is not used.")


@verb("token.revoke_refused", token_subject)
def revoke(token_id: int, *, by: Person) -> ApiToken:
    """End a token now. One that is revoked already stays as it was. Raises NotAllowed, WrongState.

    For whoever it acts as, and superusers.
    """
    row = ApiToken.objects.select_for_update(of=("self",)).filter(pk=token_id)
    token = row.select_related("account").first()
    if token is None:
        raise WrongState("This token does not exist.", code="gone")
    _require_may_end(token.account_id, by)
    if token.revoked_at is None:
        _end(token, by=by, now=clock.now())
    return token


@verb("token.revoke_refused", account_subject)
def revoke_all(account_id: int, *, by: Person | Actor, because: str) -> int:
    """End every token of an account that has not ended; how many. Raises NotAllowed.

    For itself, superusers and the system. `because` is the action that brought it about.
    """
    _require_may_end(account_id, by)
    # As making one does, so that none is made beside this.
    get_user_model().objects.select_for_update(no_key=True).filter(pk=account_id).first()
    now = clock.now()
    rows = live(account_id, now).select_for_update(of=("self",)).order_by("pk")
    ended = list(rows.select_related("account"))
    for token in ended:
        _end(token, by=by, now=now, because=because)
    return len(ended)


def live(account_id: int, now: datetime) -> QuerySet[ApiToken]:
    """The tokens of an account that are not over."""
    unrevoked = ApiToken.objects.filter(account=account_id, revoked_at__isnull=True)
    return unrevoked.filter(expires_at__gt=now)


def _require_may_end(account_id: int, by: Person | Actor) -> None:
    if isinstance(by, Actor):
        return
    if by.pk != account_id and not by.is_superuser:
        raise NotAllowed("Only whoever it acts as and superusers revoke it.", code="not_yours")


def _end(token: ApiToken, *, by: Person | Actor, now: datetime, because: str = "") -> None:
    token.revoked_at = now
    token.save(update_fields=["revoked_at"])
    log.record("token.revoked", actor=actor(by), subject=token, at=now, because=because)


def end_all() -> int:
    """Revoke every token, for a database that may not know of all that were. Returns how many.

    The caller tells it, in its own Event.
    """
    return ApiToken.objects.filter(revoked_at__isnull=True).update(revoked_at=clock.DbNow())


def visible(person: Person) -> QuerySet[ApiToken]:
    """One's own; to superusers, who may have to end one that has leaked, all of them."""
    seen = Q() if person.is_superuser else Q(account=person)
    return ApiToken.objects.filter(seen).select_related("account", "made_by")


@sensitive_variables()
def presented(clear: str) -> ApiToken:
    """The token somebody shows, noted as used. Raises NotAllowed for one that does not count.

    One that once counted is told to the audit log, at most once a minute.
    """
    token = _find(clear)
    if token is None:
        raise NotAllowed("There is no such token. Check that it is whole.", code="token_unknown")
    if (refusal := _dead(token)) is not None:
        _tell_refused(token, refusal.code)
        raise refusal
    _note_use(token)
    return token


@sensitive_variables()
def _find(clear: str) -> ApiToken | None:
    if not SHAPE.fullmatch(clear) or _check(clear[:-CHECK]) != clear[-CHECK:]:
        return None
    rows: QuerySet[Any] = ApiToken.objects.select_related("account")
    found = rows.annotate(looked_at=clock.DbNow()).filter(digest=_digest(clear)).first()
    return cast("ApiToken | None", found)


def _dead(token: ApiToken) -> NotAllowed | None:
    if token.revoked_at is not None:
        return NotAllowed("This token was revoked.", code="token_revoked")
    if token.expires_at <= token.looked_at:
        return NotAllowed("This token has expired. Make a new one.", code="token_expired")
    if not token.account.is_active:
        return NotAllowed("The account of this token is switched off.", code="token_inactive")
    return None


def _note_use(token: ApiToken) -> None:
    """Not an Event: reading changes nothing, and each change is told by `record_use`."""
    if token.last_used_at is None or token.last_used_at <= token.looked_at - EACH_MINUTE:
        _first_in_a_minute(token, "last_used_at")


def _first_in_a_minute(token: ApiToken, column: str) -> bool:
    """Set a time to now unless it was set within a minute; whether it was set."""
    now = clock.DbNow()
    before = Q(**{f"{column}__isnull": True}) | Q(**{f"{column}__lte": now - EACH_MINUTE})
    return bool(ApiToken.objects.filter(before, pk=token.pk).update(**{column: now}))


@transaction.atomic
def _tell_refused(token: ApiToken, code: str) -> None:
    if _first_in_a_minute(token, "refused_at"):
        log.record("token.refused", actor=SYSTEM, subject=token, code=code)


@transaction.atomic
def record_use(token: ApiToken, *, method: str, path: str) -> None:
    """Tell that a change was called for with this token; the request's id joins it to the rest."""
    log.record("token.used", actor=actor(token.account), subject=token, method=method, path=path)


@transaction.atomic
def record_out_of_scope(token: ApiToken, *, method: str, path: str, code: str) -> None:
    log.record(
        "token.refused",
        actor=actor(token.account),
        subject=token,
        method=method,
        path=path,
        code=code,
    )


@sensitive_variables()
def _new() -> str:
    body = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
    return body + _check(body)


@sensitive_variables()
def _check(body: str) -> str:
    """The CRC-32 of the rest in base 62."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECK):
        number, rest = divmod(number, len(ALPHABET))
        digits = ALPHABET[rest] + digits
    return digits


@sensitive_variables()
def _digest(clear: str) -> str:
    return hashlib.sha256(clear.encode()).hexdigest()
