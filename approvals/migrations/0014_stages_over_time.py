"""Reminders, escalation, and what is done when the people of a stage leave."""

from django.db import migrations, models
from django.db.models import F, Q, deletion


def group(**options):
    return models.ForeignKey("auth.group", deletion.PROTECT, null=True, related_name="+", **options)


class Migration(migrations.Migration):
    dependencies = [
        ("approvals", "0013_longer_access_laws"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.AddField(
            "stage",
            "remind_every",
            models.PositiveIntegerField(
                null=True,
                blank=True,
                help_text="Seconds between two reminders while the stage is open.",
            ),
        ),
        migrations.AddField(
            "stage", "max_reminders", models.PositiveSmallIntegerField(null=True, blank=True)
        ),
        migrations.AddField(
            "stage",
            "escalate_after",
            models.PositiveIntegerField(
                null=True,
                blank=True,
                help_text="Seconds the stage may be open before the escalation group is asked as "
                "well.",
            ),
        ),
        migrations.AddField("stage", "escalation_group", group(blank=True)),
        migrations.AddConstraint(
            "stage",
            models.CheckConstraint(
                name="stage_reminders_whole",
                condition=Q(remind_every__isnull=True, max_reminders__isnull=True)
                | Q(
                    remind_every__isnull=False,
                    remind_every__gt=0,
                    max_reminders__isnull=False,
                    max_reminders__gt=0,
                ),
            ),
        ),
        migrations.AddConstraint(
            "stage",
            models.CheckConstraint(
                name="stage_escalation_whole",
                condition=Q(escalate_after__isnull=True, escalation_group__isnull=True)
                | Q(
                    escalate_after__isnull=False,
                    escalate_after__gt=0,
                    escalation_group__isnull=False,
                ),
            ),
        ),
        migrations.AddConstraint(
            "stage",
            models.CheckConstraint(
                name="stage_escalates_in_time",
                condition=Q(escalate_after__isnull=True)
                | Q(deadline__isnull=True)
                | Q(escalate_after__lt=F("deadline")),
            ),
        ),
        migrations.AddField("requeststage", "fallback_group", group()),
        migrations.AddField(
            "requeststage",
            "remind_every",
            models.PositiveIntegerField(null=True, help_text="Seconds."),
        ),
        migrations.AddField(
            "requeststage", "max_reminders", models.PositiveSmallIntegerField(null=True)
        ),
        migrations.AddField(
            "requeststage",
            "escalate_after",
            models.PositiveIntegerField(null=True, help_text="Seconds from opening."),
        ),
        migrations.AddField("requeststage", "escalation_group", group()),
        migrations.AddField("requeststage", "nudge_at", models.DateTimeField(null=True)),
        migrations.AddField("requeststage", "escalated_at", models.DateTimeField(null=True)),
        migrations.AddField("requeststage", "stalled_since", models.DateTimeField(null=True)),
        migrations.AddIndex(
            "requeststage",
            models.Index(
                fields=["nudge_at"],
                condition=Q(state="open", nudge_at__isnull=False),
                name="request_stage_nudge",
            ),
        ),
        migrations.CreateModel(
            name="Nudge",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("remind", "Reminder"), ("escalate", "Escalation")], max_length=10
                    ),
                ),
                ("n", models.PositiveSmallIntegerField(help_text="The how-maniest of its kind.")),
                (
                    "skipped",
                    models.PositiveSmallIntegerField(
                        default=0,
                        help_text="How many before it were missed, and are not made up for.",
                    ),
                ),
                ("at", models.DateTimeField()),
                (
                    "stage",
                    models.ForeignKey(
                        "approvals.requeststage", deletion.CASCADE, related_name="nudges"
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
                "constraints": [
                    models.UniqueConstraint(fields=["stage", "kind", "n"], name="nudge_once"),
                    models.CheckConstraint(
                        name="nudge_kind_known", condition=Q(kind__in=["remind", "escalate"])
                    ),
                ],
            },
        ),
    ]
