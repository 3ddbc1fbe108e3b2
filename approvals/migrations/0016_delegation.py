"""Votes lent to somebody else, and whose vote it is that was given."""

from django.conf import settings
from django.db import migrations, models
from django.db.models import F, Q, deletion
from django.db.models.functions import Coalesce

# Neither whoever gives a vote nor whose it is may be whom it is about.
NEITHER = r"""
CREATE OR REPLACE FUNCTION approvals_refuse_own_vote() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM approvals_requeststage s JOIN approvals_accessrequest r ON r.id = s.request_id
        WHERE s.id = NEW.stage_id AND (
            NEW.voter_id IN (r.requester_id, r.beneficiary_id, r.last_edited_by_id)
            OR NEW.on_behalf_of_id IN (r.requester_id, r.beneficiary_id, r.last_edited_by_id))
    ) THEN
        RAISE EXCEPTION 'nobody decides about themselves' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

DROP TRIGGER vote_not_about_oneself ON approvals_vote;
CREATE TRIGGER vote_not_about_oneself
    BEFORE INSERT OR UPDATE OF voter_id, on_behalf_of_id, stage_id
    ON approvals_vote FOR EACH ROW EXECUTE FUNCTION approvals_refuse_own_vote();
ALTER TABLE approvals_vote ENABLE ALWAYS TRIGGER vote_not_about_oneself;
"""
VOTER_ALONE = r"""
CREATE OR REPLACE FUNCTION approvals_refuse_own_vote() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM approvals_requeststage s JOIN approvals_accessrequest r ON r.id = s.request_id
        WHERE s.id = NEW.stage_id
          AND NEW.voter_id IN (r.requester_id, r.beneficiary_id, r.last_edited_by_id)
    ) THEN
        RAISE EXCEPTION 'nobody decides about themselves' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

DROP TRIGGER vote_not_about_oneself ON approvals_vote;
CREATE TRIGGER vote_not_about_oneself BEFORE INSERT OR UPDATE OF voter_id, stage_id
    ON approvals_vote FOR EACH ROW EXECUTE FUNCTION approvals_refuse_own_vote();
ALTER TABLE approvals_vote ENABLE ALWAYS TRIGGER vote_not_about_oneself;
"""
COUNTS = Q(replaced_at__isnull=True, voided_at__isnull=True)


def person(**options):
    return models.ForeignKey(
        settings.AUTH_USER_MODEL, deletion.PROTECT, related_name="+", **options
    )


class Migration(migrations.Migration):
    dependencies = [
        ("approvals", "0015_fallbacks_of_what_is_undecided"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Delegation",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("starts_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField()),
                ("made_at", models.DateTimeField()),
                ("begun_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                ("note", models.CharField(blank=True, max_length=300)),
                ("delegate", person()),
                ("made_by", person()),
                ("person", person()),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        fields=["ends_at"], condition=Q(ended_at=None), name="delegation_not_over"
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        name="delegation_lasts", condition=Q(ends_at__gt=F("starts_at"))
                    ),
                    models.CheckConstraint(
                        name="delegation_to_another", condition=~Q(person=F("delegate"))
                    ),
                ],
            },
        ),
        migrations.AddField("policyversion", "allow_delegation", models.BooleanField(default=True)),
        migrations.AddField("vote", "on_behalf_of", person(null=True)),
        migrations.AddConstraint(
            "vote",
            models.UniqueConstraint(
                "stage",
                Coalesce("on_behalf_of", "voter"),
                condition=COUNTS,
                name="vote_one_counts_per_principal",
            ),
        ),
        migrations.AddConstraint(
            "vote",
            models.CheckConstraint(
                name="vote_for_another_or_oneself",
                condition=Q(on_behalf_of__isnull=True) | ~Q(on_behalf_of=F("voter")),
            ),
        ),
        migrations.RunSQL(NEITHER, reverse_sql=VOTER_ALONE),
    ]
