"""An access may fail after it was open, too: the word no longer says otherwise."""

from django.db import migrations, models

REASONS = [
    ("expired", "Ran its time"),
    ("released", "Released by its holder"),
    ("revoked", "Revoked"),
    ("failed", "Failed"),
    ("unused", "Never opened"),
]


class Migration(migrations.Migration):
    dependencies = [("approvals", "0004_abandoning")]
    operations = [
        migrations.AlterField(
            model_name="grant",
            name="end_reason",
            field=models.CharField(blank=True, choices=REASONS, max_length=10),
        ),
    ]
