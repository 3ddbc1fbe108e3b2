"""Bodies and query parameters, parsed strictly by type. Which values make sense, verbs decide."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from approvals.models import Decision, TokenKind, TokenScope
from approvals.states import GrantState, ProposalState, RequestState, ReviewOutcome

BIGGEST: Final = 2**63 - 1  # what an id can be


class Text(serializers.CharField):
    """Text exactly as sent: a number is none, and nothing is trimmed off."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_blank": True, "trim_whitespace": False, **options})

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return data


class WholeNumber(serializers.IntegerField):
    """A JSON number without a fraction: neither text nor a boolean."""

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return data


class Moment(serializers.DateTimeField):
    """A time as it was sent. One without a zone is not given one: the verb refuses it."""

    def enforce_timezone(self, value: datetime) -> datetime:
        return value


class ZonedMoment(serializers.DateTimeField):
    """A query parameter that is a time, which has to say its zone."""

    default_error_messages = {"zone": "With its zone, for example 2030-01-31T09:00:00Z."}

    def enforce_timezone(self, value: datetime) -> datetime:
        if value.utcoffset() is None:
            self.fail("zone")
        return value


class Id(serializers.IntegerField):
    """A query parameter that is an id."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, "min_value": 1, "max_value": BIGGEST, **options})


@extend_schema_field(bool)
class Flag(serializers.Field[bool, Any, Any, Any]):
    """A query parameter that is `true` or `false`; `false` if it is left out."""

    default_error_messages = {"invalid": "Either true or false."}

    def __init__(self) -> None:
        super().__init__(default=False)

    def to_internal_value(self, data: Any) -> bool:
        if data not in ("true", "false"):
            self.fail("invalid")
        return bool(data == "true")


class Input(serializers.Serializer[Any]):
    """Refuses what it does not know, since a misspelt option would otherwise be ignored."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, Mapping) and (unknown := data.keys() - self.fields.keys()):
            raise serializers.ValidationError(dict.fromkeys(sorted(unknown), "Unknown field."))
        values: dict[str, Any] = super().to_internal_value(data)
        return values


class NothingIn(Input):
    """For verbs that need to know nothing more."""


class SignInInput(Input):
    username = Text()
    password = Text()


class WishInput(Input):
    level = WholeNumber()
    duration = WholeNumber()
    reason = Text()
    ticket = Text(default="")
    starts_at = Moment(default=None, allow_null=True)
    whom = Text(default="")


class EmergencyInput(Input):
    level = WholeNumber()
    reason = Text()
    ticket = Text(default="")
    confirmation = Text()
    password = Text()


class ReviewInput(Input):
    outcome = serializers.ChoiceField(choices=ReviewOutcome.choices)
    note = Text()
    end_access = serializers.BooleanField(default=False)


class ReadInput(Input):
    """Either `ids` or `until`."""

    ids = serializers.ListField(
        child=WholeNumber(min_value=1, max_value=BIGGEST),
        allow_empty=False,
        max_length=100,
        required=False,
    )
    until = WholeNumber(min_value=1, max_value=BIGGEST, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            raise serializers.ValidationError({"until": "Say either ids or until."})
        return attrs


class EditInput(Input):
    scope_hash = Text()
    duration = WholeNumber()
    reason = Text()
    ticket = Text(default="")
    starts_at = Moment(default=None, allow_null=True)


class SendBackInput(Input):
    scope_hash = Text()
    comment = Text()


class LongerInput(Input):
    duration = WholeNumber()
    reason = Text()


class LessInput(Input):
    duration = WholeNumber(default=None, allow_null=True)
    level = WholeNumber(default=None, allow_null=True)
    level_hash = Text(default="")


class VoteInput(Input):
    decision = serializers.ChoiceField(choices=Decision.choices)
    scope_hash = Text()
    comment = Text(default="")
    on_behalf_of = Text(default="")
    less = LessInput(default=None, allow_null=True)


class CommentInput(Input):
    comment = Text()


class ReasonInput(Input):
    reason = Text()


class LendingInput(Input):
    person = Text(default="")
    delegate = Text()
    starts_at = Moment(default=None, allow_null=True)
    ends_at = Moment()
    note = Text(default="")


class TokenInput(Input):
    name = Text()
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=TokenScope.choices), min_length=1, max_length=10
    )
    days = WholeNumber()
    service = Text(default="")


class NoFilter(Input):
    cursor = Text(required=False)


class LevelFilter(NoFilter):
    target = Id()


class RequestFilter(NoFilter):
    awaiting_me = Flag()
    mentioning_me = Flag()
    mine = Flag()
    state = serializers.ChoiceField(choices=RequestState.choices, required=False)
    target = Id()
    level = Id()
    person = Text(required=False)
    submitted_after = ZonedMoment(required=False)
    submitted_before = ZonedMoment(required=False)


class GrantFilter(NoFilter):
    mine = Flag()
    state = serializers.ChoiceField(choices=GrantState.choices, required=False)
    target = Id()
    level = Id()
    person = Text(required=False)
    approved_after = ZonedMoment(required=False)
    approved_before = ZonedMoment(required=False)


class ReviewFilter(NoFilter):
    awaiting_me = Flag()
    open = Flag()


class InboxFilter(NoFilter):
    unread = Flag()


class TokenFilter(NoFilter):
    mine = Flag()
    kind = serializers.ChoiceField(choices=TokenKind.choices, required=False)
    person = Text(required=False)


class DelegationFilter(NoFilter):
    mine = Flag()
    person = Text(required=False)
    delegate = Text(required=False)


class ProposalFilter(NoFilter):
    awaiting_me = Flag()
    mine = Flag()
    state = serializers.ChoiceField(choices=ProposalState.choices, required=False)


class EventFilter(NoFilter):
    action = Text(required=False)
    actor = Text(required=False)
    thread = Text(required=False)
    happened_after = ZonedMoment(required=False)
    happened_before = ZonedMoment(required=False)
