"""What every kind of target can do, and the plain values that go in and come out.

Nothing here knows a database model, a task queue or the audit log: the control plane reaches in
through `Fence` only. Registering kinds lives in the package's `__init__`.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from approvals.errors import Invalid

M = TypeVar("M", bound=BaseModel)

STAMP = "debugflow "
"""What the stamp that is left on every account begins with; the installation's own key follows."""


@dataclass(frozen=True, kw_only=True)
class OpenOrder:
    """What `open` must make true. `duration` is in seconds; `known` is earlier attempts' undo."""

    grant_id: int
    account: str
    rights: Mapping[str, Any]
    summary: Sequence[str]
    password: str
    duration: int
    known: Sequence[Mapping[str, Any]] = ()
    stamp: str = ""
    """Whose the account is, to be left on it: installations that share a target tell by it."""

    def __repr__(self) -> str:
        return f"OpenOrder(grant_id={self.grant_id}, account={self.account!r})"


class Fence(Protocol):
    """The control plane's side of the fence."""

    def now(self) -> datetime:
        """Return the control database's time, with its zone."""
        ...

    def hold(self, undo: Mapping[str, Any]) -> None:
        """Re-read state and lease under their lock and store `undo`, committed, or raise `Fenced`.

        Called inside the target's transaction as the last act before its COMMIT.
        """
        ...


class JointFence(Protocol):
    """The same for many at once."""

    def now(self) -> datetime:
        """Return the control database's time, with its zone."""
        ...

    def hold_many(self, undos: Mapping[int, Mapping[str, Any]]) -> None:
        """Do what `Fence.hold` does for each of these grants in one transaction: all or none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An access that is usable. `connection` is what its holder needs to connect: no secret."""

    valid_until: datetime
    connection: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Account:
    """The account of one grant. `traces` is the undo data of every attempt, failed ones too."""

    grant_id: int
    account: str
    traces: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ExtendOrder:
    """What `extend` must make true. `rights` and `summary` are those that were approved."""

    account: Account
    rights: Mapping[str, Any]
    summary: Sequence[str]
    valid_until: datetime


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What was read back from the target."""

    sessions: int
    can_sign_in: bool
    leftovers: tuple[str, ...]

    @property
    def gone(self) -> bool:
        """Whether nothing at all is left of the account."""
        return not (self.sessions or self.can_sign_in or self.leftovers)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Names, the first of them, and how many there were."""

    names: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What one attempt at a clean-up did to things that the account's holder had made."""

    quarantined: Sample = Sample()
    """They belong to a role that nobody can use."""
    disarmed: Sample = Sample()
    """Code that ran as its owner, and now runs as whoever calls it."""
    dropped: Sample = Sample()
    """They could belong to nobody else."""

    def __bool__(self) -> bool:
        return bool(self.quarantined.count or self.disarmed.count or self.dropped.count)


@dataclass(frozen=True, kw_only=True)
class Known:
    """The account of a live grant, as a survey compares it with what is there."""

    grant_id: int
    account: str
    traces: Sequence[Mapping[str, Any]]
    rights: Mapping[str, Any]
    valid_until: datetime


