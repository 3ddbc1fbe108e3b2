"""What people type into their settings, parsed. Whether it may be done is the verbs' business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django import forms
from django.conf import settings

from approvals.lengths import lasting
from approvals.models import TokenScope
from approvals.tokens import NAME_MAX, TokenWish

DAYS: Final = (7, 30, 90)  # what is taken most; the longest that is allowed goes beside them
USUAL: Final = 30
DAY: Final = 86400  # seconds


class TokenForm(forms.Form):
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

    def take_errors(self, fields: Mapping[str, list[str]], message: str) -> None:
        """Show a verb's refusal where it belongs: at its fields, or above the form."""
        for name, problems in fields.items():
            for problem in problems:
                self.add_error(name if name in self.fields else None, problem)
        if not fields:
            self.add_error(None, message)
