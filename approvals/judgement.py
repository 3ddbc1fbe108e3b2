"""What follows from a survey of one target: what to remove, what to end, what to tell, what to ask.

Pure: plain values in, plain values out, no database and no clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from approvals.provisioning.base import Found, Known, Survey
from approvals.states import GrantState

GRACE = timedelta(seconds=120)
"""How long an account that the ledger does not know is only watched: whoever made it may be about
to find out that its name was ours."""
LEAST = 3
"""So many may always be ended at once,"""
SHARE = 0.2
"""or this share of what is there. More looks like a restored backup or a wrong address."""
FINDINGS_MOST = 100
FINDING_MAX = 300  # characters


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One grant as the ledger has it, read after the survey.

    `before` is what the survey compared its account with: set only if it was active before the
    survey began, and is so still, unchanged and with its end to come.
    """

    grant_id: int
    account: str
    state: str
    ended_at: datetime | None
    traces: Sequence[Mapping[str, Any]]
    before: Known | None = None


@dataclass(frozen=True, kw_only=True)
class Lost:
    """An active grant whose account cannot be used any more, through no doing of ours."""

    grant_id: int
    account: str
    why: str

    @property
    def key(self) -> str:
        return f"{self.account}:gone"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """`unknown` maps each account that no grant knows to the moment it was first seen, as text."""

    strays: tuple[Found, ...]
    lost: tuple[Lost, ...]
    unknown: Mapping[str, str]
    findings: tuple[str, ...]
    seen: int
    active: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done now, and what waits until somebody allows it."""

    strays: tuple[Found, ...] = ()
    lost: tuple[Lost, ...] = ()
    held: tuple[str, ...] = ()


def key_of(found: Found) -> str:
    """An account's name and trace: the same name for another account has another key."""
    return ":".join([found.account, *(str(found.trace[name]) for name in sorted(found.trace))])


def judge(
    survey: Survey,
    entries: Sequence[Entry],
    *,
    began: datetime,
    now: datetime,
    stamp: str,
    unknown: Mapping[str, str],
) -> Judged:
    """Compare what is there with the ledger.

    An opener stores its trace before it commits on the target, and the ledger is read after the
    survey, so what is in no trace is nobody's. A grant that ended after the survey `began` may
    have had its account then: that is no finding. `unknown` is that of the last judgement.
    """
    owners = _owners(survey.accounts, entries)
    notes = _Notes(began, now, stamp, unknown, findings=list(survey.findings))
    for found in survey.accounts:
        notes.take(found, owners.get(key_of(found)))
    own = _own(survey.accounts, owners)
    lost = tuple(one for entry in entries if (one := _lost(entry, own.get(entry.grant_id, []))))
    notes.findings += [f"{one.account} is useless to its holder: {one.why}" for one in lost]
    return Judged(
        strays=tuple(notes.strays),
        lost=lost,
        unknown=notes.unknown,
        findings=_told(notes.findings),
        seen=sum(not _is_foreign(found, stamp) for found in survey.accounts),
        active=sum(entry.before is not None for entry in entries),
    )


@dataclass
class _Notes:
    """What a judgement gathers while it goes through the accounts."""

    began: datetime
    now: datetime
    stamp: str
    seen_before: Mapping[str, str]
    strays: list[Found] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def take(self, found: Found, owner: Entry | None) -> None:
        """Note what is to be said of one account, and whether it is to be removed by now."""
        if owner is not None and owner.state != GrantState.ENDED:
            if owner.before is not None:
                self.findings += [f"{owner.account} {words}" for words in found.differences]
        elif owner is None or (owner.ended_at and owner.ended_at <= self.began):
            self._take_stray(found, owner)

    def _take_stray(self, found: Found, owner: Entry | None) -> None:
        """It is nobody's, or that of a grant which has ended."""
        key = key_of(found)
        if _is_foreign(found, self.stamp):
            self.findings.append(f"{key} bears another's mark and is left alone: {found.stamp}")
            return
        due = owner is not None or self._was_seen_long_enough(key)
        if not found.removable:
            fate = "; the admin account may not remove it: drop it there"
        else:
            fate = f"; it is removed once seen for {GRACE.seconds} s" if owner is None else ""
            self.strays += [found] if due else []
        self.findings.append(f"{key} {_whose(owner)}{fate}")

    def _was_seen_long_enough(self, key: str) -> bool:
        """Whether to wait no longer with an account that no grant knows; remembers since when."""
        first = self.unknown[key] = self.seen_before.get(key, self.now.isoformat())
        return self.now - datetime.fromisoformat(first) >= GRACE


