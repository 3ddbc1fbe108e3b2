"""Heartbeats, reconciliation, alarms, and the people it takes to abandon a grant."""

import uuid

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("approvals", "0002_laws"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Abandonment",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("reason", models.CharField(max_length=300)),
                ("at", models.DateTimeField()),
            ],
            options={
                "ordering": ["at"],
            },
        ),
        migrations.CreateModel(
            name="Alarm",
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
                        choices=[
                            ("overdue", "Access past its end"),
                            ("stuck", "Ending access keeps failing"),
                            ("abandoned", "Abandoned, unsafe"),
                            ("strange", "A target differs from the ledger"),
                            ("held_back", "A clean-up waits for consent"),
                        ],
                        max_length=12,
                    ),
                ),
                ("text", models.CharField(max_length=500)),
                ("began_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(null=True)),
                ("next_mail_at", models.DateTimeField(null=True)),
                ("mails", models.PositiveIntegerField(default=0)),
                (
                    "failures",
                    models.PositiveIntegerField(
                        default=0, help_text="Mails in a row that none took."
                    ),
                ),
                ("last_error", models.CharField(blank=True, max_length=500)),
            ],
            options={
                "ordering": ["-began_at"],
            },
        ),
        migrations.CreateModel(
            name="Heartbeat",
            fields=[
                (
                    "process",
                    models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False),
                ),
                ("name", models.CharField(max_length=120)),
                ("started_at", models.DateTimeField()),
                ("swept_at", models.DateTimeField(help_text="When its sweeper last looked.")),
                ("is_worker", models.BooleanField(default=False)),
                ("served_at", models.DateTimeField(null=True)),
                (
                    "skew_ms",
                    models.IntegerField(default=0, help_text="Its clock, less the database's."),
                ),
                ("tallies", models.JSONField(default=dict)),
                (
                    "stopped_at",
                    models.DateTimeField(help_text="Set when it ended in good order.", null=True),
                ),
            ],
            options={
                "ordering": ["name", "started_at"],
            },
        ),
        migrations.CreateModel(
            name="Installation",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("key", models.UUIDField(default=uuid.uuid4, editable=False)),
                ("cluster", models.CharField(max_length=20)),
            ],
        ),
        migrations.CreateModel(
            name="Reconciliation",
            fields=[
                (
                    "target",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        serialize=False,
                        to="approvals.target",
                    ),
                ),
                ("next_at", models.DateTimeField()),
                ("lease_until", models.DateTimeField(null=True)),
                (
                    "worker",
                    models.CharField(blank=True, help_text="Who made the last run.", max_length=80),
                ),
                (
                    "ran_at",
                    models.DateTimeField(help_text="When it last came to its end.", null=True),
                ),
                (
                    "failures",
                    models.PositiveIntegerField(default=0, help_text="Runs in a row that failed."),
                ),
                ("last_error", models.CharField(blank=True, max_length=500)),
                ("findings", models.JSONField(default=list)),
                ("unknown", models.JSONField(default=dict)),
                ("held_back", models.JSONField(default=list)),
                ("held_back_since", models.DateTimeField(null=True)),
                ("allowed", models.JSONField(default=list)),
            ],
        ),
        migrations.AddField(
            model_name="grant",
            name="abandoned_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddConstraint(
            model_name="grant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("abandoned_at__isnull", True),
                    ("state__in", ["revoking", "ended"]),
                    _connector="OR",
                ),
                name="grant_abandoned_while_closing",
            ),
        ),
        migrations.AddField(
            model_name="abandonment",
            name="grant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="abandonments",
                to="approvals.grant",
            ),
        ),
        migrations.AddField(
            model_name="abandonment",
            name="person",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="alarm",
            name="grant",
            field=models.ForeignKey(
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="alarms",
                to="approvals.grant",
            ),
        ),
        migrations.AddField(
            model_name="alarm",
            name="target",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="alarms",
                to="approvals.target",
            ),
        ),
        migrations.AddConstraint(
            model_name="installation",
            constraint=models.CheckConstraint(
                condition=models.Q(("id", 1)), name="installation_is_one"
            ),
        ),
        migrations.AddIndex(
            model_name="reconciliation",
            index=models.Index(fields=["next_at"], name="reconciliation_due"),
        ),
        migrations.AddConstraint(
            model_name="abandonment",
            constraint=models.UniqueConstraint(
                fields=("grant", "person"), name="abandonment_once_each"
            ),
        ),
        migrations.AddIndex(
            model_name="alarm",
            index=models.Index(
                condition=models.Q(("next_mail_at__isnull", False)),
                fields=["next_mail_at"],
                name="alarm_to_be_mailed",
            ),
        ),
        migrations.AddConstraint(
            model_name="alarm",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ended_at__isnull", True)),
                fields=("kind", "target", "grant"),
                name="alarm_once_at_a_time",
                nulls_distinct=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="alarm",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("kind__in", ["overdue", "stuck", "abandoned", "strange", "held_back"])
                ),
                name="alarm_kind_known",
            ),
        ),
    ]
