"""The access that an approved request opens, and what was done on the target for it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from django.conf import settings
from django.db import models
from django.db.models import Q

from approvals.models.locks import lock
from approvals.models.requests import AccessRequest
from approvals.models.targets import AccessLevel, Target
from approvals.states import NOT_ENDED, EndReason, GrantState
from audit import clock
from audit.log import Subject

if TYPE_CHECKING:
    from approvals.people import Person

OVERDUE_AFTER: Final = timedelta(seconds=5)  # past its end: a cut's longest wait between two tries
STUCK_AFTER: Final = timedelta(seconds=30)  # of failing: longer than a target needs to restart
TO_BE_CUT: Final = (GrantState.PROVISIONING, GrantState.ACTIVE, GrantState.REVOKING)


class GrantQuerySet(models.QuerySet["Grant"]):
    def locked(self, pk: int) -> Grant:
        """The grant, its row locked until the transaction ends. Raises DoesNotExist.

        Related rows are read in a second statement, for the reason given at requests.
        """
        lock(self.model, pk)
        related = ("beneficiary", "level", "target", "request__requester")
        return self.select_related(*related).get(pk=pk)

    def locked_like(self, known: Grant) -> Grant:
        """The grant locked and read anew, with what belongs to it as `known` was read: for whoever
        needs that for its name only. Raises DoesNotExist."""
        grant = self.select_for_update().get(pk=known.pk)
        grant.beneficiary, grant.request = known.beneficiary, known.request
        grant.level, grant.target = known.level, known.target
        return grant

    def not_ended(self) -> Self:
        return self.filter(state__in=NOT_ENDED)

    def held_by(self, user: Person) -> Self:
        return self.filter(beneficiary=user)

    def overdue(self) -> Self:
        """Not cut although it should have ended more than OVERDUE_AFTER ago: in SQL what
        `Grant.is_overdue` says of one."""
        over = clock.DbNow() - OVERDUE_AFTER
        past = Q(expires_at__lte=over) | Q(revoking_at__lte=over)
        return self.filter(past, state__in=TO_BE_CUT, cut_at__isnull=True)

    def stuck(self) -> Self:
        """Ending it has failed for STUCK_AFTER: in SQL what `Grant.is_stuck` says of one."""
        since = clock.DbNow() - STUCK_AFTER
        return self.filter(state=GrantState.REVOKING, stuck_since__lte=since)

    def abandoned(self) -> Self:
        """Given up by two people and not ended yet: unsafe."""
        return self.filter(state=GrantState.REVOKING, abandoned_at__isnull=False)


class Grant(models.Model):
    """One access with one hard end. Its state is written by `transition.move` only."""

    request = models.OneToOneField(AccessRequest, models.PROTECT, related_name="grant")
    beneficiary = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="grants")
    target = models.ForeignKey(Target, models.PROTECT, related_name="grants")
    level = models.ForeignKey(AccessLevel, models.PROTECT, related_name="grants")
    state = models.CharField(max_length=20, choices=GrantState, default=GrantState.SCHEDULED)
    scope: models.JSONField[dict[str, Any], dict[str, Any]] = models.JSONField()
    scope_hash = models.CharField(max_length=64)
    duration = models.PositiveIntegerField(help_text="Seconds.")
    approved_at = models.DateTimeField()
    opens_at = models.DateTimeField(help_text="Not before: the approval or the wanted start.")
    activate_before = models.DateTimeField(help_text="Unused if it has not begun to open by then.")
    # Set, before the target is touched, to the latest the access could end; from then on it only
    # moves earlier, or as far as `extended_until` (a trigger holds that).
    expires_at = models.DateTimeField(null=True)
    # The latest that the target's own expiry may have been moved to by an extension. The end
    # follows once the target has it; until then it is the earlier of the two.
    extended_until = models.DateTimeField(null=True)
    extended_count = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Extensions that were agreed to."
    )
    bridged_at = models.DateTimeField(
        null=True, help_text="Prolonged once because the decision about an extension was out."
    )
    open_before = models.DateTimeField(null=True, help_text="Opening is given up after this.")
    activated_at = models.DateTimeField(null=True)
    revoking_at = models.DateTimeField(null=True)
    cut_at = models.DateTimeField(null=True, help_text="Sign-in refused and no session left.")
    ended_at = models.DateTimeField(null=True)
    end_reason = models.CharField(max_length=10, choices=EndReason, blank=True)
    end_code = models.CharField(max_length=40, blank=True, help_text="For example scope_changed.")
    end_note = models.CharField(max_length=300, blank=True)
    connection: models.JSONField[dict[str, Any], dict[str, Any]] = models.JSONField(default=dict)
    # Sealed (approvals.secrets); emptied when it has been shown, and when the access ends.
    secret = models.TextField(blank=True)
    revealed_at = models.DateTimeField(null=True)
    # Whoever holds the lease works on it; the token tells a late one that it lost it.
    lease = models.CharField(max_length=32, blank=True)
    lease_until = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    next_try_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, blank=True)
    stuck_since = models.DateTimeField(null=True)
    # Two people gave it up: unsafe, still tried, still an alarm, still `revoking`.
    abandoned_at = models.DateTimeField(null=True)

    objects = GrantQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="grant_state_known", condition=Q(state__in=GrantState.values)
            ),
            models.CheckConstraint(name="grant_lasts", condition=Q(duration__gt=0)),
            models.CheckConstraint(
                name="grant_has_an_end_before_it_opens",
                condition=Q(state__in=[GrantState.SCHEDULED, GrantState.ENDED])
                | Q(expires_at__isnull=False),
            ),
            models.CheckConstraint(
                name="grant_reason_when_it_ends",
                condition=Q(state__in=[GrantState.REVOKING, GrantState.ENDED])
                & Q(end_reason__in=EndReason.values)
                | ~Q(state__in=[GrantState.REVOKING, GrantState.ENDED]) & Q(end_reason=""),
            ),
            models.CheckConstraint(
                name="grant_ended_at_when_ended",
                condition=Q(state=GrantState.ENDED, ended_at__isnull=False)
                | (~Q(state=GrantState.ENDED) & Q(ended_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="grant_active_once_usable",
                condition=~Q(state=GrantState.ACTIVE) | Q(activated_at__isnull=False),
            ),
            models.CheckConstraint(
                name="grant_no_secret_after_the_end",
                condition=~Q(state=GrantState.ENDED) | Q(secret=""),
            ),
            models.CheckConstraint(
                name="grant_abandoned_while_closing",
                condition=Q(abandoned_at__isnull=True)
                | Q(state__in=[GrantState.REVOKING, GrantState.ENDED]),
            ),
        ]
        indexes = [
            models.Index(
                fields=["expires_at"],
                condition=Q(state__in=[GrantState.PROVISIONING, GrantState.ACTIVE]),
                name="grant_expiring",
            ),
            models.Index(
                fields=["next_try_at"], condition=Q(state=GrantState.REVOKING), name="grant_closing"
            ),
            models.Index(
                fields=["next_try_at"],
                condition=Q(state=GrantState.ACTIVE, next_try_at__isnull=False),
                name="grant_extending",
            ),
            models.Index(
                fields=["opens_at"],
                condition=Q(state__in=[GrantState.SCHEDULED, GrantState.PROVISIONING]),
                name="grant_opening",
            ),
            models.Index(fields=["beneficiary", "-id"], name="grant_mine"),
            models.Index(
                fields=["target"], condition=~Q(state=GrantState.ENDED), name="grant_open_on_target"
            ),
        ]

    def __str__(self) -> str:
        return f"grant {self.pk}"

    @property
    def account(self) -> str:
        """The account's name on the target, and the grant's public name."""
        return f"dbgf_{self.pk}"

    def goes_on(self, now: datetime) -> bool:
        """Open, and not past its end: computed from the clock, however late a sweeper is."""
        return (
            self.state == GrantState.ACTIVE
            and self.expires_at is not None
            and self.expires_at > now
        )

    @property
    def meant_to_end_at(self) -> datetime | None:
        """Its end, or the moment it was taken away if that came first; None before it opens."""
        return min((at for at in (self.expires_at, self.revoking_at) if at), default=None)

    def late_by(self, now: datetime) -> timedelta | None:
        """From the moment it was meant to end to its cut, or to `now`; None before that moment,
        and for what never opened."""
        end = self.meant_to_end_at
        if end is None or (self.ended_at is not None and self.cut_at is None):
            return None
        return late if (late := (self.cut_at or now) - end) >= timedelta() else None

    def is_overdue(self, now: datetime) -> bool:
        late = self.late_by(now)
        not_cut = self.state in TO_BE_CUT and self.cut_at is None
        return not_cut and late is not None and late >= OVERDUE_AFTER

    def is_stuck(self, now: datetime) -> bool:
        since = self.stuck_since
        return (
            self.state == GrantState.REVOKING and since is not None and since <= now - STUCK_AFTER
        )

    @property
    def latest_end(self) -> datetime | None:
        """When the target's own expiry is at the latest: later than the end while an extension is
        under way, or has been given up half-way."""
        return max((at for at in (self.expires_at, self.extended_until) if at), default=None)

    @property
    def is_extending(self) -> bool:
        """A later end was agreed to, and the target does not have it for certain yet."""
        return (
            self.state == GrantState.ACTIVE
            and self.expires_at is not None
            and self.extended_until is not None
            and self.extended_until > self.expires_at
        )

    @property
    def is_abandoned(self) -> bool:
        """Given up by two people and not ended yet: it may still be open on the target."""
        return self.state == GrantState.REVOKING and self.abandoned_at is not None

    def audit_subject(self) -> Subject:
        label = f"{self.level.name} on {self.target.name} for {self.beneficiary}"
        return Subject("grant", str(self.pk), label, f"request:{self.request_id}")


class Abandonment(models.Model):
    """One of the two people that it takes to abandon a grant. Never the holder (a trigger)."""

    grant = models.ForeignKey(Grant, models.CASCADE, related_name="abandonments")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    reason = models.CharField(max_length=300)
    at = models.DateTimeField()

    class Meta:
        ordering = ["at"]
        constraints = [
            models.UniqueConstraint(fields=["grant", "person"], name="abandonment_once_each"),
        ]

    def __str__(self) -> str:
        return f"{self.person} on {self.grant}"


class StepKind(models.TextChoices):
    OPEN = "open", "Open"
    EXTEND = "extend", "Extend"
    CUT = "cut", "Cut"
    CLEAN = "clean", "Clean up"


class Step(models.Model):
    """One provisioning action on the target, tried as often as it takes."""

    grant = models.ForeignKey(Grant, models.CASCADE, related_name="steps")
    kind = models.CharField(max_length=10, choices=StepKind)
    # What each attempt left on the target, as its provisioner tells it: cut, clean-up and
    # read-back cover all of them, whatever became of the attempt.
    traces: models.JSONField[list[dict[str, Any]], list[dict[str, Any]]] = models.JSONField(
        default=list
    )
    attempts = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=80)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["grant", "started_at"]
        constraints = [
            models.UniqueConstraint(fields=["grant", "kind"], name="step_once_per_kind"),
            models.CheckConstraint(name="step_kind_known", condition=Q(kind__in=StepKind.values)),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} ({self.attempts})"
