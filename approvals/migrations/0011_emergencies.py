"""Emergencies: who may open a level without approval, and the look back that follows."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("approvals", "0010_requests_that_start_later"),
        ("auth", "0012_alter_user_first_name_max_length"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Review",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("emergency", models.BooleanField()),
                ("opened_at", models.DateTimeField()),
                ("due_at", models.DateTimeField()),
                (
                    "remind_at",
                    models.DateTimeField(help_text="When its reviewers are reminded next."),
                ),
                ("reminders", models.PositiveSmallIntegerField(default=0)),
                (
                    "overdue_at",
                    models.DateTimeField(help_text="When more people were asked.", null=True),
                ),
                (
                    "outcome",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("justified", "Justified"),
                            ("not_justified", "Not justified"),
                            ("needs_action", "Needs action"),
                        ],
                        max_length=20,
                    ),
                ),
                ("note", models.TextField(blank=True)),
                ("reviewed_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.AddField(
            model_name="policyversion",
            name="emergency_duration",
            field=models.PositiveIntegerField(
                help_text="Seconds that an emergency lasts.", null=True
            ),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="emergency_groups",
            field=models.JSONField(default=list),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="emergency_tells",
            field=models.ForeignKey(
                help_text="Is told, and may review.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="auth.group",
            ),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="review_all",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="review_within",
            field=models.PositiveIntegerField(
                default=86400, help_text="Seconds within which somebody has to look back."
            ),
        ),
        migrations.AddConstraint(
            model_name="policyversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("emergency_duration__isnull", True), ("emergency_groups", [])),
                    models.Q(
                        models.Q(("emergency_groups", []), _negated=True),
                        ("emergency_duration__gt", 0),
                    ),
                    _connector="OR",
                ),
                name="version_emergency_whole",
            ),
        ),
        migrations.AddConstraint(
            model_name="policyversion",
            constraint=models.CheckConstraint(
                condition=models.Q(("review_within__gt", 0)), name="version_review_within"
            ),
        ),
        migrations.AddField(
            model_name="review",
            name="grant",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="review",
                to="approvals.grant",
            ),
        ),
        migrations.AddField(
            model_name="review",
            name="person",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="review",
            name="reviewed_by",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddIndex(
            model_name="review",
            index=models.Index(
                condition=models.Q(("reviewed_at__isnull", True)),
                fields=["remind_at"],
                name="review_due",
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("outcome", ""),
                    ("outcome__in", ["justified", "not_justified", "needs_action"]),
                    _connector="OR",
                ),
                name="review_outcome_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("outcome", ""),
                        ("reviewed_at__isnull", True),
                        ("reviewed_by__isnull", True),
                    ),
                    models.Q(
                        models.Q(("outcome", ""), _negated=True),
                        ("reviewed_at__isnull", False),
                        ("reviewed_by__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="review_done_whole",
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("reviewed_by__isnull", True),
                    models.Q(("reviewed_by", models.F("person")), _negated=True),
                    _connector="OR",
                ),
                name="review_not_of_oneself",
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.UniqueConstraint(
                condition=models.Q(("emergency", True), ("reviewed_at__isnull", True)),
                fields=("person",),
                name="review_one_open_emergency",
            ),
        ),
    ]
