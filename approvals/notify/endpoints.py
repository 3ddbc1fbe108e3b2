"""The verbs of webhooks: where programs of others hear of facts, and what signs what they get.

A secret is returned once, by the verb that makes it. For a day after a new one was made the former
one signs as well, so that a receiver can change over without losing anything.
"""

from __future__ import annotations

import base64
import secrets as randomness
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from django.db import IntegrityError, transaction
from django.views.decorators.debug import sensitive_variables

from approvals import secrets
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import Delivery, WebhookEndpoint
from approvals.notify import pinned
from approvals.notify.facts import FACTS
from approvals.transition import actor, verb
from audit import clock, log
from audit.log import SYSTEM, Subject

if TYPE_CHECKING:
    from approvals.people import Person

NAME_MAX: Final = 80
OVERLAP: Final = timedelta(days=1)
SECRET_BYTES: Final = 32


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What an endpoint is to be: where it is, and of which facts it hears."""

    name: str
    url: str
    facts: Collection[str]
    enabled: bool = True


def endpoint_subject(pk: int) -> Subject:
    row = WebhookEndpoint.objects.filter(pk=pk).first()
    return row.audit_subject() if row else Subject("webhookendpoint", str(pk or ""), "a webhook")


@verb("webhookendpoint.refused", endpoint_subject)
def save(endpoint_id: int, *, by: Person, wish: Wish) -> WebhookEndpoint:
    """Make an endpoint (0) or change one. Raises NotAllowed, Invalid, WrongState.

    Another address is another receiver: it gets a secret of its own, and the old one is forgotten.
    """
    _authorize(by, "change" if endpoint_id else "add")
    _require_sense(wish)
    row = _locked(endpoint_id) if endpoint_id else WebhookEndpoint(created_at=clock.now())
    moved = row.url != wish.url
    if moved:
        row.secrets, row.former_until = {}, None
    row.name, row.url, row.facts = wish.name.strip(), wish.url, sorted(wish.facts)
    row.enabled, row.disabled_because = wish.enabled, ""
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError:
        raise Invalid(fields={"name": ["Another webhook has this name."]}) from None
    if not row.enabled or moved:
        _withdraw(row)
    log.record(
        "webhookendpoint.changed" if endpoint_id else "webhookendpoint.created",
        actor=actor(by),
        subject=row,
        url=row.url,
        facts=row.facts,
        enabled=row.enabled,
    )
    return row


@verb("webhookendpoint.refused", endpoint_subject)
@sensitive_variables()
def rotate(endpoint_id: int, *, by: Person) -> str:
    """Make a new secret and return it, once. Raises NotAllowed, WrongState."""
    _authorize(by, "change")
    row, now = _locked(endpoint_id), clock.now()
    sealed = {}
    if "secret" in row.secrets:
        sealed["former"] = _seal(row, "former", _unsealed(row, "secret"))
        row.former_until = now + OVERLAP
    clear = f"whsec_{base64.b64encode(randomness.token_bytes(SECRET_BYTES)).decode()}"
    row.secrets = {**sealed, "secret": _seal(row, "secret", clear)}
    row.save(update_fields=["secrets", "former_until"])
    log.record("webhookendpoint.secret_rotated", actor=actor(by), subject=row, at=now)
    return clear


@verb("webhookendpoint.refused", endpoint_subject)
def delete(endpoint_id: int, *, by: Person) -> None:
    """Forget it, with the list of what it was sent. Raises NotAllowed, WrongState."""
    _authorize(by, "delete")
    row = _locked(endpoint_id)
    log.record("webhookendpoint.deleted", actor=actor(by), subject=row, url=row.url)
    row.delete()


@verb("webhookendpoint.refused", endpoint_subject)
def gone(endpoint_id: int, *, by: object = SYSTEM) -> None:
    """Send it nothing any more: it has said that it is gone for good."""
    row = _locked(endpoint_id)
    if not row.enabled:
        return
    row.enabled, row.disabled_because = False, "It answered 410: it is gone."
    row.save(update_fields=["enabled", "disabled_because"])
    _withdraw(row)
    log.record(
        "webhookendpoint.disabled", actor=actor(by), subject=row, because=row.disabled_because
    )


@sensitive_variables()
def keys(row: WebhookEndpoint, now: datetime) -> list[str]:
    """What signs now: the secret, and the former one for its last day.

    Raises LookupError without one, and SecretUnreadable.
    """
    names = ["secret"]
    if "former" in row.secrets and row.former_until and row.former_until > now:
        names.append("former")
    return [_unsealed(row, name) for name in names]


def _withdraw(row: WebhookEndpoint) -> None:
    """What waits for it was for where it was, or for somebody who listened."""
    Delivery.objects.filter(endpoint=row, next_try_at__isnull=False).update(
        next_try_at=None, withdrawn_at=clock.DbNow()
    )


def _require_sense(wish: Wish) -> None:
    fields: dict[str, list[str]] = {}
    if not wish.name.strip() or len(wish.name) > NAME_MAX or not wish.name.isprintable():
        fields["name"] = [f"Give it a name of at most {NAME_MAX} characters."]
    if not wish.facts:
        fields["facts"] = ["Choose at least one."]
    elif unknown := set(wish.facts) - FACTS.keys():
        fields["facts"] = [f"There is no fact {', '.join(sorted(unknown))}."]
    try:
        pinned.check(wish.url)
    except pinned.Refused as refusal:
        fields["url"] = [str(refusal)]
    if fields:
        raise Invalid("Some of what you entered cannot be used.", fields=fields)


def _authorize(by: Person, what: str) -> None:
    if not by.has_perm(f"approvals.{what}_webhookendpoint"):
        raise NotAllowed(f"You may not {what} webhooks.", code="not_admin")


def _locked(endpoint_id: int) -> WebhookEndpoint:
    row = WebhookEndpoint.objects.select_for_update().filter(pk=endpoint_id).first()
    if row is None:
        raise WrongState("This webhook does not exist.", code="gone")
    return row


def _seal(row: WebhookEndpoint, field: str, clear: str) -> str:
    return secrets.seal(clear, table="webhookendpoint", key=str(row.pk), field=field)


def _unsealed(row: WebhookEndpoint, field: str) -> str:
    return secrets.unseal(row.secrets[field], table="webhookendpoint", key=str(row.pk), field=field)
