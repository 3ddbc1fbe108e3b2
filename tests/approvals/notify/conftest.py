"""A mail server, and what people were told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.approvals.smtp import Mailbox, mail_server


@pytest.fixture
def mailbox(settings: Any) -> Iterator[Mailbox]:
    with mail_server(settings) as running:
        yield running
