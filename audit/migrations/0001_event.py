"""The table of Events. What keeps it append-only is a migration of its own."""

from django.db import migrations, models

import audit.models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Event",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField()),
                ("action", models.TextField()),
                ("actor_type", models.TextField()),
                ("actor_id", models.TextField()),
                ("actor_name", models.TextField()),
                ("on_behalf_of_id", models.TextField(blank=True)),
                ("on_behalf_of_name", models.TextField(blank=True)),
                ("subject_type", models.TextField()),
                ("subject_id", models.TextField()),
                ("subject_label", models.TextField()),
                ("thread", models.TextField()),
                ("request_id", models.TextField(blank=True)),
                ("address", models.TextField(blank=True)),
                ("agent", models.TextField(blank=True)),
                ("policy_version", models.TextField(blank=True)),
                ("scope_hash", models.TextField(blank=True)),
                ("data", models.JSONField()),
                ("canonical", models.BinaryField()),
                ("leaf_hash", models.BinaryField(max_length=32)),
                (
                    "xid",
                    audit.models.TransactionId(
                        db_default=models.Func(
                            function="pg_current_xact_id", output_field=audit.models.TransactionId()
                        ),
                        editable=False,
                    ),
                ),
            ],
            options={
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(fields=["thread", "id"], name="audit_event_thread"),
                    models.Index(
                        fields=["subject_type", "subject_id", "id"], name="audit_event_subject"
                    ),
                    models.Index(fields=["actor_id", "id"], name="audit_event_actor"),
                    models.Index(fields=["at"], name="audit_event_at"),
                    models.Index(fields=["xid", "id"], name="audit_event_sealing"),
                ],
            },
        ),
    ]
