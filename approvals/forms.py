"""What people type into pages, parsed. Whether it may be done is the verbs' business."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.http import QueryDict
from django.utils import timezone

from approvals.errors import Invalid
from approvals.lengths import lasting
from approvals.models import Decision
from approvals.narrowing import Less
from approvals.wishes import REASON_MAX, Wish

CHIPS = (900, 3600, 4 * 3600)  # seconds; what is asked for most, and one free field beside them
LESS_CHIPS = (300, 900, 1800, 3600, 2 * 3600, 4 * 3600)  # seconds
OTHER = "other"
PLACEHOLDER = "…"  # stands for what is not typed yet, so that a preview looks past it
AT_ONCE = 50  # requests that are decided at once: what one page of the queue shows
ID = re.compile(r"[0-9]{1,18}")
DAMAGED = "This form is damaged. Reload the page and decide again."
MINUTES_MAX = 525_600  # a year; any limit is lower, and the verb says which


class AskForm(forms.Form):
    """A wish for one level. `limit` is in seconds; a start is read in the viewer's `zone`."""

    minutes = forms.IntegerField(required=False, min_value=1, max_value=MINUTES_MAX)
    reason = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 4, "maxlength": REASON_MAX}),
        strip=True,
        max_length=REASON_MAX,
        error_messages={"required": "Say what is broken and what you mean to look at."},
    )
    ticket = forms.CharField(required=False, max_length=100)
    starts_at = forms.DateTimeField(
        required=False, widget=forms.DateTimeInput(attrs={"type": "datetime-local"})
    )
    whom = forms.CharField(required=False, max_length=150)

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        limit: int,
        zone: ZoneInfo,
        wish: Wish | None = None,
        **more: Any,
    ) -> None:
        """`wish` is what it begins with, if somebody has asked already."""
        self.limit, self.zone = limit, zone
        within = [seconds for seconds in CHIPS if seconds <= limit] or [limit]
        initial: dict[str, Any] = {"duration": str(within[min(1, len(within) - 1)])}
        if wish is not None:
            within = sorted({*within, wish.duration})
            initial = {**asdict(wish), "duration": str(wish.duration)}
        super().__init__(data, initial=initial, **more)
        chips = [(str(seconds), lasting(seconds)) for seconds in within]
        self.choices = [*chips, (OTHER, "other")]
        self.fields["duration"] = forms.ChoiceField(widget=forms.RadioSelect, choices=self.choices)

    @property
    def other_id(self) -> str:
        """The id of the chip that the free field belongs to, which is the last one."""
        return f"{self['duration'].auto_id}_{len(self.choices) - 1}"

    def full_clean(self) -> None:
        """The wall clock that was typed means the viewer's own zone, not the server's."""
        with timezone.override(self.zone):
            super().full_clean()

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if cleaned.get("duration") == OTHER and not cleaned.get("minutes"):
            if "minutes" not in self.errors:
                self.add_error("minutes", "Say how many minutes.")
        return cleaned

    def wish(self) -> Wish:
        """What was asked for, once the form is valid."""
        return Wish(
            duration=self.seconds(),
            reason=self.cleaned_data["reason"],
            ticket=self.cleaned_data["ticket"],
            starts_at=self.cleaned_data["starts_at"],
            whom=self.cleaned_data["whom"],
        )

    def wish_so_far(self) -> Wish:
        """The same for a preview of a half-filled form, or of an empty one."""
        typed = getattr(self, "cleaned_data", {})
        return Wish(
            duration=self.seconds(),
            reason=typed.get("reason") or PLACEHOLDER,
            ticket=typed.get("ticket") or PLACEHOLDER,
            starts_at=typed.get("starts_at"),
            whom=typed.get("whom") or "",
        )

    def seconds(self) -> int:
        typed = getattr(self, "cleaned_data", {})
        chosen = typed.get("duration") or self.initial["duration"]
        if chosen == OTHER:
            return (typed.get("minutes") or 0) * 60 or min(self.limit, CHIPS[0])
        return int(chosen)

    def take_errors(self, fields: Mapping[str, list[str]], message: str) -> None:
        """Show a verb's refusal where it belongs: at its fields, or above the form."""
        for name, problems in fields.items():
            for problem in problems:
                self.add_error(self._shown_at(name), problem)
        if not fields:
            self.add_error(None, message)

    def _shown_at(self, name: str) -> str | None:
        if name == "duration" and self.cleaned_data.get("duration") == OTHER:
            return "minutes"
        return name if name in self.fields else None


class LongerForm(forms.Form):
    """How much longer, and why: more than `least` and up to `limit`, both in seconds."""

    minutes = forms.IntegerField(required=False, min_value=1, max_value=MINUTES_MAX)
    reason = forms.CharField(required=False, strip=True)

    def __init__(
        self, data: Mapping[str, Any] | None = None, *, least: int, limit: int, **more: Any
    ) -> None:
        self.within = [seconds for seconds in CHIPS if least < seconds <= limit] or [limit]
        super().__init__(data, auto_id="longer-%s", **more)
        choices = [*((str(one), lasting(one)) for one in self.within), (OTHER, "other")]
        self.fields["duration"] = forms.ChoiceField(
            widget=forms.RadioSelect, choices=choices, initial=str(self.within[0])
        )

    @property
    def other_id(self) -> str:
        """The id of the chip that the free field belongs to, which is the last one."""
        return f"{self['duration'].auto_id}_{len(self.within)}"

    def wish(self) -> Wish:
        """What was asked for; nothing that can be used where it cannot be read."""
        typed = getattr(self, "cleaned_data", {})
        chosen = typed.get("duration") or "0"
        seconds = (typed.get("minutes") or 0) * 60 if chosen == OTHER else int(chosen)
        return Wish(duration=seconds, reason=typed.get("reason") or "")

    def take_errors(self, fields: Mapping[str, list[str]], message: str) -> None:
        """Show a verb's refusal at its fields, or above the form."""
        for name, problems in fields.items():
            for problem in problems:
                self.add_error(name if name in self.fields else None, problem)
        if not fields:
            self.add_error(None, message)


