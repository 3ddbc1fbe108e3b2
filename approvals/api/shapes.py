"""The forms of what `serializers` prints by hand, for the description of the API alone.

A test calls every endpoint and compares what it answers with these.
"""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from approvals.models import Decision, Risk, TokenScope
from approvals.states import StageState


class Shape(serializers.Serializer[Any]):
    """A form that nothing is parsed by."""


class Names(serializers.ListField):
    child = serializers.CharField()


class Minima(serializers.DictField):
    child = serializers.IntegerField()


class Differences(serializers.ListField):
    """Rows of what changes, how it was before, and how it is after."""

    child = Names()


class LessShape(Shape):
    duration = serializers.IntegerField(allow_null=True)
    level = serializers.CharField(allow_null=True)


class OutcomeShape(Shape):
    duration = serializers.IntegerField()
    level = serializers.CharField()
    less = serializers.BooleanField()


class LowerLevelShape(Shape):
    id = serializers.IntegerField()
    name = serializers.CharField()
    risk = serializers.ChoiceField(choices=Risk.choices)
    rank = serializers.IntegerField()
    summary = Names()
    max_duration = serializers.IntegerField()
    level_hash = serializers.CharField()


class VoteShape(Shape):
    voter = serializers.CharField()
    on_behalf_of = serializers.CharField(allow_null=True)
    decision = serializers.ChoiceField(choices=Decision.choices)
    comment = serializers.CharField()
    less = LessShape(allow_null=True)
    voted_at = serializers.DateTimeField()


class StageShape(Shape):
    order = serializers.IntegerField()
    name = serializers.CharField()
    state = serializers.ChoiceField(choices=StageState.choices)
    total = serializers.IntegerField()
    groups = Minima()
    opened_at = serializers.DateTimeField(allow_null=True)
    deadline_at = serializers.DateTimeField(allow_null=True)
    escalated_at = serializers.DateTimeField(allow_null=True)
    stalled_since = serializers.DateTimeField(allow_null=True)


class StageWithPeopleShape(StageShape):
    missing = Names()
    candidates = Names()
    votes = VoteShape(many=True)


class PlannedStageShape(Shape):
    name = serializers.CharField()
    total = serializers.IntegerField()
    groups = Minima()
    candidates = Names()
    stand_ins = serializers.DictField(child=Names())


class RefusedActionShape(Shape):
    code = serializers.CharField()
    message = serializers.CharField()


class ActionsShape(Shape):
    permitted_actions = Names()
    refused_actions = serializers.DictField(child=RefusedActionShape())


class ProblemShape(Shape):
    """RFC 9457. `code` is what a program should look at."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    fields = serializers.DictField(child=Names(), required=False)  # type: ignore[assignment]
    current = serializers.DictField(required=False)
    near_misses = Names(required=False)
    request = serializers.IntegerField(required=False)


class PreviewShape(Shape):
    policy = serializers.CharField(allow_null=True)
    stages = PlannedStageShape(many=True)
    max_duration = serializers.IntegerField()
    max_duration_set_by = serializers.CharField()
    problem = ProblemShape(allow_null=True)


class CredentialShape(Shape):
    connection = serializers.DictField()
    password = serializers.CharField()


class UnreadShape(Shape):
    unread = serializers.IntegerField()


class ReadShape(UnreadShape):
    read = serializers.IntegerField()


class SessionShape(Shape):
    id = serializers.IntegerField()
    username = serializers.CharField()
    csrf_token = serializers.CharField()


class AbandonmentShape(Shape):
    person = serializers.CharField()
    reason = serializers.CharField()
    at = serializers.DateTimeField()


class ActorShape(Shape):
    type = serializers.CharField()
    id = serializers.CharField()
    name = serializers.CharField()


class PrincipalShape(Shape):
    id = serializers.CharField()
    name = serializers.CharField()


class SubjectShape(Shape):
    type = serializers.CharField()
    id = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]  # a member of this name


class Scopes(serializers.ListField):
    child = serializers.ChoiceField(choices=TokenScope.choices)
