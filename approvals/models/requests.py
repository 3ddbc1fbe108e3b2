"""What was asked, of whom, and what they said."""

from __future__ import annotations

import functools
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import models
from django.db.models import F, FilteredRelation, Q
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Least

from approvals.models.delegations import lenders_query
from approvals.models.locks import lock, lock_if_free
from approvals.models.policies import PolicyVersion
from approvals.models.targets import AccessLevel, Target
from approvals.states import UNDECIDED, RequestState, StageState
from audit import clock
from audit.log import Subject

if TYPE_CHECKING:
    from approvals.people import Person


class RequestKind(models.TextChoices):
    ACCESS = "access", "Access"
    EXTENSION = "extension", "Extension"
    EMERGENCY = "emergency", "Emergency"


class Decision(models.TextChoices):
    APPROVE = "approve", "Approved"
    DENY = "deny", "Denied"


class AccessRequestQuerySet(models.QuerySet["AccessRequest"]):
    def locked(self, pk: int) -> AccessRequest:
        """The request, its row locked until the transaction ends. Raises DoesNotExist.

        What a decision stands on, and the time, are read in a second statement: after a wait for
        the lock, PostgreSQL reads the locked row anew, but not the rows joined to it.
        """
        lock(self.model, pk)
        return self._with_ground().get(pk=pk)

    def free(self, pk: int) -> AccessRequest | None:
        """The same without waiting: None if somebody else has it locked."""
        return self._with_ground().get(pk=pk) if lock_if_free(self.model, pk) else None

    def _with_ground(self) -> Self:
        related = ("requester", "beneficiary", "level", "target", "policy_version__policy")
        return self.select_related(*related).annotate(locked_at=clock.DbNow())

    def undecided(self) -> Self:
        return self.filter(state__in=UNDECIDED)

    def with_due(self) -> Self:
        """Each with `due_at`: its open stage's deadline or its own, whichever comes first."""
        opened = FilteredRelation("stages", condition=Q(stages__state=StageState.OPEN))
        return self.alias(open_stage=opened).annotate(
            due_at=Least("pending_until", "open_stage__deadline_at")
        )

    def waiting_for(self, user: Person) -> Self:
        """Pending requests whose open stage this person may still decide.

        Mirrors `policy.may_vote` in SQL, less the chain's arithmetic: active candidates who are
        still members, or those who lend them their votes, neither barred, in time, and without a
        counting vote in the chain.
        """
        return self.filter(pk__in=RawSQL(_waiting_query(), [user.pk, user.pk]))  # noqa: S611


# As `policy.barred_from`: of longer access, also whoever asked for it in the first place.
BARRED = (
    "r.requester_id, r.beneficiary_id, r.last_edited_by_id,"
    " COALESCE(first.requester_id, r.requester_id)"
)


@functools.cache
def _waiting_query() -> str:
    """The ids of what waits for one person, from their own candidacies on.

    Written out because the ORM's joins are more than PostgreSQL puts into a better order: it went
    through all of 100,000 that were pending, and took twenty times as long.
    """
    people = get_user_model()._meta
    members = people.get_field("groups").remote_field.through._meta  # type: ignore[union-attr]
    return f"""
        WITH asked AS MATERIALIZED (
            SELECT u.id AS person, s.request_id, s.deadline_at, who.id AS voter
            FROM (SELECT %s::bigint AS id) who
            JOIN {people.db_table} me ON me.id = who.id AND me.is_active
            JOIN approvals_candidate c ON c.user_id = ANY(who.id || ARRAY({lenders_query()}))
            JOIN {people.db_table} u ON u.id = c.user_id AND u.is_active
            JOIN {members.db_table} m ON m.user_id = c.user_id AND m.group_id = c.group_id
            JOIN approvals_requeststage s ON s.id = c.stage_id AND s.state = 'open'
        )
        SELECT r.id FROM asked
        JOIN approvals_accessrequest r ON r.id = asked.request_id AND r.state = 'pending'
        JOIN {people.db_table} requester ON requester.id = r.requester_id AND requester.is_active
        JOIN {people.db_table} holder ON holder.id = r.beneficiary_id AND holder.is_active
        JOIN approvals_accesslevel level ON level.id = r.level_id AND level.enabled
        JOIN approvals_target target ON target.id = r.target_id AND target.enabled
        JOIN approvals_policyversion version ON version.id = r.policy_version_id
        JOIN approvals_policy policy ON policy.id = version.policy_id AND policy.enabled
        LEFT JOIN approvals_grant prolonged ON prolonged.id = r.extends_id
        LEFT JOIN approvals_accessrequest first ON first.id = prolonged.request_id
        WHERE LEAST(r.pending_until, asked.deadline_at) > (SELECT dbnow())
            AND (person = voter OR version.allow_delegation
                AND person IN ({lenders_query("voter", barred=BARRED)}))
            AND person NOT IN ({BARRED})
            AND voter NOT IN ({BARRED})
            AND NOT EXISTS (
                SELECT FROM approvals_vote v JOIN approvals_requeststage s ON s.id = v.stage_id
                WHERE s.request_id = r.id AND s.round = r.round
                    AND ARRAY[v.voter_id, v.on_behalf_of_id] && ARRAY[person, voter]
                    AND v.replaced_at IS NULL AND v.voided_at IS NULL
            )
    """  # noqa: S608 - the names of Django's own tables