BOTH = "You chose less here. Approve with less, or choose what was asked and then approve."
WITH_LESS = "less"  # a decision: to approve, but less than was asked


class VoteForm(forms.Form):
    """A decision, the scope that was read, and the vote of one's own that the page showed.

    How much less counts only where the decision is to approve with less. A level is named with
    the hash of what was read of it: `12:6f1c…`.
    """

    decision = forms.CharField(max_length=10)
    less_duration = forms.CharField(required=False, max_length=10)
    less_minutes = forms.IntegerField(required=False, max_value=MINUTES_MAX)
    less_level = forms.CharField(required=False, max_length=90)
    scope_hash = forms.CharField(max_length=64)
    comment = forms.CharField(required=False, strip=True)
    replaces = forms.IntegerField(required=False, min_value=0)
    on_behalf_of = forms.CharField(required=False, max_length=150)

    def decided(self) -> str:
        """What the verb is asked to do; what it does not know, it refuses."""
        decision: str = self.cleaned_data["decision"]
        return Decision.APPROVE if decision == WITH_LESS else decision

    def less(self) -> Less | None:
        """Raises Invalid where less was chosen, and then all of it approved."""
        if self.cleaned_data["decision"] != WITH_LESS:
            chosen = self.cleaned_data["less_level"] or self._seconds() is not None
            if chosen and self.cleaned_data["decision"] == Decision.APPROVE:
                raise Invalid(fields={"less": [BOTH]})
            return None
        level, _, level_hash = self.cleaned_data["less_level"].partition(":")
        return Less(
            duration=self._seconds(),
            level=(int(level) if ID.fullmatch(level) else 0) if level else None,
            level_hash=level_hash,
        )

    def _seconds(self) -> int | None:
        """None for as long as was asked. Without script, minutes count with the first chip too."""
        chosen, minutes = self.cleaned_data["less_duration"], self.cleaned_data["less_minutes"]
        if chosen in ("", OTHER):
            return minutes * 60 if minutes is not None else None
        return int(chosen) if ID.fullmatch(chosen) else 0


def shorter(asked: int, more_than: int = 0) -> list[tuple[str, str]]:
    """The chips of a time that is less than was asked, in seconds: at most three."""
    fitting = [seconds for seconds in LESS_CHIPS if more_than < seconds < asked]
    return [(str(seconds), lasting(seconds)) for seconds in fitting[-3:]]


class CommentForm(forms.Form):
    """What somebody says, and the last Event that they had seen."""

    comment = forms.CharField(required=False, strip=True)
    after = forms.IntegerField(required=False, min_value=0)


class BulkForm(forms.Form):
    """One decision about several requests, each named with the hash of the scope that was read.

    What a list of checkboxes sends is `12:6f1c…`, once a request.
    """

    decision = forms.ChoiceField(choices=Decision, error_messages={"required": DAMAGED})
    comment = forms.CharField(required=False, strip=True)

    @property
    def ids(self) -> set[int]:
        """The requests that were chosen, whether or not the rest is in order."""
        return set(self._chosen())

    @property
    def problems(self) -> list[str]:
        return [str(problem) for problems in self.errors.values() for problem in problems]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        cleaned["chosen"] = chosen = self._chosen()
        if not chosen:
            raise forms.ValidationError("Select at least one request.")
        if len(chosen) > AT_ONCE:
            raise forms.ValidationError(
                f"At most {AT_ONCE} are decided at once, and {len(chosen)} were selected. "
                "None was decided."
            )
        if cleaned.get("decision") == Decision.DENY and not cleaned.get("comment"):
            self.add_error("comment", "Say why, so that they know what to do instead.")
        return cleaned

    def _chosen(self) -> dict[int, str]:
        named = self.data.getlist("chosen") if isinstance(self.data, QueryDict) else []
        pairs = [text.partition(":") for text in named]
        return {int(pk): scope for pk, _, scope in pairs if ID.fullmatch(pk)}


class EmergencyForm(forms.Form):
    """Why it cannot wait, and the two things that nobody types by accident."""

    reason = forms.CharField(required=False, strip=True)
    ticket = forms.CharField(required=False, strip=True)
    confirmation = forms.CharField(required=False, strip=True)
    password = forms.CharField(required=False, strip=False)

    def take_errors(self, fields: Mapping[str, list[str]]) -> None:
        """Show a verb's refusals at their fields."""
        for name, problems in fields.items():
            for problem in problems:
                self.add_error(name if name in self.fields else None, problem)


class ReviewForm(forms.Form):
    """What somebody found who looked back at an access."""

    outcome = forms.CharField(required=False)
    note = forms.CharField(required=False, strip=True)
    end_access = forms.BooleanField(required=False)


class ReasonForm(forms.Form):
    """Why somebody does what may be asked about afterwards."""

    reason = forms.CharField(required=False, strip=True)
