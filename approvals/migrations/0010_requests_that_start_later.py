"""Which undecided request was wanted for a time that has passed, found by that time."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("approvals", "0009_queue")]
    operations = [
        migrations.AddIndex(
            model_name="accessrequest",
            index=models.Index(
                condition=models.Q(
                    ("starts_at__isnull", False),
                    ("state__in", frozenset(["changes_requested", "pending"])),
                ),
                fields=["starts_at"],
                name="request_starts",
            ),
        ),
    ]
