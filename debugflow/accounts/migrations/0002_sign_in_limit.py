"""The counters of wrong passwords. What is in them can be lost at any time without harm."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_user"),
    ]

    operations = [
        migrations.CreateModel(
            name="SignInLimit",
            fields=[
                ("key", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("free_at", models.DateTimeField(db_index=True)),
                ("told", models.BooleanField(default=False)),
            ],
        ),
    ]
