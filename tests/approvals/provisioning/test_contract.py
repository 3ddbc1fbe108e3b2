"""One contract for every registered kind, ours and others': open, use, extend, cut, clean, look.

A kind is brought in by an `Arena`: how its holder signs in, and how to see whether they still are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import psycopg
import pytest
from pydantic import BaseModel

from approvals import provisioning
from approvals.errors import Fenced, Invalid, ProvisionError
from approvals.provisioning.base import Account, ExtendOrder, Known, OpenOrder, Provisioner
from approvals.provisioning.memory import MemoryProvisioner, MemoryServer, MemorySession

from .conftest import ALICES, READ, NotedFence, Target, account_of, is_cut

IDS = itertools.count(9000)


class Arena(Protocol):
    """What the contract needs to know of a kind."""

    @property
    def provisioner(self) -> Provisioner: ...
    @property
    def rights(self) -> Mapping[str, Any]: ...

    def sign_in(self, account: str) -> Any: ...
    def is_in(self, session: Any) -> bool: ...
    def drift(self) -> None: ...
    def restore(self) -> None: ...
    def strangers_account(self, name: str) -> None: ...


@dataclass
class PostgreSQLArena:
    target: Target
    rights: Mapping[str, Any]

    @property
    def provisioner(self) -> Provisioner:
        return self.target.provisioner

    def sign_in(self, account: str) -> Any:
        try:
            return self.target.sign_in(account)
        except psycopg.OperationalError as error:
            raise PermissionError from error

    def is_in(self, session: psycopg.Connection[Any]) -> bool:
        return not is_cut(session)

    def drift(self) -> None:
        self.target.tell("GRANT DELETE ON orders TO orders_ro")

    def restore(self) -> None:
        self.target.tell("REVOKE DELETE ON orders FROM orders_ro")

    def strangers_account(self, name: str) -> None:
        self.target.tell(f"CREATE ROLE {name} LOGIN PASSWORD '{ALICES}'")


@dataclass
class MemoryArena:
    provisioner: Provisioner
    rights: Mapping[str, Any]
    server: MemoryServer

    def sign_in(self, account: str) -> Any:
        return self.server.sign_in(account, ALICES)

    def is_in(self, session: MemorySession) -> bool:
        return session.alive

    def drift(self) -> None:
        self.server.levels["read-only"] = ("may read", "may delete")

    def restore(self) -> None:
        self.server.levels["read-only"] = ("may read",)

    def strangers_account(self, name: str) -> None:
        self.server.add_stranger(name, ALICES, until=datetime.now(UTC) + timedelta(days=1))


def _memory(_: pytest.FixtureRequest) -> Arena:
    MemoryServer.forget_all()
    MemoryServer.named("contract").admin_password = "x"
    provisioner = MemoryProvisioner({"name": "contract"}, {"password": "x"})
    return MemoryArena(provisioner, {"level": "read-only"}, provisioner.server)


def _postgresql(request: pytest.FixtureRequest) -> Arena:
    return PostgreSQLArena(request.getfixturevalue("newest"), READ)


def _oldest_postgresql(request: pytest.FixtureRequest) -> Arena:
    return PostgreSQLArena(request.getfixturevalue("oldest"), READ)


OLD = "postgresql, the oldest"
ARENAS = {"memory": _memory, "postgresql": _postgresql, OLD: _oldest_postgresql}


@pytest.fixture(params=sorted([*provisioning.paths(), OLD]))
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    assert request.param in ARENAS, f"write an arena for {request.param}"
    found = ARENAS[request.param](request)
    yield found
    found.restore()


def order(
    arena: Arena, *, known: list[Mapping[str, Any]] | None = None, grant: int = 0
) -> OpenOrder:
    grant_id = grant or next(IDS)
    return OpenOrder(
        grant_id=grant_id,
        account=f"dbgf_{grant_id}",
        rights=arena.rights,
        summary=arena.provisioner.summarise(arena.rights),
        password=ALICES,
        duration=600,
        known=known or [],
    )


def opened(arena: Arena) -> Account:
    fence, wanted = NotedFence(), order(arena)
    arena.provisioner.open(wanted, fence)
    return account_of(wanted, fence)


def test_a_kind_says_what_it_is(arena: Arena) -> None:
    kind = type(arena.provisioner)
    assert kind.label
    assert provisioning.get(kind.kind) is kind
    assert {*kind.address_fields, *kind.revocation_fields} <= set(kind.Config.model_fields)
    assert not set(kind.secrets) & set(kind.Config.model_fields)
    for schema in (kind.Config, kind.Rights):
        assert issubclass(schema, BaseModel)
        assert schema.model_config.get("extra") == "forbid"


def test_the_admin_account_signs_in_with_its_secrets_alone(arena: Arena) -> None:
    arena.provisioner.signs_in()
    kind, config = type(arena.provisioner), arena.provisioner.config.model_dump()
    for secrets in (dict.fromkeys(kind.secrets, "canary-secret"), {}):
        with pytest.raises(ProvisionError) as caught:
            kind(config, secrets).signs_in()
        assert "canary-secret" not in caught.value.message


def test_a_life(arena: Arena) -> None:
    account = opened(arena)
    session = arena.sign_in(account.account)
    assert arena.is_in(session)
    assert arena.provisioner.observe(account).sessions == 1
    arena.provisioner.cut(account)
    assert not arena.is_in(session)
    with pytest.raises(PermissionError):
        arena.sign_in(account.account)
    observed = arena.provisioner.observe(account)
    assert (observed.sessions, observed.can_sign_in) == (0, False)
    arena.provisioner.clean(account)
    assert arena.provisioner.observe(account).gone


def test_what_was_never_opened_is_gone_and_can_be_ended(arena: Arena) -> None:
    account = Account(grant_id=77, account="dbgf_77", traces=[])
    arena.provisioner.cut(account)
    arena.provisioner.clean(account)
    assert arena.provisioner.observe(account).gone


def test_every_verb_may_be_repeated(arena: Arena) -> None:
    fence, wanted = NotedFence(), order(arena)
    arena.provisioner.open(wanted, fence)
    arena.provisioner.open(order(arena, known=fence.undo, grant=wanted.grant_id), fence)
    account = account_of(wanted, fence)
    for verb in (arena.provisioner.cut, arena.provisioner.clean):
        verb(account)
        verb(account)
    assert arena.provisioner.observe(account).gone


def test_the_fence_comes_before_anything_lasts(arena: Arena) -> None:
    fence, wanted = NotedFence(), order(arena)

    def refuse() -> None:
        with pytest.raises(PermissionError):
            arena.sign_in(wanted.account)
        raise Fenced

    fence.before = refuse
    with pytest.raises(Fenced):
        arena.provisioner.open(wanted, fence)
    with pytest.raises(PermissionError):
        arena.sign_in(wanted.account)


def test_an_opener_overtaken_by_a_cut_keeps_nothing(arena: Arena) -> None:
    fence, wanted = NotedFence(), order(arena)
    fence.before = lambda: arena.provisioner.cut(account_of(wanted, fence))
    with pytest.raises(ProvisionError):
        arena.provisioner.open(wanted, fence)
    assert arena.provisioner.observe(account_of(wanted, fence)).gone
    with pytest.raises(PermissionError):
        arena.sign_in(wanted.account)


def test_a_changed_level_is_not_opened(arena: Arena) -> None:
    wanted = order(arena)
    arena.drift()
    with pytest.raises(ProvisionError) as caught:
        arena.provisioner.open(wanted, NotedFence())
    assert (caught.value.code, caught.value.permanent) == ("scope_changed", True)


def test_a_strangers_account_is_neither_taken_nor_ended(arena: Arena) -> None:
    wanted = order(arena)
    arena.strangers_account(wanted.account)
    with pytest.raises(ProvisionError) as caught:
        arena.provisioner.open(wanted, NotedFence())
    assert (caught.value.code, caught.value.permanent) == ("name_taken", True)
    account = Account(grant_id=wanted.grant_id, account=wanted.account, traces=[])
    session = arena.sign_in(wanted.account)
    arena.provisioner.cut(account)
    arena.provisioner.clean(account)
    assert arena.is_in(session)


def test_a_survey_lists_what_bears_our_names_by_trace_and_mark(arena: Arena) -> None:
    fence, wanted = NotedFence(), replace(order(arena), stamp="debugflow mine")
    until = arena.provisioner.open(wanted, fence).valid_until
    arena.strangers_account("dbgf_8999")
    known = Known(
        grant_id=wanted.grant_id,
        account=wanted.account,
        traces=fence.undo,
        rights=arena.rights,
        valid_until=until,
    )
    session = arena.sign_in(wanted.account)
    seen = arena.provisioner.survey([known], levels=[arena.rights], stamp="debugflow mine")
    ours, theirs = sorted(seen.accounts, key=lambda one: one.account != wanted.account)
    assert (ours.account, theirs.account) == (wanted.account, "dbgf_8999")
    assert ours.trace.items() <= fence.undo[-1].items()
    assert not theirs.trace.items() <= fence.undo[-1].items()
    assert (ours.stamp, theirs.stamp) == ("debugflow mine", "")
    assert (ours.can_sign_in, ours.sessions, ours.differences) == (True, 1, ())
    assert arena.is_in(session)
    account = account_of(wanted, fence)
    arena.provisioner.cut(account)
    cut = arena.provisioner.survey([], levels=[], stamp="")
    assert [one.can_sign_in for one in cut.accounts if one.trace == ours.trace] == [False]
    arena.provisioner.clean(account)
    left = arena.provisioner.survey([known], levels=[], stamp="").accounts
    assert [one.account for one in left] == ["dbgf_8999"]


def test_sessions_from_elsewhere_are_ended_and_told(arena: Arena) -> None:
    account = opened(arena)
    session = arena.sign_in(account.account)
    assert arena.provisioner.end_elsewhere([account], ["192.0.2.0/24", "127.0.0.0/8"]) == []
    assert arena.is_in(session)
    (ended,) = arena.provisioner.end_elsewhere([account], ["192.0.2.0/24"])
    assert (ended.account, ended.address) == (account.account, "127.0.0.1")
    assert not arena.is_in(session)
    assert arena.provisioner.end_elsewhere([account], []) == []


def longer(arena: Arena, account: Account, seconds: float) -> ExtendOrder:
    """To the end that many seconds from now; of a kind that can be extended in place."""
    if not arena.provisioner.supports_extend:
        pytest.skip("this kind extends by opening anew")
    return ExtendOrder(
        account=account,
        rights=arena.rights,
        summary=arena.provisioner.summarise(arena.rights),
        valid_until=datetime.now(UTC) + timedelta(seconds=seconds),
    )


def test_the_expiry_is_kept_and_moved(arena: Arena) -> None:
    """The same account with the same password, and whoever is in stays in."""
    account = opened(arena)
    session = arena.sign_in(account.account)
    arena.provisioner.extend(longer(arena, account, -1), NotedFence())
    with pytest.raises(PermissionError):
        arena.sign_in(account.account)
    order = longer(arena, account, 300)
    for _ in range(2):
        fence = NotedFence()
        arena.provisioner.extend(order, fence)
        assert fence.undo == [{"valid_until": order.valid_until.isoformat()}]
    assert arena.is_in(arena.sign_in(account.account))
    assert arena.is_in(session)
    arena.provisioner.cut(account)
    assert not arena.is_in(session)


def test_an_overtaken_extension_changes_nothing(arena: Arena) -> None:
    account = opened(arena)

    def overtaken() -> None:
        raise Fenced

    with pytest.raises(Fenced):
        arena.provisioner.extend(longer(arena, account, -1), NotedFence(before=overtaken))
    assert arena.is_in(arena.sign_in(account.account))


def test_a_cut_ends_an_extension_under_way(arena: Arena) -> None:
    account = opened(arena)
    fence = NotedFence(before=lambda: arena.provisioner.cut(account))
    with pytest.raises(ProvisionError):
        arena.provisioner.extend(longer(arena, account, 300), fence)
    assert not arena.provisioner.observe(account).can_sign_in


def test_another_level_is_not_extended(arena: Arena) -> None:
    account = opened(arena)
    order = longer(arena, account, 300)
    arena.drift()
    with pytest.raises(ProvisionError) as caught:
        arena.provisioner.extend(order, NotedFence())
    assert (caught.value.code, caught.value.permanent) == ("scope_changed", True)


def test_what_is_gone_is_not_extended(arena: Arena) -> None:
    account = opened(arena)
    order = longer(arena, account, 300)
    arena.provisioner.cut(account)
    arena.provisioner.clean(account)
    with pytest.raises(ProvisionError) as caught:
        arena.provisioner.extend(order, NotedFence())
    assert (caught.value.code, caught.value.permanent) == ("gone", True)


def test_nonsense_is_refused(arena: Arena) -> None:
    with pytest.raises(Invalid):
        arena.provisioner.summarise({"nonsense": 1})
    with pytest.raises(Invalid):
        type(arena.provisioner)({"nonsense": 1}, {})


def test_secrets_do_not_show(arena: Arena) -> None:
    kind, config = type(arena.provisioner), arena.provisioner.config.model_dump()
    canary = kind(config, dict.fromkeys(kind.secrets, "canary-secret"))
    shown = f"{canary!r} {kind.address(config)} {kind.prepare_sql(config, [arena.rights])}"
    assert "canary-secret" not in shown
    assert "canary-secret" not in "".join(f"{one}" for one in canary.test())