def lent_to(user: Person) -> RawSQL:
    """The ids of what is undecided and asks somebody who lends this person their votes now."""
    return RawSQL(_lent_query(), [user.pk])  # noqa: S611


@functools.cache
def _lent_query() -> str:
    return f"""
        SELECT s.request_id FROM approvals_candidate c
        JOIN approvals_requeststage s ON s.id = c.stage_id AND s.state IN ('waiting', 'open')
        JOIN approvals_accessrequest r ON r.id = s.request_id
        JOIN approvals_policyversion v ON v.id = r.policy_version_id AND v.allow_delegation
        WHERE c.user_id = ANY(ARRAY({lenders_query()}))
    """  # noqa: S608 - the names of Django's own tables


class AccessRequest(models.Model):
    """A request for access. Its state is written by `transition.move` only."""

    kind = models.CharField(max_length=10, choices=RequestKind, default=RequestKind.ACCESS)
    state = models.CharField(max_length=20, choices=RequestState, default=RequestState.PENDING)
    requester = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="access_requests"
    )
    beneficiary = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    last_edited_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    target = models.ForeignKey(Target, models.PROTECT, related_name="access_requests")
    level = models.ForeignKey(AccessLevel, models.PROTECT, related_name="access_requests")
    policy_version = models.ForeignKey(PolicyVersion, models.PROTECT, related_name="+")
    reason = models.TextField()
    ticket = models.CharField(max_length=100, blank=True)
    duration = models.PositiveIntegerField(help_text="Seconds.")
    starts_at = models.DateTimeField(null=True, blank=True)
    # Of an extension: the access it prolongs, from `starts_at`, which is that one's end, on.
    extends = models.ForeignKey("Grant", models.PROTECT, null=True, related_name="extensions")
    scope: models.JSONField[dict[str, Any], dict[str, Any]] = models.JSONField()
    scope_hash = models.CharField(max_length=64)
    # Votes on a scope that changed are void and the chain begins anew: one more round.
    round = models.PositiveSmallIntegerField(default=1)
    submitted_at = models.DateTimeField()
    pending_until = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)
    decision_note = models.CharField(max_length=300, blank=True)

    objects = AccessRequestQuerySet.as_manager()
    due_at: datetime  # of a request that was loaded `with_due` only
    locked_at: datetime  # the database's time after the lock was had; of a locked request only

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="request_state_known", condition=Q(state__in=RequestState.values)
            ),
            models.CheckConstraint(
                name="request_kind_known", condition=Q(kind__in=RequestKind.values)
            ),
            models.CheckConstraint(name="request_lasts", condition=Q(duration__gt=0)),
            models.CheckConstraint(
                name="request_decided_at_when_decided",
                condition=Q(state__in=UNDECIDED, decided_at__isnull=True)
                | (~Q(state__in=UNDECIDED) & Q(decided_at__isnull=False)),
            ),
            models.UniqueConstraint(
                fields=["beneficiary", "level"],
                condition=Q(state__in=UNDECIDED, kind=RequestKind.ACCESS),
                name="request_one_undecided_per_person_and_level",
            ),
            models.UniqueConstraint(
                fields=["extends"],
                condition=Q(state__in=UNDECIDED, extends__isnull=False),
                name="request_one_undecided_extension",
            ),
            models.CheckConstraint(
                name="request_extends_if_extension",
                condition=Q(
                    kind=RequestKind.EXTENSION, extends__isnull=False, starts_at__isnull=False
                )
                | (~Q(kind=RequestKind.EXTENSION) & Q(extends__isnull=True)),
            ),
        ]
        indexes = [
            models.Index(
                fields=["pending_until"], condition=Q(state__in=UNDECIDED), name="request_due"
            ),
            models.Index(
                fields=["starts_at"],
                condition=Q(state__in=UNDECIDED, starts_at__isnull=False),
                name="request_starts",
            ),
            models.Index(fields=["requester", "-id"], name="request_mine"),
            models.Index(fields=["state", "-id"], name="request_by_state"),
            models.Index(
                fields=["-id"], condition=Q(state__in=UNDECIDED), name="request_undecided"
            ),
        ]

    def __str__(self) -> str:
        return f"request {self.pk}"

    @property
    def wanted_until(self) -> datetime | None:
        """The end of what was asked for, where its start was asked for as well."""
        return self.starts_at + timedelta(seconds=self.duration) if self.starts_at else None

    def audit_subject(self) -> Subject:
        label = f"{self.level.name} on {self.target.name} for {self.beneficiary}"
        return Subject("accessrequest", str(self.pk), label, f"request:{self.pk}")


