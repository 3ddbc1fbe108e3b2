"""The Slack workspace, whose accounts there are whose, and what was acted upon."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("approvals", "0018_votes_on_longer_access"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="SlackCall",
            fields=[
                ("signature", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("at", models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name="SlackProof",
            fields=[
                (
                    "person",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="slack_proof",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("team_id", models.CharField(max_length=20)),
                ("member_id", models.CharField(max_length=20)),
                ("digest", models.CharField(max_length=64)),
                ("expires_at", models.DateTimeField()),
                ("tries", models.PositiveSmallIntegerField(default=0)),
                ("counted_from", models.DateTimeField()),
                ("sent", models.PositiveSmallIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="SlackWorkspace",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("team_id", models.CharField(max_length=20)),
                ("name", models.CharField(max_length=200)),
                ("bot_user", models.CharField(help_text="The member that posts.", max_length=20)),
                ("enabled", models.BooleanField(default=True)),
                ("secrets", models.JSONField(default=dict)),
                (
                    "last_error",
                    models.CharField(blank=True, help_text="Why it takes nothing.", max_length=200),
                ),
                (
                    "held_until",
                    models.DateTimeField(
                        help_text="Too much was sent: nothing until then.", null=True
                    ),
                ),
            ],
            options={
                "verbose_name": "Slack workspace",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("id", 1)), name="slackworkspace_is_one"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="SlackAccount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("team_id", models.CharField(max_length=20)),
                ("member_id", models.CharField(max_length=20)),
                (
                    "channel",
                    models.CharField(
                        blank=True, help_text="Where we write to them.", max_length=20
                    ),
                ),
                ("connected_at", models.DateTimeField()),
                (
                    "person",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="slack_account",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "Slack account",
                "ordering": ["person__username"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("team_id", "member_id"), name="slackaccount_of_one"
                    )
                ],
            },
        ),
    ]
