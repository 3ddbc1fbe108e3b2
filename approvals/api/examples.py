"""What the description says of each endpoint, and what is sent and answered there.

Tests hold each example against the description.
"""

from __future__ import annotations

from typing import Any, Final

SUMMARIES: Final = {
    "session_create": "Sign in",
    "session_get": "Who you are, and your CSRF token",
    "session_delete": "Sign out",
    "targets_list": "Targets you may ask for, own or audit",
    "targets_get": "One of them",
    "levels_list": "Levels you may ask for",
    "levels_get": "One of them",
    "requests_list": "Requests you may see",
    "requests_create": "Ask",
    "requests_preview": "What asking would do, without asking",
    "requests_emergency_create": "Open a level without approval, in an emergency",
    "requests_get": "One, with its chain and what you may do",
    "requests_vote": "Approve or deny in the open stage",
    "requests_send_back": "Ask whoever asked to change it",
    "requests_edit": "Ask for something else of the same level",
    "requests_cancel": "Take it back",
    "requests_redraw": "Ask those who are in its groups today",
    "requests_comments_list": "What was said about it, oldest first",
    "requests_comments_create": "Say something about it",
    "requests_events_list": "Its history, oldest first",
    "grants_list": "Accesses you may see",
    "grants_get": "One, with what you may do",
    "grants_reveal": "Show its holder the credential, once",
    "grants_extend_create": "Ask that it goes on for longer",
    "grants_release": "Give it back",
    "grants_revoke": "Take it away",
    "grants_try_again": "Have the next try at closing it made now",
    "grants_abandon": "Ask to give up closing it, which takes two people",
    "reviews_list": "Looks back at access that you may see",
    "reviews_get": "One of them",
    "reviews": "Give it: what you found",
    "delegations_list": "Votes lent, by you and to you; for admins of policies all",
    "delegations_create": "Lend your votes to somebody for a while",
    "delegations_get": "One of them",
    "delegations_end": "End it",
    "proposals_list": "Changes that took a second person, as far as you may see them",
    "proposals_get": "One of them",
    "events_list": "The audit log, newest first",
    "inbox_list": "What you were told, newest first",
    "inbox_read": "Mark some of it as read, or all up to one",
    "tokens_list": "Your tokens; for superusers all",
    "tokens_create": "Make a token, and show it once",
    "tokens_get": "One of them",
    "tokens_delete": "Revoke it",
    "tokens_this_get": "The token that asks",
    "schema_get": "This description",
}

WISH: Final = {"level": 1, "duration": 3600, "reason": "Orders hang since 10:40."}
HASH: Final = "5cef1d6338a5a7d2b1a9c3d6e1f0b7c4a2d95e8f1b3c6d7e9f0a1b2c3d4e5f60"
ALICE: Final = {"id": 3, "username": "alice"}
TARGET: Final = {"id": 1, "name": "orders", "environment": "production"}
LEVEL: Final = {"id": 1, "name": "read-only", "risk": "low"}

REQUEST: Final[dict[str, Any]] = {
    "id": 12,
    "kind": "access",
    "state": "pending",
    "requester": ALICE,
    "beneficiary": ALICE,
    "target": TARGET,
    "level": LEVEL,
    "policy_version": "Production v1",
    "reason": "Orders hang since 10:40.",
    "ticket": "",
    "duration": 3600,
    "starts_at": None,
    "extends": None,
    "scope_hash": HASH,
    "submitted_at": "2030-01-31T10:52:11.204000Z",
    "pending_until": "2030-02-01T10:52:11.204000Z",
    "decided_at": None,
    "decision_note": "",
    "grant": None,
    "scope": {"duration": 3600, "level": {"id": 1, "rights": {}, "summary": ["may read"]}},
    "stages": [
        {
            "order": 0,
            "name": "Database",
            "state": "open",
            "total": 1,
            "groups": {"dba": 1},
            "missing": ["1 of dba"],
            "opened_at": "2030-01-31T10:52:11.204000Z",
            "deadline_at": None,
            "escalated_at": None,
            "stalled_since": None,
            "candidates": ["bob", "dora"],
            "votes": [],
        }
    ],
    "outcome": {"duration": 3600, "level": "read-only", "less": False},
    "lower_levels": [],
    "permitted_actions": ["cancel", "edit"],
    "refused_actions": {
        "approve": {
            "code": "self_approval",
            "message": "Nobody decides about their own access.",
        }
    },
}

LONGER: Final[dict[str, Any]] = {
    **REQUEST,
    "id": 19,
    "kind": "extension",
    "reason": "The index is still being built.",
    "starts_at": "2030-01-31T11:58:02.731000Z",
    "extends": 7,
    "submitted_at": "2030-01-31T11:40:15.530000Z",
    "pending_until": "2030-01-31T11:58:02.731000Z",
}

