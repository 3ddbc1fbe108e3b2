"""One thing with all that is said of it, as `serializers` prints it. For the description alone."""

from __future__ import annotations

from rest_framework import serializers

from approvals.api import shapes
from approvals.api.serializers import EventOut, GrantOut, RequestOut, TokenOut
from approvals.api.shapes import ActionsShape, Shape


class RequestDetail(RequestOut, ActionsShape):
    scope = serializers.DictField()
    stages = shapes.StageWithPeopleShape(many=True)
    outcome = shapes.OutcomeShape()
    lower_levels = shapes.LowerLevelShape(many=True)

    class Meta(RequestOut.Meta):
        fields = (
            *RequestOut.Meta.fields,
            "scope",
            "stages",
            "outcome",
            "lower_levels",
            "permitted_actions",
            "refused_actions",
        )


class GrantDetail(GrantOut, ActionsShape):
    abandonments = shapes.AbandonmentShape(many=True)

    class Meta(GrantOut.Meta):
        fields: tuple[str, ...] = (
            *GrantOut.Meta.fields,
            "abandonments",
            "permitted_actions",
            "refused_actions",
        )


class EventDetail(EventOut):
    address = serializers.CharField(required=False)
    agent = serializers.CharField(required=False)

    class Meta(EventOut.Meta):
        fields = (*EventOut.Meta.fields, "address", "agent")


class TokenMade(TokenOut):
    token = serializers.CharField()

    class Meta(TokenOut.Meta):
        fields: tuple[str, ...] = (*TokenOut.Meta.fields, "token")


class SchemaShape(Shape):
    openapi = serializers.CharField()
    info = serializers.DictField()
    paths = serializers.DictField()
