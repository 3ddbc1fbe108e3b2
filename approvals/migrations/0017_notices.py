"""The outbox: notices, their deliveries, endpoints of webhooks, and how people wish to be told."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("approvals", "0016_delegation"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="WebhookEndpoint",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=80, unique=True)),
                ("url", models.CharField(max_length=500)),
                ("facts", models.JSONField(default=list)),
                ("enabled", models.BooleanField(default=True)),
                ("disabled_because", models.CharField(blank=True, max_length=200)),
                ("secrets", models.JSONField(default=dict)),
                ("former_until", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="Notice",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("fact", models.CharField(max_length=40)),
                ("key", models.CharField(max_length=120, unique=True)),
                (
                    "event_id",
                    models.BigIntegerField(
                        help_text="Of the Event; none for mere time.", null=True
                    ),
                ),
                ("subject_type", models.CharField(max_length=40)),
                ("subject_id", models.CharField(max_length=40)),
                ("thread", models.CharField(max_length=80)),
                ("at", models.DateTimeField(help_text="When it happened.")),
                (
                    "urgent",
                    models.BooleanField(
                        help_text="Somebody must act: neither quiet hours nor digest."
                    ),
                ),
                (
                    "next_try_at",
                    models.DateTimeField(help_text="None once it has its deliveries.", null=True),
                ),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("last_error", models.CharField(blank=True, max_length=500)),
                (
                    "told_at",
                    models.DateTimeField(help_text="When its deliveries were made.", null=True),
                ),
                ("text", models.TextField(blank=True)),
                (
                    "step",
                    models.TextField(blank=True, help_text="What whoever reads it can do next."),
                ),
                (
                    "quote",
                    models.TextField(
                        blank=True, help_text="What somebody wrote; not for webhooks."
                    ),
                ),
                (
                    "link",
                    models.CharField(blank=True, help_text="A path of this site.", max_length=200),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("next_try_at__isnull", False)),
                        fields=["-urgent", "next_try_at"],
                        name="notice_to_be_told",
                    ),
                    models.Index(
                        fields=["subject_type", "subject_id", "fact"], name="notice_about"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Preferences",
            fields=[
                (
                    "person",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="preferences",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("channels_off", models.JSONField(default=list)),
                ("quiet_from", models.TimeField(null=True)),
                ("quiet_until", models.TimeField(null=True)),
                (
                    "digest_at",
                    models.TimeField(
                        help_text="What needs no action comes together then.", null=True
                    ),
                ),
                (
                    "unasked",
                    models.BooleanField(
                        default=False, help_text="May decide, but is not asked to."
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("quiet_from__isnull", True), ("quiet_until__isnull", True)),
                            models.Q(("quiet_from__isnull", False), ("quiet_until__isnull", False)),
                            _connector="OR",
                        ),
                        name="preferences_quiet_hours_whole",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("channel", models.CharField(max_length=20)),
                ("urgent", models.BooleanField()),
                (
                    "digest",
                    models.BooleanField(
                        default=False, help_text="Goes out with the others of its day."
                    ),
                ),
                ("since", models.DateTimeField(help_text="From when on it has been tried.")),
                ("next_try_at", models.DateTimeField(null=True)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("last_error", models.CharField(blank=True, max_length=500)),
                ("sent_at", models.DateTimeField(null=True)),
                ("dead_at", models.DateTimeField(help_text="Given up after two days.", null=True)),
                ("withdrawn_at", models.DateTimeField(help_text="Not needed any more.", null=True)),
                ("read_at", models.DateTimeField(null=True)),
                (
                    "handle",
                    models.TextField(
                        blank=True, help_text="The channel's own name for what it sent."
                    ),
                ),
                (
                    "person",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="deliveries",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "notice",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="approvals.notice",
                    ),
                ),
                (
                    "endpoint",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="approvals.webhookendpoint",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("next_try_at__isnull", False)),
                        fields=["channel", "-urgent", "next_try_at"],
                        name="delivery_due",
                    ),
                    models.Index(
                        condition=models.Q(("channel", "inbox")),
                        fields=["person", "-id"],
                        name="delivery_in_inbox",
                    ),
                    models.Index(
                        condition=models.Q(("channel", "inbox"), ("read_at__isnull", True)),
                        fields=["person"],
                        name="delivery_unread",
                    ),
                    models.Index(
                        condition=models.Q(("dead_at__isnull", False)),
                        fields=["dead_at"],
                        name="delivery_dead",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("notice", "channel", "person", "endpoint"),
                        name="delivery_once",
                        nulls_distinct=False,
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("endpoint__isnull", False), ("person__isnull", True)),
                            models.Q(("endpoint__isnull", True), ("person__isnull", False)),
                            _connector="OR",
                        ),
                        name="delivery_to_one",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("next_try_at__isnull", True),
                                models.Q(
                                    ("sent_at__isnull", False),
                                    ("dead_at__isnull", False),
                                    ("withdrawn_at__isnull", False),
                                    _connector="OR",
                                ),
                            ),
                            models.Q(
                                ("dead_at__isnull", True),
                                ("next_try_at__isnull", False),
                                ("sent_at__isnull", True),
                                ("withdrawn_at__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="delivery_due_until_settled",
                    ),
                ],
            },
        ),
    ]
