"""The queue of everything undecided, newest first, however many were decided before."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("approvals", "0008_api_tokens")]
    operations = [
        migrations.AddIndex(
            model_name="accessrequest",
            index=models.Index(
                condition=models.Q(("state__in", frozenset(["changes_requested", "pending"]))),
                fields=["-id"],
                name="request_undecided",
            ),
        ),
    ]
