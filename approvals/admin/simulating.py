"""The form of a request that nobody asks."""

from __future__ import annotations

from django import forms
from django.contrib.auth import get_user_model

from approvals.admin.fields import DurationField
from approvals.admin.look import DressedForm, One
from approvals.models import AccessLevel


class SimulationForm(DressedForm):
    """Who asks, for what, and for how long."""

    person = forms.ModelChoiceField(
        get_user_model()
        ._default_manager.filter(is_active=True, service__isnull=True)
        .order_by("username"),
        label="Who asks",
        widget=One,
    )
    level = forms.ModelChoiceField(
        AccessLevel.objects.select_related("target").order_by("target__name", "rank"),
        label="For which level",
        widget=One,
    )
    duration = DurationField(label="For how long", initial=3600, help_text="Such as 1 h.")
