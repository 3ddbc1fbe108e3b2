"""A target that lives in this process: the same contract with nothing behind it.

For unit tests of whatever uses a provisioner. `MemoryServer` is the "other side": tests sign in
there, look, and inject faults. It is never offered in a form.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from approvals.errors import Invalid, ProvisionError

from .base import (
    Account,
    Cleaned,
    Ended,
    ExtendOrder,
    Fence,
    Finding,
    Found,
    JointFence,
    Known,
    Observation,
    Opened,
    OpenOrder,
    Provisioner,
    Survey,
    parsed,
)

NAMED_OURS = re.compile(r"dbgf_[0-9]+")


class MemoryConfig(BaseModel):
    """The name under which this process finds the server."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1, max_length=100)


class MemoryRights(BaseModel):
    """The name of a level of the server."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    level: str = Field(min_length=1, max_length=100)


@dataclass(kw_only=True)
class MemoryAccount:
    """An account on the server. `id` is never used twice."""

    id: int
    password: str = field(repr=False)
    level: str
    valid_until: datetime
    can_sign_in: bool = True
    stamp: str = ""
    removable: bool = True


@dataclass(eq=False)
class MemorySession:
    """A signed-in session. It goes on after its account is dropped, as a real one does."""

    account_id: int
    alive: bool = True
    address: str = "127.0.0.1"
    number: int = 0
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(eq=False)
class MemoryOpener:
    """An `open` of one or many under way. Once ended by a cut it can commit no more."""

    grants: frozenset[int]
    ended: bool = False

    def commit(self) -> None:
        """Raise `ProvisionError` when a cut came first."""
        if self.ended:
            raise ProvisionError(
                "The connection was ended from the other side.", code="unreachable"
            )


class MemoryServer:
    """The target's own side. One per name and process."""

    _servers: ClassVar[dict[str, MemoryServer]] = {}

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.admin_password = ""
        """The admin account's; empty for a server that lets any in."""
        self.levels: dict[str, tuple[str, ...]] = {"read-only": ("may read",)}
        self.accounts: dict[str, MemoryAccount] = {}
        self.sessions: list[MemorySession] = []
        self.openers: list[MemoryOpener] = []
        self.calls: list[str] = []
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._faults: dict[str, list[ProvisionError]] = {}
        self._ids = itertools.count(1)

    @classmethod
    def named(cls, name: str) -> MemoryServer:
        """Return the server of that name, started on first use."""
        return cls._servers.setdefault(name, cls())

    @classmethod
    def forget_all(cls) -> None:
        """Begin anew: what a test left behind is gone."""
        cls._servers.clear()

    def fail_next(self, verb: str, error: ProvisionError, *, times: int = 1) -> None:
        """Make the next `times` calls of `verb` raise `error` before they do anything.

        The verb `commit` fails an `open` after its fence has held and before anything is kept.
        """
        self._faults.setdefault(verb, []).extend([error] * times)

    def is_to_fail(self, verb: str) -> bool:
        """Whether a fault is ordered for the next call."""
        return bool(self._faults.get(verb))

    def enter(self, verb: str) -> None:
        """Note a call, and raise the fault that was ordered for it."""
        self.calls.append(verb)
        if waiting := self._faults.get(verb):
            raise waiting.pop(0)

    def sign_in(self, account: str, password: str, *, address: str = "127.0.0.1") -> MemorySession:
        """Begin a session as its holder would; raise `PermissionError` when refused."""
        with self.lock:
            found = self.accounts.get(account)
            if found is None or not found.can_sign_in or found.password != password:
                raise PermissionError(account)
            if found.valid_until <= self.clock():
                raise PermissionError(f"{account} is past its time")
            session = MemorySession(found.id, address=address, number=len(self.sessions) + 1)
            self.sessions.append(session)
            return session

    def next_id(self) -> int:
        """Return an id that no account has had."""
        return next(self._ids)

    def add_stranger(self, name: str, password: str, *, until: datetime, **more: Any) -> None:
        """Make an account that is not ours, as somebody else on the server could."""
        self.accounts[name] = MemoryAccount(
            id=self.next_id(), password=password, level="", valid_until=until, **more
        )

    def live(self, ids: set[int]) -> list[MemorySession]:
        """Return the sessions of any of these accounts that still go on."""
        return [one for one in self.sessions if one.alive and one.account_id in ids]