BOB: Final = {"id": 4, "username": "bob"}
DELEGATION: Final[dict[str, Any]] = {
    "id": 2,
    "person": BOB,
    "delegate": {"id": 5, "username": "dan"},
    "starts_at": "2030-02-01T08:00:00Z",
    "ends_at": "2030-02-15T08:00:00Z",
    "made_by": BOB,
    "made_at": "2030-01-31T10:52:11.204000Z",
    "ended_at": None,
    "note": "On the beach.",
}

PROPOSAL: Final[dict[str, Any]] = {
    "id": 5,
    "change": "level.save",
    "summary": "Change the level read-write on orders",
    "effects": ["read-write on orders: it lasts up to 8 h instead of 4 h."],
    "differences": [["Lasts at most", "4 h", "8 h"]],
    "state": "proposed",
    "proposer": {"id": 1, "username": "ada"},
    "proposed_at": "2030-01-31T10:52:11.204000Z",
    "expires_at": "2030-02-07T10:52:11.204000Z",
    "decided_by": None,
    "decided_at": None,
    "note": "",
}

SENT: Final[dict[str, Any]] = {
    "session_create": {"username": "alice", "password": "…"},
    "requests_create": WISH,
    "requests_preview": WISH,
    "requests_emergency_create": {
        "level": 1,
        "reason": "Payments are down, and nobody answers.",
        "ticket": "INC-7",
        "confirmation": "orders",
        "password": "…",
    },
    "reviews": {
        "outcome": "justified",
        "note": "Read what the incident needed.",
        "end_access": False,
    },
    "requests_vote": {
        "decision": "approve",
        "scope_hash": HASH,
        "comment": "A look will do.",
        "less": {"duration": 1800, "level": 1, "level_hash": HASH},
    },
    "requests_send_back": {"scope_hash": HASH, "comment": "An hour is too long for a look."},
    "requests_edit": {"scope_hash": HASH, "duration": 900, "reason": "Orders hang since 10:40."},
    "requests_comments_create": {"comment": "Which replica, @bob?"},
    "grants_extend_create": {"duration": 3600, "reason": "The index is still being built."},
    "delegations_create": {
        "delegate": "dan",
        "starts_at": "2030-02-01T08:00:00Z",
        "ends_at": "2030-02-15T08:00:00Z",
        "note": "On the beach.",
    },
    "inbox_read": {"until": 418},
    "grants_revoke": {"reason": "The incident is over."},
    "grants_abandon": {"reason": "The server was scrapped."},
    "tokens_create": {"name": "nightly report", "scopes": ["read"], "days": 90},
}
ANSWERED: Final[dict[str, Any]] = {
    "requests_create": REQUEST,
    "requests_get": REQUEST,
    "requests_redraw": {**REQUEST, "permitted_actions": ["redraw"]},
    "requests_cancel": {**REQUEST, "state": "cancelled", "permitted_actions": []},
    "requests_comments_create": {
        "id": 91,
        "at": "2030-01-31T10:53:40.118000Z",
        "author": ALICE,
        "comment": "Which replica, @bob?",
        "mentions": ["bob"],
        "unseen": [],
    },
    "grants_extend_create": LONGER,
    "delegations_create": DELEGATION,
    "delegations_get": DELEGATION,
    "proposals_get": PROPOSAL,
    "delegations_end": {**DELEGATION, "ended_at": "2030-02-03T09:12:00.118000Z"},
    "inbox_list": {
        "next": None,
        "previous": None,
        "results": [
            {
                "id": 418,
                "fact": "asked",
                "at": "2030-01-31T10:52:11.204000Z",
                "urgent": True,
                "thread": "request:12",
                "text": "alice asks for read-only on orders for 1 h",
                "quote": "Orders hang since 10:40.",
                "next_step": "Approve or deny it in “Database”, by 1 Feb 10:52 UTC.",
                "link": "/requests/12/",
                "read_at": None,
            }
        ],
        "unread": 1,
    },
    "inbox_read": {"read": 1, "unread": 0},
    "grants_reveal": {
        "connection": {"host": "db.example.com", "port": 5432, "user": "dbgf_7"},
        "password": "shown once",
    },
    "tokens_create": {
        "id": 4,
        "kind": "personal",
        "name": "nightly report",
        "hint": "dbf_3kQx",
        "account": ALICE,
        "made_by": ALICE,
        "scopes": ["read"],
        "made_at": "2030-01-31T10:52:11.204000Z",
        "expires_at": "2030-05-01T10:52:11.204000Z",
        "last_used_at": None,
        "revoked_at": None,
        "token": "dbf_…",
    },
}
