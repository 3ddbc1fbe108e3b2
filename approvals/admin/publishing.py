"""The form for a policy's next version: its conditions, clocks and stages, and the draft of them.

`administration.publish` decides whether a draft can work; what only a form can get wrong (an
unknown group, an unreadable time) is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.auth.models import Group

from approvals import administration, lint, republishing
from approvals.admin import wording
from approvals.admin.fields import CountedGroupsField, DurationField, LabelsField
from approvals.admin.look import Choices, DressedForm, One, Picked, Several, dress
from approvals.administration import EXTENSIONS, PolicyDraft, StageDraft
from approvals.lint import Warned
from approvals.models import (
    AccessLevel,
    Environment,
    ExtensionApproval,
    Policy,
    PolicyVersion,
    Risk,
    Stage,
)
from approvals.policy import AppliesTo
from approvals.republishing import Fate, Foresight, Pending

if TYPE_CHECKING:
    StageFormSetBase = forms.BaseFormSet["StageForm"]
else:
    StageFormSetBase = forms.BaseFormSet

MAX_STAGES = 20
MAX_PEOPLE = 50
FATES_SHOWN = 50
MAX_EXTENSIONS = 20
NEW = {
    "pending_ttl": 86400,
    "activation_ttl": 3600,
    "max_duration": 8 * 3600,
    "review_within": 86400,
}
"""Seconds, as `PolicyDraft` has them; a working day at most."""
ANY = "Choose none to set no condition."


class VersionForm(DressedForm):
    """All of a version but its stages."""

    # The version the form was filled from: publishing over a newer one would undo it unseen.
    based_on = forms.IntegerField(widget=forms.HiddenInput, min_value=0)
    environments = forms.MultipleChoiceField(
        choices=Environment.choices,
        required=False,
        widget=Choices,
        help_text=ANY,
    )
    risks = forms.MultipleChoiceField(
        choices=Risk.choices, required=False, widget=Choices, help_text=ANY
    )
    labels = LabelsField(
        required=False,
        help_text="One a line, such as team=orders. A target must carry all of them.",
    )
    levels = forms.ModelMultipleChoiceField(
        AccessLevel.objects.select_related("target"),
        required=False,
        help_text=ANY,
        widget=Several,
    )
    requester_groups = forms.ModelMultipleChoiceField(
        Group.objects.order_by("name"), required=False, help_text=ANY, widget=Several
    )
    max_duration = DurationField(label="Lasts at most", help_text="Such as 8 h.")
    pending_ttl = DurationField(label="To be decided within", help_text="Such as 1 d.")
    activation_ttl = DurationField(
        label="To be opened within", help_text="After the approval or the wanted start."
    )
    reason_hint = forms.CharField(
        max_length=200, required=False, help_text="What people should write as their reason."
    )
    ticket_required = forms.BooleanField(required=False)
    allow_delegation = forms.BooleanField(
        required=False, help_text="Whoever is away may have somebody vote for them."
    )
    pending = forms.ChoiceField(
        choices=Pending.choices,
        initial=Pending.KEEP,
        required=False,
        label="Requests that wait",
        help_text="“See its effect” tells of each what would become of it.",
        widget=Picked,
    )
    emergency_groups = forms.ModelMultipleChoiceField(
        Group.objects.order_by("name"),
        required=False,
        label="May open without approval",
        help_text="In an emergency, their members. Choose none for nobody.",
        widget=Several,
    )
    emergency_duration = DurationField(
        required=False, label="An emergency lasts", help_text="Fixed, such as 30 min."
    )
    emergency_tells = forms.ModelChoiceField(
        Group.objects.order_by("name"),
        required=False,
        label="Is told of emergencies",
        help_text="Besides all who would have been asked. May look back at them.",
        widget=One,
    )
    review_within = DurationField(
        label="Looked back at within", initial=86400, help_text="After an emergency, such as 1 d."
    )
    review_all = forms.BooleanField(
        required=False,
        label="Look back at every access",
        help_text="After it has ended, not only at emergencies.",
    )
    extensions_most = forms.IntegerField(
        label="Extended at most",
        min_value=0,
        max_value=MAX_EXTENSIONS,
        required=False,
        help_text="How often an access may be extended before its end. Empty for never.",
    )
    extension_max = DurationField(
        label="Each adds at most", required=False, help_text="Such as 1 h."
    )
    max_total = DurationField(
        label="Lasts in all at most",
        required=False,
        help_text="From its opening, extensions included, such as 12 h.",
    )
    extension_window = DurationField(
        label="Asked for in the last",
        required=False,
        help_text="Such as 30 min: not before it nears its end.",
    )
    extension_approval = forms.ChoiceField(
        label="Longer access asks", choices=ExtensionApproval, required=False, widget=One
    )
    bridge = DurationField(
        label="Goes on while undecided for",
        required=False,
        help_text="Once, if nobody has decided at its end, such as 10 min. Empty for not at all.",
    )

    @property
    def plain_fields(self) -> list[forms.BoundField]:
        return [field for field in self.visible_fields() if field.name not in EXTENSIONS]

    @property
    def longer_fields(self) -> list[forms.BoundField]:
        """What says how much of longer access it allows."""
        return [field for field in self.visible_fields() if field.name in EXTENSIONS]

    def longer(self) -> dict[str, Any]:
        """What they say, as a draft has it: what is left empty is none."""
        chosen = {name: self.cleaned_data[name] or 0 for name in EXTENSIONS}
        approval = self.cleaned_data["extension_approval"] or ExtensionApproval.CHAIN
        return {**chosen, "extension_approval": approval}

    def applies_to(self) -> AppliesTo:
        return AppliesTo(
            environments=self.cleaned_data["environments"],
            labels=self.cleaned_data["labels"] or {},
            risks=self.cleaned_data["risks"],
            levels=[level.pk for level in self.cleaned_data["levels"]],
            requester_groups=[group.pk for group in self.cleaned_data["requester_groups"]],
        )


class StageForm(DressedForm):
    """One stage. Its place is the formset's own order number."""

    name = forms.CharField(max_length=80)
    groups = CountedGroupsField(
        label="Who is asked",
        help_text="Each group with the least number of its people: dba: 1, security: 2",
    )
    total = forms.IntegerField(
        min_value=1,
        max_value=MAX_PEOPLE,
        required=False,
        label="Approvals in all",
        help_text="Empty for the sum of the groups.",
    )
    deny_quorum = forms.IntegerField(
        min_value=1, max_value=MAX_PEOPLE, initial=1, label="Denials that end it"
    )
    deadline = DurationField(
        required=False,
        help_text="How long it may stay open, such as 4 h. Then the request expires.",
    )
    fallback_group = forms.ModelChoiceField(
        Group.objects.order_by("name"),
        required=False,
        help_text="Stands in where too few could act.",
        widget=One,
    )
    remind_every = DurationField(
        required=False, help_text="While it waits for somebody, such as 30 min."
    )
    max_reminders = forms.IntegerField(
        min_value=1,
        max_value=administration.REMIND_MOST,
        required=False,
        label="Reminders at most",
    )
    escalate_after = DurationField(
        required=False, help_text="How long it waits before one more group is asked as well."
    )
    escalation_group = forms.ModelChoiceField(
        Group.objects.order_by("name"),
        required=False,
        help_text="Asked as well then, for any place that is empty; nobody is taken out.",
        widget=One,
    )
    needs_second_factor = forms.BooleanField(required=False)

    def draft(self) -> StageDraft:
        fields = self.cleaned_data
        return StageDraft(
            name=fields["name"],
            groups=fields["groups"],
            total=fields["total"] or sum(fields["groups"].values()),
            deny_quorum=fields["deny_quorum"],
            deadline=fields["deadline"],
            fallback_group=fields["fallback_group"],
            needs_second_factor=fields["needs_second_factor"],
            remind_every=fields["remind_every"],
            max_reminders=fields["max_reminders"],
            escalate_after=fields["escalate_after"],
            escalation_group=fields["escalation_group"],
        )


