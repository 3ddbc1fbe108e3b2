"""Looking at pages as a person does, without a browser."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from django.test import Client


def signed_in(person: Any) -> Client:
    client = Client()
    client.force_login(person)
    return client


def text(response: Any) -> str:
    """What a person reads: no tags, one space between words."""
    body = re.sub(r"<(script|style|dialog).*?</\1>", " ", response.content.decode(), flags=re.S)
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", body).split()))
