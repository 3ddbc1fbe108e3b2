"""PostgreSQL 15 and newer: a temporary login, member of a role that the target's owner prepared.

This module only joins the verbs; each is a module of its own beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from approvals.errors import Invalid, ProvisionError
from approvals.provisioning.base import (
    Account,
    Fence,
    Finding,
    Observation,
    Opened,
    OpenOrder,
    Provisioner,
    parsed,
)

from .account import opener_name
from .clean import clean_account
from .config import LevelRights, ServerConfig
from .connect import Deadline, Dialer
from .cut import cut_account
from .findings import test_target
from .observe import observe_account
from .prepare import prepare_text
from .roles import OPEN_DEADLINE, extend_account, open_account
from .summary import summarise_level

SIGN_IN_DEADLINE = 5
"""Seconds for trying a new secret; a person waits for it."""
SUMMARY_DEADLINE = 30
"""Seconds for a summary over all databases; a person waits for it."""


class PostgreSQL(Provisioner):
    """Temporary logins on a PostgreSQL server."""

    kind = "postgresql"
    label = "PostgreSQL"
    Config = ServerConfig
    Rights = LevelRights
    secrets = ("password",)
    address_fields = ("host", "port", "user", "sslmode")
    revocation_fields = ("admin_database", "quarantine")
    supports_extend = True

    config: ServerConfig

    @functools.cached_property
    def _dialer(self) -> Dialer:
        return Dialer(self.config, self.secret_values.get("password", ""), self.trust_anchor)

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """See `Provisioner.kept_open`."""
        with self._dialer.keeping():
            yield

    def open(self, order: OpenOrder, fence: Fence) -> Opened:
        """See `Provisioner.open`. The whole takes at most `OPEN_DEADLINE` seconds."""
        rights, deadline = parsed(LevelRights, order.rights), Deadline(OPEN_DEADLINE)
        self._check_scope(order, rights, deadline)
        until = open_account(self._dialer, order, rights, fence, deadline)
        return Opened(valid_until=until, connection=self._connection(order.account, rights))

    def _check_scope(self, order: OpenOrder, rights: LevelRights, deadline: Deadline) -> None:
        name = opener_name(order.grant_id)
        try:
            now = summarise_level(self._dialer, rights, name=name, deadline=deadline)
        except Invalid as error:
            raise ProvisionError(error.message, code="scope_changed", permanent=True) from error
        if now != tuple(order.summary):
            raise _scope_changed(tuple(order.summary), now)

    def _connection(self, account: str, rights: LevelRights) -> dict[str, Any]:
        return {
            "host": self.config.host,
            "port": self.config.port,
            "database": rights.database or self.config.database,
            "user": account,
            "sslmode": self.config.sslmode,
        }

    def extend(self, account: Account, valid_until: datetime) -> None:
        """See `Provisioner.extend`."""
        extend_account(self._dialer, account, valid_until)

    def cut(self, account: Account) -> None:
        """See `Provisioner.cut`."""
        cut_account(self._dialer, account)

    def clean(self, account: Account) -> None:
        """See `Provisioner.clean`."""
        clean_account(self._dialer, account, self.config.quarantine)

    def observe(self, account: Account) -> Observation:
        """See `Provisioner.observe`."""
        return observe_account(self._dialer, account)

    def summarise(self, rights: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Provisioner.summarise`."""
        return summarise_level(
            self._dialer,
            parsed(LevelRights, rights),
            name="dbgf-summary",
            deadline=Deadline(SUMMARY_DEADLINE),
        )

    def signs_in(self) -> None:
        """See `Provisioner.signs_in`."""
        with self._dialer.session("dbgf-sign-in", Deadline(SIGN_IN_DEADLINE)):
            return

    def test(self) -> list[Finding]:
        """See `Provisioner.test`."""
        return test_target(self._dialer)

    @classmethod
    def prepare_sql(
        cls, config: Mapping[str, Any], levels: Sequence[Mapping[str, Any]], **options: Any
    ) -> str:
        """See `Provisioner.prepare_sql`. The options are those of `prepare.prepare_text`."""
        rights = [parsed(LevelRights, level) for level in levels]
        return prepare_text(parsed(ServerConfig, config), rights, **options)

    @classmethod
    def unverified(cls, config: Mapping[str, Any]) -> str:
        """See `Provisioner.unverified`."""
        mode = parsed(ServerConfig, config).sslmode
        if mode == "verify-full":
            return ""
        return (
            f"With sslmode {mode} whoever stands between could pass for the server: set verify-full"
        )

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return `host:port/database`."""
        found = parsed(ServerConfig, config)
        host = f"[{found.host}]" if ":" in found.host else found.host
        return f"{host}:{found.port}/{found.database}"


def _scope_changed(approved: tuple[str, ...], now: tuple[str, ...]) -> ProvisionError:
    lost = [f"− {line}" for line in approved if line not in now]
    new = [f"+ {line}" for line in now if line not in approved]
    return ProvisionError(
        "The level's rights on the target are no longer what was approved.",
        code="scope_changed",
        permanent=True,
        changes=[*lost, *new],
    )