def _whose(owner: Entry | None) -> str:
    if owner is None:
        return "is not in the ledger"
    return f"is the account of grant {owner.grant_id}, which has ended"


def _owners(accounts: Sequence[Found], entries: Sequence[Entry]) -> dict[str, Entry]:
    """By key, the grant with an attempt whose undo data holds the account's trace."""
    shapes = {tuple(sorted(found.trace)) for found in accounts}
    index = {
        tuple((name, trace[name]) for name in shape): entry
        for entry in entries
        for trace in entry.traces
        for shape in shapes
        if trace.keys() >= set(shape)
    }
    found_in = {key_of(one): index.get(tuple(sorted(one.trace.items()))) for one in accounts}
    return {key: entry for key, entry in found_in.items() if entry is not None}


def _is_foreign(found: Found, stamp: str) -> bool:
    """Whether somebody else left a mark on it. Without any, it counts by its name: ours."""
    return found.stamp not in ("", stamp)


def _own(accounts: Sequence[Found], owners: Mapping[str, Entry]) -> Mapping[int, list[Found]]:
    """By grant, its accounts."""
    own: dict[int, list[Found]] = defaultdict(list)
    for found in accounts:
        if owner := owners.get(key_of(found)):
            own[owner.grant_id].append(found)
    return own


def _lost(entry: Entry, own: Sequence[Found]) -> Lost | None:
    """Whether a grant's holder has nothing to sign in with, and why. `own` are its accounts.

    An account that was renamed is not lost: ending the grant would end whoever has it now.
    """
    if entry.before is None:
        return None
    if not own:
        why = "its account is not on the target any more."
    elif any(one.can_sign_in or one.account != entry.account for one in own):
        return None
    else:
        why = "somebody on the target closed its account to sign-ins."
    return Lost(grant_id=entry.grant_id, account=entry.account, why=why)


def _told(findings: Sequence[str]) -> tuple[str, ...]:
    """Findings fit to be stored and shown: a target's own words are a stranger's."""
    lines = sorted({_line(finding) for finding in findings})
    if len(lines) <= FINDINGS_MOST:
        return tuple(lines)
    return (*lines[:FINDINGS_MOST], f"… and {len(lines) - FINDINGS_MOST} more")


def _line(text: str) -> str:
    line = "".join(character if character.isprintable() else "␀" for character in text)
    return line if len(line) <= FINDING_MAX else line[: FINDING_MAX - 1] + "…"


def plan(judged: Judged, *, allowed: Sequence[str], moved: bool) -> Plan:
    """Choose what is done now: what was allowed and nothing else, or what is not too much.

    `moved`: the ledger's database was restored elsewhere and may know too little, so all waits.
    """
    keys = [key_of(one) for one in judged.strays] + [one.key for one in judged.lost]
    if moved:
        return Plan(held=tuple(sorted(keys)))
    wanted = set(keys) & set(allowed)
    strays = tuple(one for one in judged.strays if not wanted or key_of(one) in wanted)
    lost = tuple(one for one in judged.lost if not wanted or one.key in wanted)
    if wanted:
        return Plan(strays=strays, lost=lost)
    few_strays = _is_few(len(strays), judged.seen)
    few_lost = _is_few(len(lost), judged.active)
    held = [] if few_strays else [key_of(one) for one in strays]
    held += [] if few_lost else [one.key for one in lost]
    return Plan(
        strays=strays if few_strays else (),
        lost=lost if few_lost else (),
        held=tuple(sorted(held)),
    )


def _is_few(count: int, there: int) -> bool:
    return count <= max(LEAST, SHARE * there)
