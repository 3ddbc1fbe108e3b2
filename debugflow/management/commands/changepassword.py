"""Django's command, which leaves an Event here and ends the account's tokens with the old password.

Whoever may run it has the database's password, and with it all that the application may do.
"""

from __future__ import annotations

import getpass
from typing import Any

from django.contrib.auth.management.commands import changepassword
from django.core.management import CommandError
from django.db import transaction

from approvals import tokens
from approvals.models import ServiceAccount
from audit.log import SYSTEM
from debugflow.accounts import changing
from debugflow.accounts.models import User


class Command(changepassword.Command):
    help = "Change a user's password, and end their tokens of the API."

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> str | None:
        name = options["username"] or getpass.getuser()
        if ServiceAccount.objects.filter(account__username=name).exists():
            raise CommandError(f"{name} is a service: it has tokens, and never a password.")
        told: str | None = super().handle(*args, **{**options, "username": name})
        user = User.objects.get(username=name)
        changing.tell("account.password_reset", user, by=SYSTEM)
        tokens.revoke_all(user.pk, by=SYSTEM, because="account.password_reset")
        return told
