"""PostgreSQL 15 and newer: a temporary login, member of a role that the target's owner prepared.

This module only joins the verbs; each is a module of its own beside it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from approvals.errors import Invalid, ProvisionError
from approvals.provisioning.base import (
    Account,
    Cleaned,
    Ended,
    ExtendOrder,
    Fence,
    Finding,
    JointFence,
    Known,
    Observation,
    Opened,
    OpenOrder,
    Provisioner,
    Survey,
    parsed,
)

from .clean import clean_account
from .config import LevelRights, ServerConfig
from .connect import Deadline, Dialer
from .cut import cut_account
from .findings import test_target
from .observe import observe_account
from .openers import joint_name, opener_name
from .opening import Wanted, open_together
from .prepare import prepare_text
from .roles import OPEN_DEADLINE, extend_account, open_account
from .summary import summarise_level
from .survey import end_elsewhere, survey_target
from .together import clean_together, cut_together
from .words import in_words

SIGN_IN_DEADLINE = 5
"""Seconds for trying a new secret; a person waits for it."""
SUMMARY_DEADLINE = 30
"""Seconds for a summary over all databases; a person waits for it."""
SUMMARY_FRESH = 2.0
"""Seconds for which openings one after the other rest on one look at their level: about as long as
a single opening on a slow server takes from its look to its COMMIT."""


@dataclass(frozen=True)
class _Look:
    """A summary, and when reading it began, on the monotonic clock."""

    began: float
    summary: tuple[str, ...]


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
    _looks: dict[LevelRights, _Look] | None = None

    @classmethod
    def in_words(cls, summary: Sequence[str]) -> str:
        """See `Provisioner.in_words`."""
        return in_words(summary)

    @functools.cached_property
    def _dialer(self) -> Dialer:
        return Dialer(self.config, self.secret_values.get("password", ""), self.trust_anchor)

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """See `Provisioner.kept_open`."""
        self._looks = {}
        try:
            with self._dialer.keeping():
                yield
        finally:
            self._looks = None

    def open(self, order: OpenOrder, fence: Fence) -> Opened:
        """See `Provisioner.open`. The whole takes at most `OPEN_DEADLINE` seconds."""
        rights, deadline = parsed(LevelRights, order.rights), Deadline(OPEN_DEADLINE)
        self._check_scope(order.grant_id, rights, order.summary, deadline)
        until = open_account(self._dialer, order, rights, fence, deadline)
        return Opened(valid_until=until, connection=self._connection(order.account, rights))

    def open_many(self, orders: Sequence[OpenOrder], fence: JointFence) -> Mapping[int, Opened]:
        """See `Provisioner.open_many`. The whole takes at most `OPEN_DEADLINE` seconds."""
        deadline = Deadline(OPEN_DEADLINE)
        rights = {one.grant_id: parsed(LevelRights, one.rights) for one in orders}
        name = joint_name(rights)
        now = {one: self._approvable(one, name, deadline) for one in set(rights.values())}
        sound = [one for one in orders if now[rights[one.grant_id]] == tuple(one.summary)]
        if not sound:
            return {}
        wanted = [Wanted.of(one, rights[one.grant_id]) for one in sound]
        until = open_together(self._dialer, wanted, fence, deadline)
        return {
            one.grant_id: Opened(
                valid_until=until[one.grant_id],
                connection=self._connection(one.account, rights[one.grant_id]),
            )
            for one in sound
            if one.grant_id in until
        }

    def _approvable(
        self, rights: LevelRights, name: str, deadline: Deadline
    ) -> tuple[str, ...] | None:
        """The summary of a level as it is, None if it must not be handed out."""
        try:
            return self._look(rights, name=name, deadline=deadline)
        except Invalid:
            return None

    def _check_scope(
        self, grant_id: int, rights: LevelRights, summary: Sequence[str], deadline: Deadline
    ) -> None:
        try:
            now = self._look(rights, name=opener_name(grant_id), deadline=deadline)
        except Invalid as error:
            raise ProvisionError(error.message, code="scope_changed", permanent=True) from error
        if now != tuple(summary):
            raise _scope_changed(tuple(summary), now)

    def _look(self, rights: LevelRights, *, name: str, deadline: Deadline) -> tuple[str, ...]:
        began = time.monotonic()
        if self._looks is not None and (last := self._looks.get(rights)):
            if began - last.began < SUMMARY_FRESH:
                return last.summary
        summary = summarise_level(self._dialer, rights, name=name, deadline=deadline)
        if self._looks is not None:
            self._looks[rights] = _Look(began, summary)
        return summary

    def _connection(self, account: str, rights: LevelRights) -> dict[str, Any]:
        return {
            "host": self.config.host,
            "port": self.config.port,
            "database": rights.database or self.config.database,
            "user": account,
            "sslmode": self.config.sslmode,
        }

    def extend(self, order: ExtendOrder, fence: Fence) -> None:
        """See `Provisioner.extend`. The whole takes at most `OPEN_DEADLINE` seconds."""
        rights, deadline = parsed(LevelRights, order.rights), Deadline(OPEN_DEADLINE)
        self._check_scope(order.account.grant_id, rights, order.summary, deadline)
        extend_account(self._dialer, order.account, order.valid_until, fence, deadline)

    def cut(self, account: Account) -> None:
        """See `Provisioner.cut`."""
        cut_account(self._dialer, account)

    def cut_many(self, accounts: Sequence[Account]) -> frozenset[int]:
        """See `Provisioner.cut_many`."""
        return cut_together(self._dialer, accounts)

    def clean_many(self, accounts: Sequence[Account]) -> frozenset[int]:
        """See `Provisioner.clean_many`."""
        return clean_together(self._dialer, accounts)

    def clean(self, account: Account) -> Cleaned:
        """See `Provisioner.clean`."""
        return clean_account(self._dialer, account, self.config.quarantine)

    def observe(self, account: Account) -> Observation:
        """See `Provisioner.observe`."""
        return observe_account(self._dialer, account)

    def survey(
        self, known: Sequence[Known], *, levels: Sequence[Mapping[str, Any]], stamp: str
    ) -> Survey:
        """See `Provisioner.survey`. It takes at most `survey.SURVEY_DEADLINE` seconds."""
        return survey_target(self._dialer, known, levels, stamp)

    def end_elsewhere(self, accounts: Sequence[Account], networks: Sequence[str]) -> list[Ended]:
        """See `Provisioner.end_elsewhere`."""
        return end_elsewhere(self._dialer, accounts, networks)

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
    def hindering(cls, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        """See `Provisioner.hindering`. A replica more hinders nothing, and is cut from then on."""
        kept = after.get("replicas", [])
        left_out = [one for one in before.get("replicas", []) if one not in kept]
        return [*super().hindering(before, after), *(["replicas"] if left_out else [])]

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
