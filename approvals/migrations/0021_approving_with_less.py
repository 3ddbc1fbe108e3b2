"""An approval with less than was asked: how much less, and its frozen scope."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("approvals", "0020_proposals"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="vote",
            name="reduced_duration",
            field=models.PositiveIntegerField(help_text="Seconds.", null=True),
        ),
        migrations.AddField(
            model_name="vote",
            name="reduced_hash",
            field=models.CharField(blank=True, db_default="", default="", max_length=64),
        ),
        migrations.AddField(
            model_name="vote",
            name="reduced_level",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="approvals.accesslevel",
            ),
        ),
        migrations.AddField(
            model_name="vote",
            name="reduced_scope",
            field=models.JSONField(null=True),
        ),
        migrations.AddConstraint(
            model_name="vote",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("reduced_duration__isnull", True),
                        ("reduced_hash", ""),
                        ("reduced_level__isnull", True),
                        ("reduced_scope__isnull", True),
                    ),
                    models.Q(
                        models.Q(
                            ("reduced_duration__isnull", False),
                            ("reduced_level__isnull", False),
                            _connector="OR",
                        ),
                        models.Q(
                            ("reduced_duration__isnull", True),
                            ("reduced_duration__gt", 0),
                            _connector="OR",
                        ),
                        models.Q(("reduced_hash", ""), _negated=True),
                        ("decision", "approve"),
                        ("reduced_scope__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="vote_with_less_is_whole_approval",
            ),
        ),
    ]