class OrderedStages(StageFormSetBase):
    """The formset, with its own fields, order and deletion, in the look of the others."""

    def add_fields(self, form: Any, index: int | None) -> None:
        super().add_fields(form, index)
        dress(form)


StageForms = forms.formset_factory(
    StageForm,
    formset=OrderedStages,
    can_order=True,
    can_delete=True,
    extra=2,
    max_num=MAX_STAGES,
    absolute_max=MAX_STAGES + 2,
    validate_max=True,
)


def version_values(version: PolicyVersion | None) -> dict[str, Any]:
    """What the form of the next version begins with."""
    if version is None:
        return {"based_on": 0, "allow_delegation": True, **NEW}
    fields = (
        "max_duration",
        "pending_ttl",
        "activation_ttl",
        "reason_hint",
        "ticket_required",
        "emergency_groups",
        "emergency_duration",
        "review_within",
        "review_all",
        "allow_delegation",
    )
    applies_to = AppliesTo.model_validate(version.applies_to).model_dump()
    values = {name: getattr(version, name) for name in fields}
    told = version.emergency_tells_id
    longer = {name: getattr(version, name) or None for name in EXTENSIONS}
    return {
        "based_on": version.number,
        **applies_to,
        **values,
        **longer,
        "emergency_tells": told,
    }