@dataclass(frozen=True, kw_only=True)
class Found:
    """An account on the target that bears a name of ours, or once was a known grant's.

    The undo data of the attempt that made it holds every item of `trace`. `differences` are, in
    words, what is not as that attempt left it; empty for an account that is no known grant's.
    """

    account: str
    trace: Mapping[str, Any]
    stamp: str = ""
    can_sign_in: bool
    sessions: int
    removable: bool
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a target holds of ours. `findings` are, in words, what is wrong beside the accounts."""

    accounts: tuple[Found, ...]
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One session that was ended because of where it came from; no address means the host itself.

    `number` and `began_at` tell it from every other session of the target.
    """

    account: str
    address: str
    number: int
    began_at: datetime


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of "test connection": what was looked at, and if it is wrong, how to mend it."""

    ok: bool
    what: str
    fix: str = ""


class Provisioner(abc.ABC):
    """Opens and takes away access on one target.

    Every verb is idempotent and may be repeated after a crash at any instruction. A verb returns
    when what it says is true on the target; otherwise it raises `ProvisionError`.
    """

    kind: ClassVar[str]
    label: ClassVar[str]
    Config: ClassVar[type[BaseModel]]
    Rights: ClassVar[type[BaseModel]]
    secrets: ClassVar[tuple[str, ...]]
    """Names of secrets; they are never rendered, logged or put into an event."""
    address_fields: ClassVar[tuple[str, ...]]
    """Fields of `Config` whose change makes it another target, so that the secret is cleared."""
    revocation_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of `Config` besides `address_fields` that ending an access needs as they were."""
    supports_extend: ClassVar[bool] = False
    rehearsal: ClassVar[bool] = False
    """A kind without a real system behind it: known by name, offered in no form."""

    def __init__(
        self, config: Mapping[str, Any], secrets: Mapping[str, str], trust_anchor: str = ""
    ) -> None:
        """Raise `Invalid` when the configuration is not one of this kind."""
        self.config = parsed(self.Config, config)
        self.secret_values = dict(secrets)
        self.trust_anchor = trust_anchor

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address(self.config.model_dump())}>"

    @classmethod
    def in_words(cls, summary: Sequence[str]) -> str:
        """What the lines of a level's summary come to, in one sentence; empty for no opinion."""
        return ""

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Let the verbs called inside, on this object and by one caller, share connections."""
        yield

    @abc.abstractmethod
    def open(self, order: OpenOrder, fence: Fence) -> Opened:
        """Make the account exist with exactly the frozen rights, or leave nothing behind.

        `ProvisionError` codes: `scope_changed` (the level is not what was approved) and
        `name_taken` (an account of that name is not ours), both permanent. `Fenced` passes
        through after the roll-back.
        """

    def open_many(self, orders: Sequence[OpenOrder], fence: JointFence) -> Mapping[int, Opened]:
        """Do for many grants what `open` does, all or none; return those that are usable, by grant.

        The others, of which nothing was left, are for `open`, which tells what is wrong with each.
        `Fenced` passes through after the roll-back, though only one of them was overtaken.
        """
        return {}

    @abc.abstractmethod
    def extend(self, order: ExtendOrder, fence: Fence) -> None:
        """Move the target's own expiry of the account to `valid_until`, and change nothing else.

        The password stays, and sessions go on. What the fence holds is the expiry that it leaves.
        `ProvisionError` codes: `scope_changed` (the level is not what was approved) and `gone`
        (there is no account of ours), both permanent. `Fenced` passes through after the roll-back.
        Until it has returned, the expiry may be the earlier or the later one.
        """

    @abc.abstractmethod
    def cut(self, account: Account) -> None:
        """Block sign-ins, end openers that still run, end sessions; return when all are gone.

        A `ProvisionError` with `alone` true in its details failed soon and at a part of the target
        that others' cuts need not wait for.
        """

    def cut_many(self, accounts: Sequence[Account]) -> frozenset[int]:
        """Cut what can be cut together and soon; return the grants of which that is certain.

        The others are left to `cut`, and no one of them may hold up the rest.
        """
        return frozenset()

    def clean_many(self, accounts: Sequence[Account]) -> frozenset[int]:
        """Remove what can be removed together and soon; return the grants of which the target,
        read back after that, holds nothing. The others are left to `clean` and `observe`."""
        return frozenset()

    @abc.abstractmethod
    def clean(self, account: Account) -> Cleaned:
        """Remove the account and what it left. Expects `cut` to have succeeded.

        A `ProvisionError` may have a `Cleaned` in its details, as `cleaned`: what was done before
        it. With code `clean_unfinished` the attempt got somewhere and had no time for the rest.
        """

    @abc.abstractmethod
    def observe(self, account: Account) -> Observation:
        """Read the target back; the only ground for saying that access has ended."""

    @abc.abstractmethod
    def survey(
        self, known: Sequence[Known], *, levels: Sequence[Mapping[str, Any]], stamp: str
    ) -> Survey:
        """List all accounts that bear our names, and what differs from what `known` ones must be.

        `levels` are the rights of the target's levels. It changes nothing, and asks a number of
        questions that does not grow with the accounts.
        """

    @abc.abstractmethod
    def end_elsewhere(self, accounts: Sequence[Account], networks: Sequence[str]) -> list[Ended]:
        """End every session of these accounts that comes from outside `networks` (CIDR).

        Without any networks every session does. Returns what was ended.
        """

    @abc.abstractmethod
    def summarise(self, rights: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what a holder of `rights` could do now, in sorted readable lines.

        Raises `Invalid` naming every problem when the rights are unsafe to hand out.
        """

    @abc.abstractmethod
    def signs_in(self) -> None:
        """Sign in once as the admin account, with the secrets given; raise `ProvisionError`."""

    @abc.abstractmethod
    def test(self) -> list[Finding]:
        """Try the admin account and say what is missing. Never raises for a failing target."""

    @classmethod
    @abc.abstractmethod
    def prepare_sql(
        cls, config: Mapping[str, Any], levels: Sequence[Mapping[str, Any]], **options: Any
    ) -> str:
        """Return the text an owner of the target runs once before debugflow may use it."""

    @classmethod
    def unverified(cls, config: Mapping[str, Any]) -> str:
        """Return why another system could pass itself off as this target; empty if none could."""
        return ""

    @classmethod
    def hindering(cls, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        """Return the fields besides `address_fields` whose change would hinder ending an access."""
        names = cls.revocation_fields
        return [name for name in names if before.get(name) != after.get(name)]

    @classmethod
    @abc.abstractmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the target's canonical printable address, a part of the frozen scope."""


def parsed(schema: type[M], data: Mapping[str, Any]) -> M:
    """Return `data` as `schema`; raise `Invalid` with one message per field, without values."""
    try:
        return schema.model_validate(dict(data))
    except ValidationError as error:
        raise Invalid(_explained(error)) from None


def _explained(error: ValidationError) -> str:
    """Leave pydantic's echo of the input out: a secret in the wrong field must not be shown."""
    lines = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'all'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)
    ]
    return "; ".join(lines)