class RequestStage(models.Model):
    """This request's own copy of a stage. Its state is written by `transition.move` only."""

    request = models.ForeignKey(AccessRequest, models.CASCADE, related_name="stages")
    round = models.PositiveSmallIntegerField()
    order = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=80)
    state = models.CharField(max_length=20, choices=StageState, default=StageState.WAITING)
    # {group id as text: minimum}
    minima: models.JSONField[dict[str, int], dict[str, int]] = models.JSONField()
    group_names: models.JSONField[dict[str, str], dict[str, str]] = models.JSONField()
    # {fallback group's id: the ids of the groups its members stand in for}, where one was needed.
    stand_ins: models.JSONField[dict[str, list[str]], dict[str, list[str]]] = models.JSONField(
        default=dict
    )
    total = models.PositiveSmallIntegerField()
    deny_quorum = models.PositiveSmallIntegerField()
    deadline = models.PositiveIntegerField(null=True, help_text="Seconds from opening.")
    fallback_group = models.ForeignKey(Group, models.PROTECT, null=True, related_name="+")
    remind_every = models.PositiveIntegerField(null=True, help_text="Seconds.")
    max_reminders = models.PositiveSmallIntegerField(null=True)
    escalate_after = models.PositiveIntegerField(null=True, help_text="Seconds from opening.")
    escalation_group = models.ForeignKey(Group, models.PROTECT, null=True, related_name="+")
    opened_at = models.DateTimeField(null=True)
    deadline_at = models.DateTimeField(null=True)
    # The next reminder or the escalation, whichever comes first; none once all of them are done.
    nudge_at = models.DateTimeField(null=True)
    escalated_at = models.DateTimeField(null=True)
    stalled_since = models.DateTimeField(null=True)

    class Meta:
        ordering = ["request", "round", "order"]
        constraints = [
            models.UniqueConstraint(
                fields=["request", "round", "order"], name="request_stage_order_unique"
            ),
            models.CheckConstraint(
                name="request_stage_state_known", condition=Q(state__in=StageState.values)
            ),
            models.UniqueConstraint(
                fields=["request"],
                condition=Q(state=StageState.OPEN),
                name="request_stage_one_open",
            ),
            models.CheckConstraint(name="request_stage_asks_somebody", condition=Q(total__gt=0)),
        ]
        indexes = [
            models.Index(
                fields=["deadline_at"],
                condition=Q(state=StageState.OPEN, deadline_at__isnull=False),
                name="request_stage_due",
            ),
            models.Index(
                fields=["nudge_at"],
                condition=Q(state=StageState.OPEN, nudge_at__isnull=False),
                name="request_stage_nudge",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def audit_subject(self) -> Subject:
        return Subject("requeststage", str(self.pk), self.name, f"request:{self.request_id}")

    def next_nudge(self, *, reminded: int) -> datetime | None:
        """When something is due after so many reminders; None if nothing is any more."""
        if self.opened_at is None:
            return None
        waits = []
        if self.remind_every and reminded < (self.max_reminders or 0):
            waits.append((reminded + 1) * self.remind_every)
        if self.escalate_after and self.escalated_at is None:
            waits.append(self.escalate_after)
        return self.opened_at + timedelta(seconds=min(waits)) if waits else None

    def reminders_due(self, now: datetime) -> int:
        """How many there should have been by now, had none been missed."""
        if not self.remind_every or self.opened_at is None:
            return 0
        passed = (now - self.opened_at) // timedelta(seconds=self.remind_every)
        return min(max(passed, 0), self.max_reminders or 0)

    def escalates(self, now: datetime) -> bool:
        """Whether its time to escalate has come, and it has not."""
        if not self.escalate_after or self.escalated_at or self.opened_at is None:
            return False
        return self.opened_at + timedelta(seconds=self.escalate_after) <= now


class NudgeKind(models.TextChoices):
    REMIND = "remind", "Reminder"
    ESCALATE = "escalate", "Escalation"


class Nudge(models.Model):
    """A reminder or an escalation of a stage. Each can be written once, whoever comes by."""

    stage = models.ForeignKey(RequestStage, models.CASCADE, related_name="nudges")
    kind = models.CharField(max_length=10, choices=NudgeKind)
    n = models.PositiveSmallIntegerField(help_text="The how-maniest of its kind.")
    skipped = models.PositiveSmallIntegerField(
        default=0, help_text="How many before it were missed, and are not made up for."
    )
    at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["stage", "kind", "n"], name="nudge_once"),
            models.CheckConstraint(name="nudge_kind_known", condition=Q(kind__in=NudgeKind.values)),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.n} of {self.stage}"