def stage_values(version: PolicyVersion | None) -> list[dict[str, Any]]:
    """The same for the stages; `version` as `wording.with_stages` reads it."""
    return [_stage_values(stage) for stage in version.stages.all()] if version else []


def _stage_values(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "groups": {row.group: row.minimum for row in stage.stage_groups.all()},
        "total": stage.total,
        "deny_quorum": stage.deny_quorum,
        "deadline": stage.deadline,
        "fallback_group": stage.fallback_group_id,
        "needs_second_factor": stage.needs_second_factor,
        "remind_every": stage.remind_every,
        "max_reminders": stage.max_reminders,
        "escalate_after": stage.escalate_after,
        "escalation_group": stage.escalation_group_id,
    }


def draft(form: VersionForm, stages: Any) -> PolicyDraft:
    """The draft that both, valid, describe. Empty stages and deleted ones are left out."""
    fields = form.cleaned_data
    return PolicyDraft(
        applies_to=form.applies_to(),
        stages=[stage.draft() for stage in stages.ordered_forms],
        max_duration=fields["max_duration"],
        pending_ttl=fields["pending_ttl"],
        activation_ttl=fields["activation_ttl"],
        reason_hint=fields["reason_hint"],
        ticket_required=fields["ticket_required"],
        emergency_groups=list(fields["emergency_groups"]),
        emergency_duration=fields["emergency_duration"],
        emergency_tells=fields["emergency_tells"],
        review_within=fields["review_within"],
        review_all=fields["review_all"],
        **form.longer(),
        allow_delegation=fields["allow_delegation"],
    )


def publish(
    policy: Policy, written: PolicyDraft, *, based_on: int, by: Any, pending: str
) -> PolicyVersion:
    """Publish over the version of that number, 0 for none; raises what the verb raises."""
    base = policy.versions.filter(number=based_on).first()
    return administration.publish(policy, written, based_on=base, by=by, pending=pending)


@dataclass(frozen=True)
class Effect:
    """What publishing would do: what the version says, and what would look wrong then."""

    sentence: str
    clocks: str
    warnings: tuple[tuple[str, Warned], ...]
    pending: str
    foreseen: Foresight

    @property
    def shown(self) -> list[Fate]:
        return self.foreseen.weighed[:FATES_SHOWN]

    @property
    def more(self) -> int:
        return max(0, len(self.foreseen.weighed) - FATES_SHOWN)


def rehearse(
    policy: Policy, written: PolicyDraft, *, based_on: int, by: Any, pending: str
) -> Effect:
    """What publishing would do, which is taken back; raises what the verb raises."""
    base = policy.versions.filter(number=based_on).first()
    look = partial(_effect, by=by, pending=pending)
    return administration.rehearse(policy, written, based_on=base, by=by, look=look)


def _effect(version: PolicyVersion, *, by: Any, pending: str) -> Effect:
    loaded = wording.with_stages(PolicyVersion.objects.filter(pk=version.pk)).get()
    warned = lint.look()
    return Effect(
        sentence=wording.sentence(loaded, wording.names([loaded])),
        clocks=wording.clocks(loaded),
        warnings=tuple(
            (policy.name, warning)
            for policy in Policy.objects.filter(pk__in=warned).order_by("rank")
            for warning in warned[policy.pk]
        ),
        pending=pending,
        foreseen=republishing.foresee(version.policy, by=by),
    )
