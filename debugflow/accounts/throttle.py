"""How often a password or a token may be tried, counted in the database, for all processes.

Each try takes a slot *before* its password is looked at, in one statement, so that tries at once
get no more slots than there are; a right password gives its slots back. Slots come back one by one
with time, and a try without a slot costs none: nobody is locked out for longer than that.

Tries at one account from all browsers that never signed in to it share that account's slots, so
whoever uses them up keeps such browsers out. A browser that did sign in (`browsers`) has slots of
its own, and the right person goes on signing in from there.

A token is looked up first, so that one that counts is never kept out by others that do not, from
whatever address they come; only tokens that nobody has take slots. What keeps one from being
guessed is its 256 random bits; this bounds what guessing costs us, and has somebody told of it.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

from django.db import connection, transaction
from django.utils.crypto import salted_hmac

from approvals.errors import DebugflowError
from approvals.lengths import lasting
from audit import context, log
from audit.actions import declare
from audit.log import ANONYMOUS, Subject

declare("account.sign_in_throttled", "token.tries_throttled")

NAME_LENGTH: Final = 150  # characters of a typed name that an Event keeps
PURGED: Final = 20  # counters that nobody needs any more, deleted with each try
IPV6_NETWORK: Final = 64  # bits: one customer's, who has all addresses below it

Parameters = dict[str, str | int]

TAKE: Final = """
INSERT INTO accounts_signinlimit AS have (key, free_at, told)
VALUES (%(key)s, dbnow() + %(pause)s * interval '1 s', false)
ON CONFLICT (key) DO UPDATE
   SET free_at = greatest(have.free_at, dbnow()) + %(pause)s * interval '1 s', told = false
 WHERE have.free_at <= dbnow() + %(span)s * interval '1 s'
RETURNING key
"""
WAIT: Final = """
SELECT extract(epoch FROM free_at - dbnow())::float8 - %(span)s
  FROM accounts_signinlimit WHERE key = %(key)s
"""
TELL: Final = "UPDATE accounts_signinlimit SET told = true WHERE key = %(key)s AND NOT told"
GIVE_BACK: Final = """
UPDATE accounts_signinlimit SET free_at = free_at - %(pause)s * interval '1 s'
 WHERE key = %(key)s
"""
PURGE: Final = """
DELETE FROM accounts_signinlimit WHERE key IN (
  SELECT key FROM accounts_signinlimit WHERE free_at <= (SELECT dbnow())
   ORDER BY free_at LIMIT %(most)s FOR UPDATE SKIP LOCKED)
"""


class TooManyTries(DebugflowError):
    """Too many wrong passwords were tried."""

    default_code = "too_many_tries"
    status = 429
    advice = (
        "Too many wrong passwords were tried. Try again in {wait}, or in a browser that you have "
        "signed in with before."
    )

    def __init__(self, wait: int) -> None:
        """`wait` is in seconds, and becomes the header Retry-After."""
        self.wait = wait
        super().__init__(self.advice.format(wait=lasting(wait)))


class TooManyTokens(TooManyTries):
    """Too many tokens were tried that nobody has."""

    advice = (
        "Too many tokens were tried that nobody has. Check that yours is whole; this is said of "
        "any such token for {wait} more."
    )


@dataclass(frozen=True)
class Limit:
    """`slots` tries in a row, then one more every `pause` seconds."""

    name: str
    slots: int
    pause: int


ADDRESS: Final = Limit("address", slots=50, pause=15)
ACCOUNT: Final = Limit("account", slots=10, pause=180)
BROWSER: Final = Limit("browser", slots=10, pause=60)
TOKEN: Final = Limit("token", slots=50, pause=60)


@dataclass(frozen=True)
class Slot:
    """One try that counts in one counter."""

    limit: Limit
    key: str

    @property
    def parameters(self) -> Parameters:
        pause = self.limit.pause
        return {"key": self.key, "pause": pause, "span": pause * (self.limit.slots - 1)}


def account_key(name: str) -> str:
    """One key for all spellings of a name: another case or width is no fresh counter."""
    same = unicodedata.normalize("NFKC", name).strip().casefold()
    return _hashed("account", same.encode("utf-8", "surrogatepass").hex())


def take(name: str, *, browser: str = "") -> list[Slot]:
    """Slots for one try at the account called `name`. Raises TooManyTries, once with an Event.

    `browser` is what `browsers` knows it by, if it has signed in to this account before.
    """
    _run(PURGE, {"most": PURGED})
    taken: list[Slot] = []
    for slot in _slots(name, browser):
        if not _run(TAKE, slot.parameters):
            give_back(taken)
            raise TooManyTries(_refused(slot, "account.sign_in_throttled", subject=_named(name)))
        taken.append(slot)
    return taken


def take_for_token() -> None:
    """A slot for one more token that nobody has. Raises TooManyTokens, once with an Event.

    Where the server knows no address none is counted.
    """
    network = _network(context.current().address)
    if not network:
        return
    _run(PURGE, {"most": PURGED})
    slot = Slot(TOKEN, _hashed("token", network))
    if not _run(TAKE, slot.parameters):
        nobodys = Subject("apitoken", "", "tokens that nobody has", "sign-in")
        raise TooManyTokens(_refused(slot, "token.tries_throttled", subject=nobodys))


def give_back(slots: list[Slot]) -> None:
    """After a right password: only wrong ones count."""
    for slot in slots:
        _run(GIVE_BACK, slot.parameters)


def _slots(name: str, browser: str) -> list[Slot]:
    account = account_key(name)
    if browser:
        return [Slot(BROWSER, _hashed("browser", f"{account}:{browser}"))]
    slots = [Slot(ACCOUNT, account)]
    if network := _network(context.current().address):
        slots.insert(0, Slot(ADDRESS, _hashed("address", network)))
    return slots


def _network(address: str) -> str:
    if not address:
        return ""
    bits = IPV6_NETWORK if ip_address(address).version == 6 else 32
    return str(ip_network(f"{address}/{bits}", strict=False))


def _hashed(kind: str, text: str) -> str:
    return salted_hmac(f"debugflow.sign-in.{kind}", text, algorithm="sha256").hexdigest()


def _run(statement: str, parameters: Parameters) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


def _named(name: str) -> Subject:
    return Subject("user", "", name[:NAME_LENGTH].replace("\x00", ""), "sign-in")


@transaction.atomic
def _refused(slot: Slot, action: str, *, subject: Subject) -> int:
    """How many seconds to wait for this slot.

    Its Event is written once until a slot is free: a flood must not fill the log.
    """
    with connection.cursor() as cursor:
        cursor.execute(WAIT, slot.parameters)
        row = cursor.fetchone()
    wait = max(1, math.ceil(row[0])) if row else 1
    if _run(TELL, slot.parameters):
        log.record(action, actor=ANONYMOUS, subject=subject, limit=slot.limit.name, wait=wait)
    return wait
