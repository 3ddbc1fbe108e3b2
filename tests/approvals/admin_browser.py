"""What a person does in the admin's pages: open one, change some fields, send the form."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.auth.models import Permission
from django.forms import BaseForm
from django.test import Client
from django.urls import reverse

# What a browser would refuse under the site's policy: style and script in the page itself.
INLINE = re.compile(
    r"<style|<script(?![^>]*\b(?:src=|type=\"application/json\"))|\sstyle=|\son[a-z]+=", re.I
)


def browser(person: Any) -> Client:
    client = Client(raise_request_exception=True)
    client.force_login(person)
    return client


def staff(person: Any, *permissions: str) -> Any:
    """`person`, let into the admin with these permissions, such as `view_target`."""
    person.is_staff = True
    person.save()
    person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return type(person).objects.get(pk=person.pk)


def url(model: str, page: str, *args: Any) -> str:
    app = {"user": "accounts", "group": "auth", "event": "audit"}.get(model, "approvals")
    return reverse(f"admin:{app}_{model}_{page}", args=args)


def filled(*forms: BaseForm) -> dict[str, Any]:
    """What a browser sends for these forms as they are shown."""
    data: dict[str, Any] = {}
    for field in (field for form in forms for field in form):
        value = field.value()
        if value is True:
            data[field.html_name] = "on"
        elif value is not None and value is not False:
            data[field.html_name] = value
    return data


def admin_form(response: Any) -> Any:
    return response.context["adminform"].form


def errors(form: Any) -> dict[str, list[str]]:
    return {name: list(map(str, lines)) for name, lines in form.errors.items()}


def said(response: Any) -> list[str]:
    """The messages that the next page shows."""
    return [str(message) for message in response.context["messages"]]