class MemoryProvisioner(Provisioner):
    """Accounts in a dictionary."""

    kind = "memory"
    label = "In memory (rehearsal)"
    Config = MemoryConfig
    Rights = MemoryRights
    secrets = ("password",)
    address_fields = ("name",)
    supports_extend = True
    rehearsal = True

    config: MemoryConfig

    @property
    def server(self) -> MemoryServer:
        """The other side."""
        return MemoryServer.named(self.config.name)

    def open(self, order: OpenOrder, fence: Fence) -> Opened:
        """See `Provisioner.open`. Nothing is kept before the fence held: that is the roll-back."""
        server = self.server
        with server.lock:
            server.enter("open")
            self._check_scope(order.rights, order.summary)
            self._check_name(order)
            opener = MemoryOpener(frozenset({order.grant_id}))
            server.openers.append(opener)
        until = fence.now() + timedelta(seconds=order.duration)
        staged = self._staged(order, until)
        fence.hold(_undo(staged))
        with server.lock:
            server.enter("commit")
            opener.commit()
            server.accounts[order.account] = staged
        return self._opened(order, until)

    def open_many(self, orders: Sequence[OpenOrder], fence: JointFence) -> Mapping[int, Opened]:
        """See `Provisioner.open_many`. What is ordered for `open` to fail is left to it."""
        sound = [order for order in orders if self._is_sound(order)]
        if not sound:
            return {}
        now = fence.now()
        until = {one.grant_id: now + timedelta(seconds=one.duration) for one in sound}
        opener = MemoryOpener(frozenset(until))
        with self.server.lock:
            self.server.enter("open_many")
            self.server.openers.append(opener)
        staged = {one.account: self._staged(one, until[one.grant_id]) for one in sound}
        fence.hold_many({one.grant_id: _undo(staged[one.account]) for one in sound})
        with self.server.lock:
            self.server.enter("commit")
            opener.commit()
            self.server.accounts |= staged
        return {one.grant_id: self._opened(one, until[one.grant_id]) for one in sound}

    def _is_sound(self, order: OpenOrder) -> bool:
        try:
            self._check_scope(order.rights, order.summary)
            self._check_name(order)
        except ProvisionError:
            return False
        return not self.server.is_to_fail("open")

    def _opened(self, order: OpenOrder, until: datetime) -> Opened:
        connection = {"server": self.config.name, "user": order.account}
        return Opened(valid_until=until, connection=connection)

    def _check_scope(self, rights: Mapping[str, Any], summary: Sequence[str]) -> None:
        try:
            now = self.summarise(rights)
        except Invalid as error:
            raise ProvisionError(error.message, code="scope_changed", permanent=True) from error
        if now != tuple(summary):
            raise ProvisionError(
                "The level is no longer what was approved.", code="scope_changed", permanent=True
            )

    def _check_name(self, order: OpenOrder) -> None:
        found = self.server.accounts.get(order.account)
        if found and found.id not in _ids(order.known):
            raise ProvisionError(f"{order.account} is not ours.", code="name_taken", permanent=True)

    def _staged(self, order: OpenOrder, until: datetime) -> MemoryAccount:
        before = self.server.accounts.get(order.account)
        return MemoryAccount(
            id=before.id if before else self.server.next_id(),
            password=order.password,
            level=parsed(MemoryRights, order.rights).level,
            valid_until=until,
            stamp=order.stamp,
        )

    def extend(self, order: ExtendOrder, fence: Fence) -> None:
        """See `Provisioner.extend`."""
        server, account = self.server, order.account
        with server.lock:
            server.enter("extend")
            self._check_scope(order.rights, order.summary)
            if self._ours(account) is None:
                raise ProvisionError(f"{account.account} is gone.", code="gone", permanent=True)
            opener = MemoryOpener(frozenset({account.grant_id}))
            server.openers.append(opener)
        fence.hold({"valid_until": order.valid_until.isoformat()})
        with server.lock:
            server.enter("commit")
            opener.commit()
            if found := self._ours(account):
                found.valid_until = order.valid_until

    def cut(self, account: Account) -> None:
        """See `Provisioner.cut`."""
        with self.server.lock:
            self.server.enter("cut")
            for opener in self.server.openers:
                opener.ended = opener.ended or account.grant_id in opener.grants
            if found := self._ours(account):
                found.can_sign_in = False
            for session in self.server.live(_ids(account.traces)):
                session.alive = False

    def clean(self, account: Account) -> Cleaned:
        """See `Provisioner.clean`. Nothing can be made here, so nothing is left."""
        with self.server.lock:
            self.server.enter("clean")
            if self._ours(account):
                del self.server.accounts[account.account]
        return Cleaned()

    def observe(self, account: Account) -> Observation:
        """See `Provisioner.observe`."""
        with self.server.lock:
            self.server.enter("observe")
            found = self._ours(account)
            return Observation(
                sessions=len(self.server.live(_ids(account.traces))),
                can_sign_in=bool(found and found.can_sign_in),
                leftovers=(f"account {account.account} is still there",) if found else (),
            )

    def _ours(self, account: Account) -> MemoryAccount | None:
        found = self.server.accounts.get(account.account)
        return found if found and found.id in _ids(account.traces) else None

    def survey(
        self, known: Sequence[Known], *, levels: Sequence[Mapping[str, Any]], stamp: str
    ) -> Survey:
        """See `Provisioner.survey`."""
        with self.server.lock:
            self.server.enter("survey")
            owner = {id: one for one in known for id in _ids(one.traces)}
            named = self.server.accounts.items()
            accounts = [
                self._found(name, one, owner.get(one.id))
                for name, one in named
                if NAMED_OURS.fullmatch(name) or one.id in owner
            ]
        wanted = {parsed(MemoryRights, rights).level for rights in levels}
        missing = sorted(wanted - self.server.levels.keys())
        findings = [f"there is no level {name}" for name in missing]
        return Survey(accounts=tuple(accounts), findings=tuple(findings))

    def _found(self, name: str, account: MemoryAccount, known: Known | None) -> Found:
        return Found(
            account=name,
            trace={"id": account.id},
            stamp=account.stamp,
            can_sign_in=account.can_sign_in,
            sessions=len(self.server.live({account.id})),
            removable=account.removable,
            differences=tuple(_differences(account, known)) if known else (),
        )

    def end_elsewhere(self, accounts: Sequence[Account], networks: Sequence[str]) -> list[Ended]:
        """See `Provisioner.end_elsewhere`."""
        with self.server.lock:
            self.server.enter("end_elsewhere")
            owner = {id: one.account for one in accounts for id in _ids(one.traces)}
            admitted = [ip_network(network) for network in networks]
            outside = [
                session
                for session in self.server.live(set(owner))
                if not any(ip_address(session.address) in network for network in admitted)
            ]
            for session in outside:
                session.alive = False
        return [
            Ended(
                account=owner[one.account_id],
                address=one.address,
                number=one.number,
                began_at=one.began_at,
            )
            for one in outside
        ]

    def summarise(self, rights: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Provisioner.summarise`."""
        level = parsed(MemoryRights, rights).level
        if level not in self.server.levels:
            raise Invalid(f"{self.config.name} has no level {level}.")
        return self.server.levels[level]

    def signs_in(self) -> None:
        """See `Provisioner.signs_in`."""
        self.server.enter("signs_in")
        wanted = self.server.admin_password
        if wanted and self.secret_values.get("password") != wanted:
            raise ProvisionError(f"{self.config.name} does not take this password.", permanent=True)

    def test(self) -> list[Finding]:
        """See `Provisioner.test`."""
        return [Finding(ok=True, what=f"{self.config.name} lives in this process")]

    @classmethod
    def prepare_sql(
        cls, config: Mapping[str, Any], levels: Sequence[Mapping[str, Any]], **options: Any
    ) -> str:
        """See `Provisioner.prepare_sql`."""
        return "-- nothing to prepare\n"

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """See `Provisioner.address`."""
        return f"memory:{parsed(MemoryConfig, config).name}"


def _differences(account: MemoryAccount, known: Known) -> Iterator[str]:
    level = parsed(MemoryRights, known.rights).level
    if account.level != level:
        yield f"has the level {account.level}, not {level}"
    if account.valid_until > known.valid_until:
        yield "may sign in beyond its end"


def _undo(staged: MemoryAccount) -> dict[str, Any]:
    return {"id": staged.id, "valid_until": staged.valid_until.isoformat()}


def _ids(undo: Sequence[Mapping[str, Any]]) -> set[int]:
    return {one["id"] for one in undo if "id" in one}
