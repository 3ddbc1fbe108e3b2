"""Django's command, which leaves an Event here. `setup` makes the first admin and more."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.management.commands import createsuperuser
from django.db import transaction

from audit.log import SYSTEM
from debugflow.accounts import changing
from debugflow.accounts.models import User


class Command(createsuperuser.Command):
    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        known = set(User.objects.values_list("pk", flat=True))
        super().handle(*args, **options)
        for user in User.objects.exclude(pk__in=known):
            changing.tell("account.created", user, by=SYSTEM)
