"""Every action that is declared is told as a sentence of its own."""

from __future__ import annotations

from datetime import timedelta

import pytest

from approvals.lengths import apart, lasting
from approvals.sentences import REASONS, TELLERS, event_sentence
from audit.actions import declared
from audit.models import Event

# But for those that other tests declare.
ACTIONS = sorted(name for name in declared() if not name.startswith("story."))


def told(action: str, **data: object) -> str:
    return event_sentence(
        Event(action=action, actor_name="bob", subject_label="read-only on orders", data=data)
    )


def test_each_declared_action_has_a_teller_and_no_other_has():
    assert set(TELLERS) == set(ACTIONS)


@pytest.mark.parametrize("action", ACTIONS)
def test_an_event_without_any_data_is_still_a_sentence(action):
    sentence = told(action)
    assert sentence.startswith("bob ")
    assert sentence.endswith(".")
    assert action not in sentence
    assert "None" not in sentence


def test_sentences_tell_apart_what_happened():
    assert len({told(action) for action in ACTIONS}) == len(ACTIONS)


@pytest.mark.parametrize(
    ("action", "data", "sentence"),
    [
        ("vote.cast", {"decision": "deny", "stage": "Database"}, "bob denied in “Database”."),
        (
            "vote.replaced",
            {"before": "approve", "decision": "deny", "stage": "Database"},
            "bob changed their vote in “Database” from approved to denied.",
        ),
        (
            "vote.voided",
            {"voter": "dan", "reason": "left"},
            "bob made the vote of dan void: its author had left.",
        ),
        (
            "vote.voided",
            {"voter": "dan", "reason": "scope_changed"},
            "bob made the vote of dan void: what it was for has changed.",
        ),
        (
            "vote.refused",
            {"code": "self_approval"},
            "bob tried to vote and was refused: nobody decides about themselves.",
        ),
        (
            "grant.cut",
            {"late_ms": 312},
            "bob cut the access off 0.3 s after its end: no session, no sign-in.",
        ),
        (
            "grant.attempt_failed",
            {"step": "cut", "attempt": 7, "error": "It did not answer."},
            "bob failed at cutting it off, attempt 7: It did not answer.",
        ),
        (
            "grant.revoking",
            {"reason": "revoked", "note": "Over."},
            "bob began to close the access, revoked: “Over”.",
        ),
    ],
)
def test_what_the_data_says_is_in_the_sentence(action, data, sentence):
    assert told(action, **data) == sentence


def test_an_unknown_reason_code_is_shown_as_it_is():
    assert "brand_new" not in REASONS
    assert "brand_new" in told("vote.refused", code="brand_new")


def test_an_action_of_another_package_is_shown_by_its_name():
    assert told("session.started") == "bob did “session.started”."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (45, "45 s"),
        (900, "15 min"),
        (3600, "1 h"),
        (5400, "90 min"),
        (7200, "2 h"),
        (9000, "2 h 30 min"),
        (3661, "1 h 1 min 1 s"),
        (86400, "24 h"),
        (3 * 86400, "3 days"),
    ],
)
def test_lengths_are_exact(seconds, words):
    assert lasting(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a moment"),
        (-44, "a moment"),
        (46, "1 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (2 * 86400, "2 days"),
    ],
)
def test_distances_are_round(seconds, words):
    assert apart(timedelta(seconds=seconds)) == words
