from django.conf import settings
from django.db import migrations, models
from django.db.models import deletion


class Migration(migrations.Migration):
    dependencies = [
        ("approvals", "0006_installation_key"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Mention",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.DateTimeField()),
                (
                    "author",
                    models.ForeignKey(settings.AUTH_USER_MODEL, deletion.PROTECT, related_name="+"),
                ),
                (
                    "person",
                    models.ForeignKey(settings.AUTH_USER_MODEL, deletion.PROTECT, related_name="+"),
                ),
                (
                    "request",
                    models.ForeignKey(
                        "approvals.accessrequest", deletion.CASCADE, related_name="mentions"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=["person", "request"], name="mention_once")
                ],
            },
        ),
    ]
