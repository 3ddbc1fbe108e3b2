"""Changes that take two people. What was proposed never changes, nobody decides what gives them
more, and what takes two once takes two for ever: held by the database itself.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

KEPT = r"""
CREATE FUNCTION approvals_keep_proposal() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a proposal stays' USING ERRCODE = 'restrict_violation';
    END IF;
    IF (NEW.change, NEW.arguments, NEW.summary, NEW.effects, NEW.differences, NEW.beneficiaries,
        NEW.digest, NEW.proposer_id, NEW.proposed_at, NEW.expires_at)
        IS DISTINCT FROM
        (OLD.change, OLD.arguments, OLD.summary, OLD.effects, OLD.differences, OLD.beneficiaries,
        OLD.digest, OLD.proposer_id, OLD.proposed_at, OLD.expires_at)
    THEN
        RAISE EXCEPTION 'what was proposed never changes' USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.state <> 'proposed' AND NEW.state <> OLD.state THEN
        RAISE EXCEPTION 'a proposal that has ended stays ended' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.state = 'carried_out' AND NEW.beneficiaries @> to_jsonb(NEW.decided_by_id) THEN
        RAISE EXCEPTION 'nobody decides about themselves' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER proposal_kept BEFORE UPDATE OR DELETE ON approvals_proposal
    FOR EACH ROW EXECUTE FUNCTION approvals_keep_proposal();
ALTER TABLE approvals_proposal ENABLE ALWAYS TRIGGER proposal_kept;

CREATE FUNCTION approvals_keep_four_eyes() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF OLD.since IS NOT NULL THEN
        RAISE EXCEPTION 'what takes two people once takes two for ever'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;

CREATE TRIGGER four_eyes_kept BEFORE UPDATE OR DELETE ON approvals_foureyes
    FOR EACH ROW EXECUTE FUNCTION approvals_keep_four_eyes();
ALTER TABLE approvals_foureyes ENABLE ALWAYS TRIGGER four_eyes_kept;
"""
NOT_KEPT = r"""
DROP TRIGGER four_eyes_kept ON approvals_foureyes;
DROP FUNCTION approvals_keep_four_eyes();
DROP TRIGGER proposal_kept ON approvals_proposal;
DROP FUNCTION approvals_keep_proposal();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("approvals", "0019_slack"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="FourEyes",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                (
                    "since",
                    models.DateTimeField(
                        help_text="None while there was one superuser only.", null=True
                    ),
                ),
            ],
            options={
                "default_permissions": (),
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="four_eyes_is_one")
                ],
            },
        ),
        migrations.CreateModel(
            name="Proposal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "change",
                    models.CharField(
                        help_text="Which verb, by its registered name.", max_length=40
                    ),
                ),
                ("arguments", models.JSONField()),
                ("summary", models.CharField(max_length=300)),
                ("effects", models.JSONField()),
                ("differences", models.JSONField(default=list)),
                ("beneficiaries", models.JSONField(default=list)),
                ("digest", models.CharField(max_length=64)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("proposed", "Waits for a second person"),
                            ("carried_out", "Carried out"),
                            ("denied", "Denied"),
                            ("withdrawn", "Withdrawn"),
                            ("expired", "Expired"),
                            ("failed", "Could not be carried out"),
                        ],
                        default="proposed",
                        editable=False,
                        max_length=20,
                    ),
                ),
                ("proposed_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                (
                    "decided_at",
                    models.DateTimeField(help_text="When it came to its end.", null=True),
                ),
                (
                    "note",
                    models.CharField(
                        blank=True, help_text="Why it ended as it did.", max_length=500
                    ),
                ),
                (
                    "used_at",
                    models.DateTimeField(
                        help_text="When a leave that it gave was used.", null=True
                    ),
                ),
                (
                    "decided_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "proposer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="proposals",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(
                        condition=models.Q(("state", "proposed")),
                        fields=["expires_at"],
                        name="proposal_to_expire",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "state__in",
                                [
                                    "proposed",
                                    "carried_out",
                                    "denied",
                                    "withdrawn",
                                    "expired",
                                    "failed",
                                ],
                            )
                        ),
                        name="proposal_state_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("decided_by", None),
                            models.Q(("decided_by", models.F("proposer")), _negated=True),
                            _connector="OR",
                        ),
                        name="proposal_not_decided_by_its_proposer",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state__in", ["carried_out", "denied"]), _negated=True),
                            models.Q(("decided_at__isnull", False), ("decided_by__isnull", False)),
                            _connector="OR",
                        ),
                        name="proposal_decided_by_somebody",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("expires_at__gt", models.F("proposed_at"))),
                        name="proposal_expires_later",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("state", "proposed")),
                        fields=("digest",),
                        name="proposal_once_at_a_time",
                    ),
                ],
            },
        ),
        migrations.RunSQL(KEPT, NOT_KEPT),
    ]