class Candidate(models.Model):
    """Someone who could act in a stage, by one of its groups, when its candidates were drawn."""

    stage = models.ForeignKey(RequestStage, models.CASCADE, related_name="candidates")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="candidacies")
    group = models.ForeignKey(Group, models.PROTECT, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["stage", "user", "group"], name="candidate_unique"),
        ]
        indexes = [models.Index(fields=["user", "stage"], name="candidate_of_user")]

    def __str__(self) -> str:
        return f"{self.user} of {self.group}"


class Mention(models.Model):
    """Somebody was named in the discussion of a request, and has not answered since."""

    request = models.ForeignKey(AccessRequest, models.CASCADE, related_name="mentions")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["person", "request"], name="mention_once"),
        ]

    def __str__(self) -> str:
        return f"{self.person} by {self.author}"


class VoteQuerySet(models.QuerySet["Vote"]):
    def counting(self) -> Self:
        return self.filter(replaced_at__isnull=True, voided_at__isnull=True)

    def with_less(self, request: AccessRequest) -> Self:
        """The approvals with less that count in the request's present round, and their levels."""
        here = {"stage__request": request, "stage__round": request.round}
        rows = self.counting().filter(**here, reduced_scope__isnull=False)
        return rows.select_related("reduced_level", "stage", "voter")


class Vote(models.Model):
    """One person's word in one stage. Rows are never changed but for being replaced or voided."""

    stage = models.ForeignKey(RequestStage, models.CASCADE, related_name="votes")
    voter = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    # Whose vote it is, where another gives it for them.
    on_behalf_of = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+"
    )
    decision = models.CharField(max_length=10, choices=Decision)
    comment = models.TextField(blank=True)
    scope_hash = models.CharField(max_length=64)
    voted_at = models.DateTimeField()
    replaced_at = models.DateTimeField(null=True)
    voided_at = models.DateTimeField(null=True)
    void_reason = models.CharField(max_length=100, blank=True)
    # An approval with less than was asked: how much, and the scope with that in it, frozen.
    reduced_duration = models.PositiveIntegerField(null=True, help_text="Seconds.")
    reduced_level = models.ForeignKey(AccessLevel, models.PROTECT, null=True, related_name="+")
    reduced_scope: models.JSONField[dict[str, Any] | None, dict[str, Any] | None] = (
        models.JSONField(null=True)
    )
    reduced_hash = models.CharField(max_length=64, blank=True, default="", db_default="")

    objects = VoteQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                name="vote_decision_known", condition=Q(decision__in=Decision.values)
            ),
            models.UniqueConstraint(
                fields=["stage", "voter"],
                condition=Q(replaced_at__isnull=True, voided_at__isnull=True),
                name="vote_one_counts_per_person",
            ),
            models.UniqueConstraint(
                "stage",
                Coalesce("on_behalf_of", "voter"),
                condition=Q(replaced_at__isnull=True, voided_at__isnull=True),
                name="vote_one_counts_per_principal",
            ),
            models.CheckConstraint(
                name="vote_for_another_or_oneself",
                condition=Q(on_behalf_of__isnull=True) | ~Q(on_behalf_of=F("voter")),
            ),
            # That it is less than what is asked, a trigger holds.
            models.CheckConstraint(
                name="vote_with_less_is_whole_approval",
                condition=Q(
                    reduced_duration__isnull=True,
                    reduced_level__isnull=True,
                    reduced_scope__isnull=True,
                    reduced_hash="",
                )
                | Q(
                    Q(reduced_duration__isnull=False) | Q(reduced_level__isnull=False),
                    Q(reduced_duration__isnull=True) | Q(reduced_duration__gt=0),
                    ~Q(reduced_hash=""),
                    decision=Decision.APPROVE,
                    reduced_scope__isnull=False,
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.voter}: {self.decision}"

    @property
    def less(self) -> tuple[int | None, str] | None:
        """How much less was approved: seconds, and the name of a level; None if all of it was."""
        if not self.reduced_hash:
            return None
        return self.reduced_duration, self.reduced_level.name if self.reduced_level else ""

    @property
    def whose(self) -> int:
        """The id of the person whose vote it is."""
        return self.on_behalf_of_id or self.voter_id
