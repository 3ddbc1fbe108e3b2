"""Asking, as it is typed: chips, the free field, the viewer's own zone."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from approvals.forms import AskForm

HOUR = 3600


def form(limit: int = 4 * HOUR, zone: str = "Europe/Berlin", **typed: str) -> AskForm:
    data = {"duration": str(HOUR), "reason": "Orders hang.", **typed} if typed else None
    return AskForm(data, limit=limit, zone=ZoneInfo(zone), auto_id="ask-%s")


def test_chips_end_at_the_limit():
    assert [label for _, label in form(limit=HOUR).choices] == ["15 min", "1 h", "other"]
    assert [label for _, label in form(limit=8 * HOUR).choices][-2:] == ["4 h", "other"]


def test_a_limit_below_every_chip_is_a_chip_itself():
    tiny = form(limit=300)
    assert [label for _, label in tiny.choices] == ["5 min", "other"]
    assert tiny.initial["duration"] == "300"


def test_the_free_field_counts_minutes_and_belongs_to_the_last_chip():
    asked = form(duration="other", minutes="90")
    assert asked.is_valid()
    assert asked.wish().duration == 5400
    assert f'id="{asked.other_id}"' in str(asked["duration"])


@pytest.mark.parametrize("minutes", ["", "0", "-5", "abc", "9" * 30, "1.5"])
def test_other_without_a_usable_number_is_an_error_at_that_field(minutes):
    asked = form(duration="other", minutes=minutes)
    assert not asked.is_valid()
    assert list(asked.errors) == ["minutes"]


@pytest.mark.parametrize("duration", ["", "1", "999999", "<script>"])
def test_only_the_chips_shown_can_be_chosen(duration):
    assert "duration" in form(duration=duration).errors


def test_a_start_is_read_on_the_viewers_clock():
    asked = form(starts_at="2030-07-01T09:00")
    assert asked.is_valid(), asked.errors
    assert asked.wish().starts_at == datetime(2030, 7, 1, 7, 0, tzinfo=UTC)


def test_a_wall_clock_that_never_comes_is_refused():
    # In Berlin the clocks jump from 02:00 to 03:00 on this day.
    assert "starts_at" in form(starts_at="2030-03-31T02:30").errors


def test_a_preview_looks_past_what_is_not_typed_yet():
    empty = form().wish_so_far()
    assert (empty.duration, bool(empty.reason), empty.starts_at) == (HOUR, True, None)

    half = form(duration="other", minutes="", reason="")
    half.is_valid()
    assert half.wish_so_far().duration == 900


def test_a_refusal_of_the_verb_shows_at_the_field_that_was_typed_in():
    asked = form(duration="other", minutes="600")
    assert asked.is_valid()
    asked.take_errors({"duration": ["Too long."], "ticket": ["Needed."]}, "Not so.")
    assert asked.errors == {"minutes": ["Too long."], "ticket": ["Needed."]}


def test_a_refusal_of_no_field_shows_above_the_form():
    asked = form(duration="900")
    assert asked.is_valid()
    asked.take_errors({}, "No policy governs this.")
    assert asked.non_field_errors() == ["No policy governs this."]
