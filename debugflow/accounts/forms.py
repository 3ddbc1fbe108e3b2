"""What people type into their settings, parsed. Whether it may be done is the verbs' business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

from django import forms
from django.conf import settings
from django.utils import timezone

from approvals.delegating import NOTE_MAX, Lending
from approvals.lengths import lasting
from approvals.models import Preferences, TokenScope
from approvals.notify import preferences
from approvals.notify.preferences import Wishes
from approvals.tokens import NAME_MAX, TokenWish

DAYS: Final = (7, 30, 90)  # what is taken most; the longest that is allowed goes beside them
USUAL: Final = 30
DAY: Final = 86400  # seconds
A_TIME: Final = "Write a time such as 22:00."


class VerbForm(forms.Form):
    """A form whose verb may refuse what was typed."""

    def take_errors(self, fields: Mapping[str, list[str]], message: str) -> None:
        """Show a verb's refusal where it belongs: at its fields, or above the form."""
        for name, problems in fields.items():
            for problem in problems:
                self.add_error(name if name in self.fields else None, problem)
        if not fields:
            self.add_error(None, message)


class LendingForm(VerbForm):
    """To whom one's votes are lent, and when: wall-clock times in the viewer's `zone`."""

    delegate = forms.CharField(max_length=150, error_messages={"required": "Say who."})
    starts_at = forms.DateTimeField(required=False)
    ends_at = forms.DateTimeField(error_messages={"required": "Say until when."})
    note = forms.CharField(required=False, max_length=NOTE_MAX)

    def __init__(self, data: Mapping[str, Any] | None = None, *, zone: ZoneInfo) -> None:
        self.zone = zone
        super().__init__(data)

    def full_clean(self) -> None:
        """The wall clock that was typed means the viewer's own zone, not the server's."""
        with timezone.override(self.zone):
            super().full_clean()

    def lending(self) -> Lending:
        """What was asked for, once the form is valid."""
        return Lending(**self.cleaned_data)


class TokenForm(VerbForm):
    """A wish for a token. `after` is the newest one that the page knew of."""

    name = forms.CharField(required=False, max_length=NAME_MAX)
    service = forms.CharField(required=False, max_length=50)
    after = forms.IntegerField(
        required=False,
        min_value=0,
        widget=forms.HiddenInput,
        error_messages={"invalid": "This form is damaged. Reload the page and try again."},
    )
    scopes = forms.MultipleChoiceField(
        choices=TokenScope.choices,
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Take at least one."},
    )

    def __init__(self, data: Mapping[str, Any] | None = None, **more: Any) -> None:
        super().__init__(data, **more)
        most = settings.API_TOKEN_DAYS
        within = [*(days for days in DAYS if days < most), most]
        self.initial.setdefault("days", USUAL if USUAL in within else most)
        self.initial.setdefault("scopes", [TokenScope.READ])
        self.fields["days"] = forms.TypedChoiceField(
            coerce=int,
            widget=forms.RadioSelect,
            choices=[(days, lasting(days * DAY)) for days in within],
            error_messages={"required": "Say how long it is to last."},
        )

    def wish(self) -> TokenWish:
        """What was asked for, once the form is valid."""
        given = self.cleaned_data
        return TokenWish(
            name=given["name"],
            scopes=given["scopes"],
            days=given["days"],
            service=given["service"],
        )


class SlackForm(VerbForm):
    """Which Slack account is one's own."""

    member_id = forms.CharField(max_length=20, error_messages={"required": "Say which it is."})

    def clean_member_id(self) -> str:
        return str(self.cleaned_data["member_id"]).upper()


class SlackCodeForm(VerbForm):
    """What was read there."""

    code = forms.CharField(max_length=20, error_messages={"required": "Type the code."})


class NotificationsForm(VerbForm):
    """How somebody wishes to be told. What is ticked is on."""

    channels = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple)
    quiet_from = forms.TimeField(required=False, error_messages={"invalid": A_TIME})
    quiet_until = forms.TimeField(required=False, error_messages={"invalid": A_TIME})
    digest_at = forms.TimeField(required=False, error_messages={"invalid": A_TIME})
    unasked = forms.BooleanField(required=False)

    def __init__(self, data: Mapping[str, Any] | None = None, **more: Any) -> None:
        super().__init__(data, **more)
        offered = [(one.name, one.label) for one in preferences.optional()]
        self.fields["channels"].choices = offered  # type: ignore[attr-defined]

    @classmethod
    def of(cls, said: Preferences) -> NotificationsForm:
        """As they have it now."""
        names = [one.name for one in preferences.optional()]
        on = [name for name in names if name not in said.channels_off]
        return cls(initial={**said.told(), "channels": on})

    def wishes(self) -> Wishes:
        """What was wished for, once the form is valid."""
        given = dict(self.cleaned_data)
        on = set(given.pop("channels"))
        off = [one.name for one in preferences.optional() if one.name not in on]
        return Wishes(channels_off=off, **given)
